//! What one instance holds, and the WASI context that its grants give it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::failure::Failure;
use super::files::Narrowed;
use super::http::{Hooks, HttpAccess};
use super::limits::{HostBytes, Limiter, Meter};
use super::log::GuestLog;
use super::network::Traffic;
use super::output::{LineLog, Stdout};
use crate::capability::Grants;
use crate::clock::Clock;
use crate::config::{Limits, TlsConfig};
use crate::host_stats::{HostStats, Views};
use crate::reason::ReasonCode;
use crate::state::StateStore;

/// The agent, as plugins may know it.
#[derive(Debug, Clone)]
pub struct AgentInfo {
    pub version: String,
    pub id: String,
    pub name: String,
}

/// Everything about one configured plugin that outlasts its instances. All of it is bounded by
/// `limits`.
pub struct Context {
    /// The name of its table.
    pub name: String,
    pub grants: Grants,
    pub limits: Limits,
    pub agent: AgentInfo,
    pub clock: Arc<dyn Clock>,
    pub stats: Arc<Mutex<HostStats>>,
    /// What it saw at its last run that ended well.
    pub views: Mutex<Views>,
    /// Shared with the context that follows this one.
    pub state: Arc<Mutex<StateStore>>,
    pub log: Arc<GuestLog>,
    pub tls: TlsConfig,
    pub http: HttpAccess,
    /// Where guest `/proc` and `/sys` really are.
    pub roots: Roots,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Context {
    /// Goes on with the store that `former` has, if both keep theirs in one file.
    pub fn follow(&mut self, former: &Self) {
        let is_same = match (self.state.lock(), former.state.lock()) {
            (Ok(own), Ok(former)) => own.is_same(&former),
            _ => false,
        };
        if is_same {
            self.state = former.state.clone();
        }
    }

    /// Bytes that outlast the instances, besides the series table.
    pub fn durable_bytes(&self) -> usize {
        let views = self.views.lock().map_or(0, |views| views.bytes());
        views + self.state.lock().map_or(0, |state| state.bytes())
    }
}

/// Where the machine's files are: elsewhere in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    pub proc: PathBuf,
    pub sys: PathBuf,
    pub root: PathBuf,
}

impl Roots {
    /// Where a path that a plugin names lies on this machine.
    pub fn host_path(&self, guest: &Path) -> PathBuf {
        if let Ok(rest) = guest.strip_prefix("/proc") {
            self.proc.join(rest)
        } else if let Ok(rest) = guest.strip_prefix("/sys") {
            self.sys.join(rest)
        } else if let Ok(rest) = guest.strip_prefix("/") {
            self.root.join(rest)
        } else {
            guest.to_owned()
        }
    }
}

/// The data of one store.
pub(super) struct Guest {
    pub(super) context: Arc<Context>,
    pub(super) table: ResourceTable,
    wasi: WasiCtx,
    narrowed: Narrowed,
    http: WasiHttpCtx,
    hooks: Hooks,
    pub(super) limiter: Limiter,
    pub(super) meter: Arc<Meter>,
    pub(super) traffic: Arc<Traffic>,
    /// Which slot is being served: figures of the machine are shared within one.
    pub(super) slot: u64,
    outputs: Vec<LineLog>,
    pub(super) host_bytes: HostBytes,
}

impl Guest {
    pub(super) fn new(context: Arc<Context>) -> Result<Self, String> {
        let limits = &context.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(16 * 1024);
        let traffic = Arc::new(Traffic::new(limits));
        let meter = Arc::new(Meter::start(limits.timeout, limits.cpu));
        let host_bytes = HostBytes::new(limits.host_memory);
        let mut outputs = vec![LineLog::new(context.log.clone())];
        let mut narrowed = Narrowed::default();
        let wasi = wasi_context(&context, &mut outputs, &mut narrowed)?;
        Ok(Self {
            hooks: Hooks::new(context.clone(), traffic.clone(), meter.clone(), host_bytes.clone()),
            limiter: Limiter::new(limits),
            table,
            wasi,
            narrowed,
            http,
            meter,
            traffic,
            slot: 0,
            outputs,
            host_bytes,
            context,
        })
    }

    pub(super) fn begin_call(&mut self, slot: u64, timeout: Duration) {
        self.slot = slot;
        self.meter = Arc::new(Meter::start(timeout, self.context.limits.cpu));
        self.traffic.begin_call();
        self.hooks.begin_call(self.meter.clone());
        self.context.log.begin_call();
    }

    pub(super) fn filesystem_parts(&mut self) -> (WasiFilesystemCtxView<'_>, &mut Narrowed) {
        let ctx = self.wasi.filesystem();
        (WasiFilesystemCtxView { ctx, table: &mut self.table }, &mut self.narrowed)
    }

    /// A guest may keep more open than it was allowed to, where no call of ours could say no.
    pub(super) fn over_host_memory(&self) -> Option<Failure> {
        let limit = self.context.limits.host_memory;
        (self.host_bytes.get() > limit).then(|| {
            Failure::new(
                ReasonCode::HostMemoryLimit,
                format!(
                    "the host holds {} bytes for it where the limit is {limit} (limits.host_memory)",
                    self.host_bytes.get()
                ),
            )
        })
    }

    /// Gives the guest's last words.
    pub(super) fn end_call(&self) -> Option<String> {
        for output in &self.outputs {
            output.flush();
        }
        self.context.log.end_call()
    }
}

fn wasi_context(
    context: &Context,
    outputs: &mut Vec<LineLog>,
    narrowed: &mut Narrowed,
) -> Result<WasiCtx, String> {
    let mut builder = WasiCtx::builder();
    builder
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(64 * 1024)
        .stderr(outputs[0].clone());
    if context.grants.stdout() {
        builder.stdout(Stdout);
    } else {
        let output = LineLog::new(context.log.clone());
        builder.stdout(output.clone());
        outputs.push(output);
    }
    for name in context.grants.env() {
        if let Ok(value) = std::env::var(name) {
            builder.env(name, value);
        }
    }
    let mut all_kernel = true;
    let read = context.grants.read().map(|path| (path, FsPerms::ReadOnly));
    let write = context.grants.write().map(|path| (path, FsPerms::ReadWrite));
    for (path, perms) in read.chain(write) {
        preopen(&mut builder, context, path, perms, narrowed)?;
        all_kernel &= path.starts_with("/proc") || path.starts_with("/sys");
    }
    // procfs and sysfs answer from memory; anything else may hang and belongs onto the pool.
    builder.allow_blocking_current_thread(all_kernel);
    Ok(builder.build())
}

/// A grant whose directory is not there reads as absent: it may appear later, or never exist on
/// this kernel. A file (or what may become one) is shown in its otherwise hidden directory.
fn preopen(
    builder: &mut WasiCtxBuilder,
    context: &Context,
    guest: &Path,
    perms: FsPerms,
    narrowed: &mut Narrowed,
) -> Result<(), String> {
    let host = context.roots.host_path(guest);
    let (host, guest) = if host.is_dir() {
        (host, guest)
    } else {
        let (Some(host), Some(parent), Some(name)) = (host.parent(), guest.parent(), guest.file_name())
        else {
            return Ok(());
        };
        if !host.is_dir() {
            return Ok(());
        }
        let names = narrowed.by_path.entry(parent.to_string_lossy().into_owned()).or_default();
        names.push(name.to_string_lossy().into_owned());
        if names.len() > 1 {
            return Ok(());
        }
        (host.to_owned(), parent)
    };
    builder
        .preopened_dir(&host, guest.to_string_lossy(), perms)
        .map(|_| ())
        .map_err(|error| format!("cannot open granted directory {}: {error}", host.display()))
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}
