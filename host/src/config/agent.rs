//! `[agent]`: the agent itself.
//!
//! Uses: `reader`; `capability` for the default grants, `sample` for the machine's facts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::expand::Env;
use super::fault::nearest;
use super::plugin::tags;
use super::reader::{FromValue, Reader, wrong};
use super::tree::Value;
use crate::capability::{Capability, GrantConfig};
use crate::sample::{Attribute, AttributeValue, Tag};

/// Which lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const WORDS: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    pub(super) fn read(table: &mut Reader<'_>) -> Option<Self> {
        table.choice("log_level", &Self::WORDS)
    }

    pub fn as_str(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// How the agent notices that files have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The kernel tells it.
    Inotify,
    /// It looks: changes on network and some overlay file systems are not told.
    Poll,
    /// Not at all: only SIGHUP and `kimberlite reload`.
    Off,
}

/// `[agent]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// Of this machine's element; none: the first label of the host's full name.
    pub name: Option<String>,
    pub tags: Vec<Tag>,
    pub attributes: Vec<Attribute>,
    /// Ids of other elements.
    pub relations: Vec<String>,
    pub location: Option<String>,
    /// Of collectors that name none of their own.
    pub interval: Duration,
    /// How long a stop may take to deliver what is queued.
    pub grace: Duration,
    /// What collectors get whose table has no `grant`, or that have no table.
    pub default_grants: GrantConfig,
    /// Where dropped-in plugins lie.
    pub plugin_dirs: Vec<PathBuf>,
    /// Bytes; a larger plugin is not read.
    pub plugin_size: u64,
    /// Whether a link in a plugin directory may lead out of it.
    pub follow_links: bool,
    /// Minisign public keys; if there are any, only plugins that one of them has signed are loaded.
    pub trusted_keys: Vec<String>,
    /// How changed files are noticed.
    pub watch: Watch,
    /// How often that is looked at where nobody is told.
    pub watch_interval: Duration,
    /// How long a file has to stay as it is before it is read.
    pub debounce: Duration,
    /// None: see [`AgentConfig::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// What guests see as `/proc`.
    pub proc: PathBuf,
    /// What guests see as `/sys`.
    pub sys: PathBuf,
    /// What guests see as `/`.
    pub root: PathBuf,
    /// URL of the proxy that HTTP goes through.
    pub proxy: Option<String>,
    /// A loopback address on which the admin server listens beside its unix socket.
    pub listen: Option<SocketAddr>,
    pub log_level: LogLevel,
    /// Whether `kimberlite.*` samples are made.
    pub self_metrics: bool,
    /// How far apart two looks at a running guest are.
    pub epoch_tick: Duration,
}

impl Default for AgentConfig {
    fn default() -> Self {
        let mut default_grants = GrantConfig::default();
        default_grants.add(Capability::HostStats, Capability::HostStats.whole().unwrap_or_default());
        Self {
            name: None,
            tags: Vec::new(),
            attributes: Vec::new(),
            relations: Vec::new(),
            location: None,
            interval: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            default_grants,
            plugin_dirs: vec![PathBuf::from("/etc/kimberlite/plugins")],
            plugin_size: 64 << 20,
            follow_links: false,
            trusted_keys: Vec::new(),
            watch: Watch::Inotify,
            watch_interval: Duration::from_secs(5),
            debounce: Duration::from_millis(200),
            data_dir: None,
            proc: PathBuf::from("/proc"),
            sys: PathBuf::from("/sys"),
            root: PathBuf::from("/"),
            proxy: None,
            listen: None,
            log_level: LogLevel::Info,
            self_metrics: true,
            epoch_tick: Duration::from_millis(10),
        }
    }
}

impl AgentConfig {
    /// Where spool, state and compiled code live: as configured; else `/var/lib/kimberlite` for
    /// root, and a user's own state directory for others. None: nobody told where home is.
    pub fn data_dir(&self, is_root: bool, env: Env<'_>) -> Option<PathBuf> {
        if let Some(configured) = &self.data_dir {
            return Some(configured.clone());
        }
        if is_root {
            return Some(PathBuf::from("/var/lib/kimberlite"));
        }
        let directory = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
        Some(state.join("kimberlite"))
    }

    pub(super) fn read(table: &mut Reader<'_>) -> Self {
        let mut agent = Self { name: table.take("name"), tags: tags(table, "tags"), ..Self::default() };
        if agent
            .name
            .as_ref()
            .is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control))
        {
            table.fault("name", "`name` must not be empty nor hold control characters", None);
        }
        agent.attributes = table.table("attributes", attributes).unwrap_or_default();
        table.set("relations", &mut agent.relations);
        agent.location = table.take("location");
        table.positive_into("interval", &mut agent.interval);
        table.set("grace", &mut agent.grace);
        if let Some(grants) = default_grants(table) {
            agent.default_grants = grants;
        }
        if let Some(paths) = table.paths("plugin_dirs") {
            agent.plugin_dirs = paths;
        }
        table.size("plugin_size", &mut agent.plugin_size);
        table.set("follow_links", &mut agent.follow_links);
        table.set("trusted_keys", &mut agent.trusted_keys);
        for key in agent.trusted_keys.clone() {
            if let Err(why) = crate::trust::check_key(&key) {
                table.fault("trusted_keys", format!("`{key}` in `trusted_keys` {why}"), None);
            }
        }
        let ways = [("inotify", Watch::Inotify), ("poll", Watch::Poll), ("off", Watch::Off)];
        agent.watch = table.choice("watch", &ways).unwrap_or(agent.watch);
        table.positive_into("watch_interval", &mut agent.watch_interval);
        table.positive_into("debounce", &mut agent.debounce);
        agent.data_dir = table.absolute("data_dir");
        for (key, slot) in [("proc", &mut agent.proc), ("sys", &mut agent.sys), ("root", &mut agent.root)] {
            if let Some(path) = table.absolute(key) {
                *slot = path;
            }
        }
        agent.proxy = table.take("proxy");
        if agent.proxy.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            table.fault("proxy", "`proxy` must be a URL such as `http://proxy.example.com:3128`", None);
        }
        agent.listen = listen(table);
        agent.log_level = LogLevel::read(table).unwrap_or(agent.log_level);
        table.set("self_metrics", &mut agent.self_metrics);
        table.positive_into("epoch_tick", &mut agent.epoch_tick);
        agent
    }
}

fn attributes(table: &mut Reader<'_>) -> Vec<Attribute> {
    let mut attributes = Vec::new();
    for (name, node) in table.rest() {
        let value = match &node.value {
            Value::Text(text) => Some(AttributeValue::Text(text.clone())),
            value => f64::from_value(value).map(AttributeValue::Number),
        };
        match value {
            Some(value) => attributes.push(Attribute { name, value }),
            None if node.value.is_faulty() => {}
            None => table.report(wrong(&name, "a text or a number", &node)),
        }
    }
    attributes
}

fn default_grants(table: &mut Reader<'_>) -> Option<GrantConfig> {
    let names: Vec<String> = table.take("default_grants")?;
    let mut grants = GrantConfig::default();
    for name in names {
        match Capability::parse(&name).map(|capability| (capability, capability.whole())) {
            Some((capability, Some(targets))) => grants.add(capability, targets),
            Some((_, None)) => {
                let message = format!("`default_grants` cannot hold `{name}`: it is granted by name only");
                table.fault("default_grants", message, Some("name it in the `grant` of the plugin's table"));
            }
            None => {
                let hint = nearest(&name, Capability::ALL.map(Capability::as_str));
                table.fault("default_grants", format!("there is no capability `{name}`"), Some(&hint));
            }
        }
    }
    Some(grants)
}

fn listen(table: &mut Reader<'_>) -> Option<SocketAddr> {
    let text: String = table.take("listen")?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        _ => {
            let message =
                format!("`listen` must be a loopback address such as `127.0.0.1:9617`, not `{text}`");
            let hint = "everyone who reaches it sees all figures; put a proxy before it to let others in";
            table.fault("listen", message, Some(hint));
            None
        }
    }
}
