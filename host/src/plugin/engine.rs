//! The one wasmtime engine: its settings, what guests may import, and the way from bytes to a
//! plugin that can be instantiated.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, OptLevel};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::bindings::kimberlite::plugin::{agent, host_stats, log, net, state, tcp, types, udp};
use super::cache::{CodeCache, hex};
use super::clocks::Clocks;
use super::files::Files;
use super::interface::{self, Exports};
use super::section::{self, Wasm};
use super::store::Guest;
use super::ticker::Ticker;
use crate::config::manifest::{Manifest, PluginKind};

/// The contract as 0.1.0 froze it: every component is compared with one of these.
const COLLECTOR: &[u8] = include_bytes!("../../../wit/frozen/collector-0.1.0.wasm");
const HANDLER: &[u8] = include_bytes!("../../../wit/frozen/handler-0.1.0.wasm");

/// Compiles and instantiates. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) ticker: Ticker,
    linker: Linker<Guest>,
    cache: Option<CodeCache>,
    /// What is in use, by content: a thousand tables of one component hold its code once.
    linked: Mutex<HashMap<String, Weak<InstancePre<Guest>>>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A component that has passed every check and can be instantiated at once.
#[derive(Clone)]
pub struct Plugin {
    pub manifest: Manifest,
    pub exports: Exports,
    /// Lower-case hexadecimal, of the whole file.
    pub sha256: String,
    /// Bytes of the file.
    pub size: usize,
    /// What it calls on the host, `interface.function` each, in order.
    pub imports: Vec<String>,
    pub(super) pre: Arc<InstancePre<Guest>>,
    pub(super) engine: Engine,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// `cache`: where compiled code is kept; none: every load compiles. `tick`: how exactly
    /// deadlines of computing guests are kept.
    pub fn new(cache: Option<PathBuf>, tick: Duration) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .cranelift_opt_level(OptLevel::Speed)
            // Only backtraces of traps use it, and they name nothing that a user knows.
            .generate_address_map(false)
            .wasm_component_model(true);
        let engine = wasmtime::Engine::new(&config).map_err(anyhow::Error::from)?;
        let ticked = engine.clone();
        let ticker = Ticker::start(tick, move || ticked.increment_epoch())?;
        let cache = cache.map(|dir| CodeCache::new(dir, &engine));
        let linker = linker(&engine).map_err(anyhow::Error::from)?;
        Ok(Self {
            inner: Arc::new(Inner { wasmtime: engine, ticker, linker, cache, linked: Mutex::default() }),
        })
    }

    /// Checks and compiles. `stem`: the name of a component without a manifest. Errors say what
    /// is wrong with the file, not which file: the caller knows.
    pub fn load(&self, bytes: &[u8], stem: &str) -> Result<Plugin, String> {
        let inner = &*self.inner;
        match section::kind_of(bytes)? {
            Wasm::Component => {}
            Wasm::Module => {
                return Err("is a core module, not a component: build it for wasm32-wasip2".to_owned());
            }
        }
        let sha256 = hex(&Sha256::digest(bytes));
        let pre = self.link(bytes, &sha256)?;
        let component = pre.component();
        let exports = interface::exports(component, &inner.wasmtime)?;
        let manifest = match section::read(bytes)? {
            Some(text) => {
                Manifest::parse(&text).map_err(|faults| format!("has a manifest that is wrong:\n{faults}"))?
            }
            None => Manifest::bare(stem, exports.kind),
        };
        if manifest.kind != exports.kind {
            return Err(format!(
                "has a manifest that says {}, but exports a {}",
                manifest.kind.as_str(),
                exports.kind.as_str()
            ));
        }
        let imports = imports(component, &inner.wasmtime);
        Ok(Plugin { manifest, exports, sha256, size: bytes.len(), imports, pre, engine: self.clone() })
    }

    /// Compiled, checked and joined with what the host offers; shared with whoever has it already.
    fn link(&self, bytes: &[u8], sha256: &str) -> Result<Arc<InstancePre<Guest>>, String> {
        let inner = &*self.inner;
        let linked = || inner.linked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pre) = linked().get(sha256).and_then(Weak::upgrade) {
            return Ok(pre);
        }
        let component = match inner.cache.as_ref().and_then(|cache| cache.load(&inner.wasmtime, sha256)) {
            Some(component) => component,
            None => {
                let component = self.compile(bytes)?;
                self.check_types(&component)?;
                if let Some(cache) = &inner.cache {
                    cache.store(sha256, &component);
                }
                component
            }
        };
        // Tells a component that is no plugin from one that lacks an import.
        interface::exports(&component, &inner.wasmtime)?;
        let pre = Arc::new(inner.linker.instantiate_pre(&component).map_err(|error| link_error(&error))?);
        let mut linked = linked();
        linked.retain(|_, pre| pre.strong_count() > 0);
        linked.insert(sha256.to_owned(), Arc::downgrade(&pre));
        Ok(pre)
    }

    fn compile(&self, bytes: &[u8]) -> Result<Component, String> {
        let compiled = Component::new(&self.inner.wasmtime, bytes);
        crate::memory::trim_heap();
        compiled.map_err(|error| {
            format!("does not compile: {}", super::failure::bounded(&format!("{error:#}"), 500))
        })
    }

    /// Every difference from the contract, so that an author mends all at once.
    fn check_types(&self, component: &Component) -> Result<(), String> {
        let inner = &*self.inner;
        let exports = interface::exports(component, &inner.wasmtime)?;
        let contract = self.contract(match exports.kind {
            PluginKind::Collector => COLLECTOR,
            PluginKind::Handler => HANDLER,
        })?;
        let mut found = Vec::new();
        for name in [exports.kind.as_str(), "diagnostics"] {
            found.extend(interface::differences(component, &contract, &inner.wasmtime, name));
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(format!(
            "differs from kimberlite:plugin@{}: {}; rebuild it against this agent's wit/ or SDK",
            interface::VERSION,
            found.join("; ")
        ))
    }

    fn contract(&self, frozen: &[u8]) -> Result<Component, String> {
        let inner = &*self.inner;
        let sha256 = hex(&Sha256::digest(frozen));
        if let Some(found) = inner.cache.as_ref().and_then(|cache| cache.load(&inner.wasmtime, &sha256)) {
            return Ok(found);
        }
        let contract = self.compile(frozen)?;
        if let Some(cache) = &inner.cache {
            cache.store(&sha256, &contract);
        }
        Ok(contract)
    }
}

/// What a guest can reach at most. What it does reach is decided by what its store holds.
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    use wasmtime::component::HasSelf;
    use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sockets};
    use wasmtime_wasi::random::WasiRandom;

    let mut linker = Linker::new(engine);
    let l = &mut linker;

    types::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    log::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    agent::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    state::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    host_stats::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    net::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    tcp::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;
    udp::add_to_linker::<_, HasSelf<Guest>>(l, |guest| guest)?;

    wasmtime_wasi::p2::bindings::io::error::add_to_linker::<_, Table>(l, |guest| &mut guest.table)?;
    wasmtime_wasi::p2::bindings::io::poll::add_to_linker::<_, Table>(l, |guest| &mut guest.table)?;
    wasmtime_wasi::p2::bindings::io::streams::add_to_linker::<_, Table>(l, |guest| &mut guest.table)?;

    clocks::wall_clock::add_to_linker::<_, Clocks>(l, Guest::clock_view)?;
    clocks::monotonic_clock::add_to_linker::<_, Clocks>(l, Guest::clock_view)?;

    random::random::add_to_linker::<_, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure::add_to_linker::<_, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(l, |guest| guest.ctx().ctx.random())?;

    cli::exit::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;

    filesystem::types::add_to_linker::<_, Files>(l, Guest::files)?;
    filesystem::preopens::add_to_linker::<_, Files>(l, Guest::files)?;

    // Linked because language runtimes import them; the context denies every one.
    let options = sockets::network::LinkOptions::default();
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;
    sockets::network::add_to_linker::<_, WasiSockets>(l, &options, Guest::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, Guest::sockets)?;

    wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    Ok(linker)
}

/// Names the resource table for the linker.
struct Table;

impl wasmtime::component::HasData for Table {
    type Data<'a> = &'a mut wasmtime::component::ResourceTable;
}

/// What a component imports of ours and of the network, for `inspect`.
fn imports(component: &Component, engine: &wasmtime::Engine) -> Vec<String> {
    use wasmtime::component::types::ComponentItem;
    let mut found = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        match item.ty {
            ComponentItem::ComponentInstance(instance) if name.starts_with("kimberlite:plugin/") => {
                let interface = name.trim_start_matches("kimberlite:plugin/");
                let interface = interface.split_once('@').map_or(interface, |(interface, _)| interface);
                for (function, item) in instance.exports(engine) {
                    if matches!(item.ty, ComponentItem::ComponentFunc(_)) {
                        found.push(format!("{interface}.{function}"));
                    }
                }
            }
            _ => found.push(name.to_owned()),
        }
    }
    found.sort_unstable();
    found
}

/// The linker knows the name that is missing, and buries it.
fn link_error(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    let name = text.split('`').nth(1).or_else(|| text.split('\'').nth(1)).unwrap_or("something");
    if name.starts_with("kimberlite:") {
        format!("imports `{name}`, which this agent does not offer in that form: it needs a newer kimberlite")
    } else {
        format!(
            "imports `{name}`, which this agent does not offer; plugins may import kimberlite:plugin and WASI 0.2"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        Engine::new(None, Duration::from_millis(10)).unwrap()
    }

    #[test]
    fn components_of_0_1_0_load_for_ever() {
        for (frozen, kind) in [(COLLECTOR, PluginKind::Collector), (HANDLER, PluginKind::Handler)] {
            let plugin = engine().load(frozen, "frozen").unwrap();
            assert_eq!(plugin.exports.kind, kind);
            assert_eq!(plugin.exports.version, "0.1.0");
            assert!(plugin.exports.diagnostics && plugin.manifest.is_bare);
        }
    }

    #[test]
    fn what_is_no_plugin_is_refused_in_words() {
        let engine = engine();
        let refusal = |bytes: &[u8]| engine.load(bytes, "x").unwrap_err();
        assert_eq!(refusal(b""), "is empty");
        assert_eq!(refusal(b"\x7fELF"), "is not WebAssembly");
        assert!(refusal(&COLLECTOR[..COLLECTOR.len() / 2]).contains("does not compile"));
        assert!(refusal(&wasm_encoder::Module::new().finish()).contains("core module"));
        assert!(refusal(&wasm_encoder::Component::new().finish()).contains("exports neither"));
    }

    #[test]
    fn compiled_code_that_was_tampered_with_is_compiled_anew() {
        let dir = std::env::temp_dir().join(format!("kimberlite-cache-{}", std::process::id()));
        let load = || {
            let engine = Engine::new(Some(dir.clone()), Duration::from_millis(10)).unwrap();
            engine.load(COLLECTOR, "frozen").unwrap()
        };
        load();
        let code = || {
            let mut entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
            entries.find(|path| path.extension().is_some_and(|extension| extension == "cwasm")).unwrap()
        };
        let whole = std::fs::read(code()).unwrap();
        let mut bent = whole.clone();
        *bent.last_mut().unwrap() ^= 1;
        std::fs::write(code(), &bent).unwrap();
        load();
        assert_eq!(std::fs::read(code()).unwrap(), whole);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
