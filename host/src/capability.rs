//! What a plugin may touch: its manifest asks, the operator grants, and it holds what both name.
//!
//! ```text
//! [capabilities.tcp] ask = […]  ──▶ Ask ─────┐
//!                                            ├─ Grants::new ──▶ Grants, or what is Missing
//! grant = { tcp = […] }  ──▶ GrantConfig ────┘
//! ```
//!
//! Which grants count is simple. A table's `grant` is all its plugin is given. A collector without
//! one has `agent.default_grants`. Everything else has to be named, also where the settings already
//! say the same: settings tell a plugin what to do, a grant is the operator's word that the program
//! in that file may do it, and whoever reviews the config reads the grants alone. A handler
//! therefore names even the address it delivers to.
//!
//! Uses: nothing of kimberlite.

mod grants;
mod target;

use std::collections::BTreeMap;
use std::fmt;

pub use grants::{Grants, Missing};
pub use target::{Address, FAMILIES, Target};

/// A sort of thing that a plugin may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// The machine's own figures, by family.
    HostStats,
    /// A key-value store that the agent keeps.
    State,
    /// Files and directories, by path.
    Read,
    /// The same, to write.
    Write,
    /// HTTP, by origin or unix socket.
    Http,
    /// Connections, by `host:port`.
    Tcp,
    /// Datagrams, by `host:port`.
    Udp,
    /// An inbox: a socket that the agent listens on.
    Listen,
    /// Environment variables, by name.
    Env,
    /// The agent's own standard output.
    Stdout,
}

impl Capability {
    pub const ALL: [Self; 10] = [
        Self::HostStats,
        Self::State,
        Self::Read,
        Self::Write,
        Self::Http,
        Self::Tcp,
        Self::Udp,
        Self::Listen,
        Self::Env,
        Self::Stdout,
    ];

    /// As manifests and configs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostStats => "host-stats",
            Self::State => "state",
            Self::Read => "read",
            Self::Write => "write",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Listen => "listen",
            Self::Env => "env",
            Self::Stdout => "stdout",
        }
    }

    /// The capability of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == name)
    }

    /// What `true` stands for: `state` and `stdout` themselves, every family of `host-stats` but
    /// `processes`. None: such targets are only ever named one by one.
    pub fn whole(self) -> Option<Vec<Target>> {
        match self {
            Self::State | Self::Stdout => Some(vec![Target::Whole]),
            Self::HostStats => {
                let by_default = |family: &&str| *family != target::NEVER_BY_DEFAULT;
                Some(FAMILIES.into_iter().filter(by_default).map(Target::Family).collect())
            }
            _ => None,
        }
    }

    /// "asks …" and "may not …": what is done with a target.
    fn verb(self) -> &'static str {
        match self {
            Self::HostStats => "see the host-stats",
            Self::State => "keep state",
            Self::Read => "read",
            Self::Write => "write",
            Self::Http => "reach",
            Self::Tcp => "connect to",
            Self::Udp => "send datagrams to",
            Self::Listen => "listen on",
            Self::Env => "see the environment variable",
            Self::Stdout => "print on standard output",
        }
    }

    /// "read `/proc/stat`, `/proc/uptime`", "keep state".
    pub fn phrase(self, targets: &[Target]) -> String {
        let named: Vec<String> =
            targets.iter().filter(|t| **t != Target::Whole).map(|t| format!("`{t}`")).collect();
        if named.is_empty() {
            self.verb().to_owned()
        } else {
            format!("{} {}", self.verb(), named.join(", "))
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One capability as a manifest asks for it, its placeholders filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub capability: Capability,
    pub targets: Vec<Target>,
    /// Families of `host-stats` whose previous view is wanted too.
    pub previous: Vec<Target>,
    /// Why, for people.
    pub reason: String,
}

/// What the operator grants: `grant = { … }` of a table, or `agent.default_grants`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrantConfig(BTreeMap<Capability, Vec<Target>>);

impl GrantConfig {
    /// Adds to what is granted.
    pub fn add(&mut self, capability: Capability, targets: impl IntoIterator<Item = Target>) {
        let held = self.0.entry(capability).or_default();
        for target in targets {
            if !held.contains(&target) {
                held.push(target);
            }
        }
    }

    /// The value of a `--grant` flag: `capability=target`, or a capability alone for all of it
    /// where there is such a thing. The error is for people.
    pub fn add_flag(&mut self, flag: &str) -> Result<(), String> {
        let (name, text) = flag.split_once('=').unwrap_or((flag, "true"));
        let capability = Capability::parse(name).ok_or_else(|| {
            let known = Capability::ALL.map(Capability::as_str).join(", ");
            format!("there is no capability `{name}`; there are {known}")
        })?;
        let targets = match (capability.whole(), text) {
            (Some(whole), "true") => whole,
            _ => {
                let target = Target::parse(capability, text);
                vec![target.map_err(|wanted| format!("`--grant {flag}`: {wanted}"))?]
            }
        };
        self.add(capability, targets);
        Ok(())
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    /// What is granted of one capability.
    pub fn targets(&self, capability: Capability) -> &[Target] {
        self.0.get(&capability).map_or(&[], Vec::as_slice)
    }

    /// Two different sockets under one name, if there are such.
    pub fn clash(&self) -> Option<(&Target, &Target)> {
        let targets = self.targets(Capability::Http);
        targets.iter().enumerate().find_map(|(index, first)| {
            let name = first.socket()?;
            Some((first, targets[index + 1..].iter().find(|second| second.socket() == Some(name))?))
        })
    }
}

impl fmt::Display for GrantConfig {
    /// The line of TOML that grants it: `grant = { tcp = ["10.0.0.7:2003"] }`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("grant = {}");
        }
        f.write_str("grant = {")?;
        for (index, (capability, targets)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { " " })?;
            write!(f, "{capability} = ")?;
            if capability.whole().as_ref() == Some(targets) {
                f.write_str("true")?;
                continue;
            }
            let texts: Vec<String> =
                targets.iter().map(|t| toml::Value::from(t.to_string()).to_string()).collect();
            write!(f, "[{}]", texts.join(", "))?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_found_by_its_name() {
        for capability in Capability::ALL {
            assert_eq!(Capability::parse(capability.as_str()), Some(capability));
        }
        assert_eq!(Capability::parse("tpc"), None);
    }

    #[test]
    fn processes_are_never_granted_wholesale() {
        let whole = Capability::HostStats.whole().unwrap();
        assert!(whole.contains(&Target::Family("cpu")));
        assert!(!whole.contains(&Target::Family("processes")));
    }

    #[test]
    fn flags_add_up_to_the_line_a_config_would_have() {
        let mut granted = GrantConfig::default();
        for flag in [
            "tcp=10.0.0.7:2003",
            "tcp=h:1",
            "state",
            "stdout=true",
            "host-stats=cpu",
            "http=d=unix:///d.sock",
        ] {
            granted.add_flag(flag).unwrap();
        }
        assert_eq!(
            granted.to_string(),
            r#"grant = { host-stats = ["cpu"], state = true, http = ["unix:///d.sock"], tcp = ["10.0.0.7:2003", "h:1"], stdout = true }"#
        );
    }

    #[test]
    fn flags_that_grant_too_much_or_nothing_are_refused() {
        let refusal = |flag| GrantConfig::default().add_flag(flag).unwrap_err();
        assert!(refusal("read").contains("absolute path"));
        assert!(refusal("tcp=true").contains("host:port"));
        assert!(refusal("reed=/x").contains("there is no capability `reed`"));
    }

    #[test]
    fn two_sockets_of_one_name_clash() {
        let mut granted = GrantConfig::default();
        granted.add_flag("http=unix:///a/docker.sock").unwrap();
        assert_eq!(granted.clash(), None);
        granted.add_flag("http=unix:///b/docker.sock").unwrap();
        assert!(granted.clash().is_some());
        let mut renamed = GrantConfig::default();
        renamed.add_flag("http=unix:///a/docker.sock").unwrap();
        renamed.add_flag("http=other=unix:///b/docker.sock").unwrap();
        assert_eq!(renamed.clash(), None);
    }
}
