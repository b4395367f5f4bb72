//! What one plugin holds, what it lacks, and what a refusal says.
//!
//! Uses: `target`, for what two sides have in common.

use std::fmt;
use std::path::Path;

use super::{Address, Ask, Capability, GrantConfig, Target};

/// What a plugin holds: asked by its manifest and granted by the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    held: GrantConfig,
    /// Families whose previous view the plugin is given.
    previous: Vec<Target>,
    /// Both sides whole, to tell in a refusal which of them is missing.
    asked: Vec<Ask>,
    granted: GrantConfig,
}

/// Something that a manifest asks for and nobody granted. The plugin is not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub capability: Capability,
    pub targets: Vec<Target>,
    /// Why the plugin wants it, in its manifest's words.
    pub reason: String,
    /// The line of config that grants this and everything else that is missing, beside what the
    /// table grants already.
    pub line: String,
    /// The table has a `grant` already, which the line replaces.
    pub replaces: bool,
}

impl Grants {
    /// What both sides name. `granted` is the table's own `grant`; `defaults` stand in for it where
    /// the table has none. A path that is granted in part is held in part. The error names, for each
    /// ask, all of which nothing is granted.
    pub fn new(
        asked: &[Ask],
        granted: Option<&GrantConfig>,
        defaults: &GrantConfig,
    ) -> Result<Self, Vec<Missing>> {
        let side = granted.unwrap_or(defaults);
        let mut grants = Self { asked: asked.to_vec(), granted: side.clone(), ..Self::default() };
        let mut line = granted.cloned().unwrap_or_default();
        let mut missing = Vec::new();
        for ask in asked {
            let mut lacking = Vec::new();
            for target in &ask.targets {
                let common: Vec<Target> =
                    side.targets(ask.capability).iter().filter_map(|held| target.meet(held)).collect();
                if common.is_empty() {
                    lacking.push(target.clone());
                }
                grants.held.add(ask.capability, common);
            }
            let held = grants.held.targets(ask.capability);
            grants.previous.extend(ask.previous.iter().filter(|family| held.contains(family)).cloned());
            if granted.is_none() {
                // The pasted line takes the defaults' place, so it has to say all of it.
                line.add(ask.capability, ask.targets.iter().cloned());
            }
            if !lacking.is_empty() {
                line.add(ask.capability, lacking.iter().cloned());
                missing.push((ask, lacking));
            }
        }
        if missing.is_empty() {
            return Ok(grants);
        }
        let line = line.to_string();
        let lack = |(ask, targets): (&Ask, Vec<Target>)| Missing {
            capability: ask.capability,
            targets,
            reason: ask.reason.clone(),
            line: line.clone(),
            replaces: granted.is_some(),
        };
        Err(missing.into_iter().map(lack).collect())
    }

    /// Grants that the manifest never asks for: worth a warning where the table itself names them.
    pub fn unasked(&self) -> GrantConfig {
        let mut unasked = GrantConfig::default();
        for capability in Capability::ALL {
            let is_unasked = |target: &&Target| !self.asks(capability).any(|ask| ask.meet(target).is_some());
            let targets: Vec<Target> =
                self.granted.targets(capability).iter().filter(is_unasked).cloned().collect();
            if !targets.is_empty() {
                unasked.add(capability, targets);
            }
        }
        unasked
    }

    /// Whether both let a plugin do the same.
    pub fn allows_the_same(&self, other: &Self) -> bool {
        self.held == other.held && self.previous == other.previous
    }

    /// What its manifest asks for.
    pub fn asked(&self) -> &[Ask] {
        &self.asked
    }

    /// What is held of one capability.
    pub fn held(&self, capability: Capability) -> &[Target] {
        self.held.targets(capability)
    }

    /// Whether the view of this family may be seen.
    pub fn host_stats(&self, family: &str) -> bool {
        self.held(Capability::HostStats)
            .iter()
            .any(|target| matches!(target, Target::Family(f) if *f == family))
    }

    /// Whether the family's view of the plugin's previous run is kept for it.
    pub fn previous(&self, family: &str) -> bool {
        self.previous.iter().any(|target| matches!(target, Target::Family(f) if *f == family))
    }

    /// Whether it has a store.
    pub fn state(&self) -> bool {
        !self.held(Capability::State).is_empty()
    }

    /// Whether it may print.
    pub fn stdout(&self) -> bool {
        !self.held(Capability::Stdout).is_empty()
    }

    /// Files and directories it may read, as the guest names them.
    pub fn read(&self) -> impl Iterator<Item = &Path> {
        self.paths(Capability::Read)
    }

    /// Files and directories it may write, as the guest names them.
    pub fn write(&self) -> impl Iterator<Item = &Path> {
        self.paths(Capability::Write)
    }

    /// Environment variables it may see.
    pub fn env(&self) -> impl Iterator<Item = &str> {
        self.held(Capability::Env).iter().filter_map(|target| match target {
            Target::Variable(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether requests may go to this origin. `scheme` is `http` or `https`.
    pub fn allows_http(&self, scheme: &str, host: &str, port: u16) -> bool {
        let Some(wanted) = Address::new(host, port) else { return false };
        self.held(Capability::Http).iter().any(|target| match target {
            Target::Origin { scheme: held, address } => *held == scheme && *address == wanted,
            _ => false,
        })
    }

    /// The socket behind `http://NAME.unix/`.
    pub fn unix_socket(&self, name: &str) -> Option<&Path> {
        self.held(Capability::Http).iter().find_map(|target| match target {
            Target::Socket { name: held, path } if held.eq_ignore_ascii_case(name) => Some(path.as_path()),
            _ => None,
        })
    }

    /// Whether it may connect to this `host:port`.
    pub fn allows_tcp(&self, address: &str) -> bool {
        self.allows(Capability::Tcp, address)
    }

    /// Whether it may send datagrams to this `host:port`.
    pub fn allows_udp(&self, address: &str) -> bool {
        self.allows(Capability::Udp, address)
    }

    /// Whether a text names a target that is held, exactly.
    pub fn allows(&self, capability: Capability, text: &str) -> bool {
        Target::parse(capability, text).is_ok_and(|target| self.held(capability).contains(&target))
    }

    /// Why `plugin` may not connect there, with the line of config that would change it.
    pub fn tcp_refusal(&self, plugin: &str, address: &str) -> String {
        self.refusal(Capability::Tcp, plugin, address)
    }

    /// Why `plugin` may not send there, with the line of config that would change it.
    pub fn udp_refusal(&self, plugin: &str, address: &str) -> String {
        self.refusal(Capability::Udp, plugin, address)
    }

    /// Why `plugin` may not make this request, with the line of config that would change it.
    pub fn http_refusal(&self, plugin: &str, scheme: &str, host: &str, port: u16) -> String {
        match host.strip_suffix(".unix") {
            Some(name) => self.refusal(Capability::Http, plugin, &format!("{name}=unix:///path/{name}.sock")),
            None => self.refusal(Capability::Http, plugin, &format!("{scheme}://{host}:{port}")),
        }
    }

    /// Why `plugin` may not use what `text` names: which of manifest and config does not say so, and
    /// what each would have to say.
    pub fn refusal(&self, capability: Capability, plugin: &str, text: &str) -> String {
        let target = match Target::parse(capability, text) {
            Ok(target) => target,
            Err(_) if capability.whole().is_some() && text == "true" => Target::Whole,
            Err(wanted) => return format!("`{plugin}` used `{text}` for `{capability}`: {wanted}"),
        };
        let is_asked = self.asks(capability).any(|ask| ask.meet(&target).is_some());
        let is_granted = self.granted.targets(capability).iter().any(|held| target.meet(held).is_some());
        let ask = match &target {
            Target::Whole => format!("a table `[capabilities.{capability}]`"),
            _ => format!("`[capabilities.{capability}] ask = [\"{target}\"]`"),
        };
        let mut line = self.granted.clone();
        line.add(capability, [target.clone()]);
        let act = capability.phrase(&[target]);
        match (is_asked, is_granted) {
            (false, true) => {
                format!("`{plugin}` may not {act}: its manifest does not ask for it (that would be {ask})")
            }
            (true, _) => {
                format!("`{plugin}` may not {act}: the config does not grant it; its table needs `{line}`")
            }
            (false, false) => format!(
                "`{plugin}` may not {act}: its manifest does not ask for it (that would be {ask}), nor does \
                 the config grant it (its table needs `{line}`)"
            ),
        }
    }

    fn asks(&self, capability: Capability) -> impl Iterator<Item = &Target> {
        self.asked.iter().filter(move |ask| ask.capability == capability).flat_map(|ask| &ask.targets)
    }

    fn paths(&self, capability: Capability) -> impl Iterator<Item = &Path> {
        self.held(capability).iter().filter_map(|target| match target {
            Target::Path(path) => Some(path.as_path()),
            _ => None,
        })
    }
}

impl Missing {
    /// What to do, ready to paste.
    pub fn hint(&self) -> String {
        if self.replaces {
            format!("make its `grant` say `{}`", self.line)
        } else {
            format!("add `{}`", self.line)
        }
    }
}

impl fmt::Display for Missing {
    /// A sentence that begins behind the plugin's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asks to {}", self.capability.phrase(&self.targets))?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        f.write_str(", which the config does not grant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(capability: Capability, texts: &[&str]) -> Ask {
        let targets = match capability.whole() {
            Some(whole) if texts.is_empty() => whole,
            _ => texts.iter().map(|text| Target::parse(capability, text).unwrap()).collect(),
        };
        Ask { capability, targets, previous: Vec::new(), reason: "it must".to_owned() }
    }

    fn grant(flags: &[&str]) -> GrantConfig {
        let mut granted = GrantConfig::default();
        for flag in flags {
            granted.add_flag(flag).unwrap();
        }
        granted
    }

    #[test]
    fn only_what_both_sides_name_is_held() {
        let asks = [ask(Capability::Tcp, &["a:1"]), ask(Capability::State, &[])];
        let grants =
            Grants::new(&asks, Some(&grant(&["tcp=A:1", "tcp=b:2", "state", "stdout"])), &grant(&[]));
        let grants = grants.unwrap();
        assert!(grants.allows_tcp("a:1") && grants.allows_tcp("A.:1") && grants.state());
        assert!(!grants.allows_tcp("b:2") && !grants.allows_udp("a:1") && !grants.stdout());
        assert_eq!(grants.unasked(), grant(&["tcp=b:2", "stdout"]));
    }

    #[test]
    fn a_missing_grant_is_named_with_the_line_to_paste() {
        let asks = [ask(Capability::HostStats, &["cpu"]), ask(Capability::Read, &["/proc/diskstats"])];
        let missing = Grants::new(&asks, None, &grant(&["host-stats"])).unwrap_err();
        assert_eq!(missing.len(), 1);
        assert_eq!(
            missing[0].to_string(),
            "asks to read `/proc/diskstats` (it must), which the config does not grant"
        );
        assert_eq!(
            missing[0].hint(),
            r#"add `grant = { host-stats = ["cpu"], read = ["/proc/diskstats"] }`"#
        );
    }

    #[test]
    fn the_line_to_paste_keeps_what_the_table_grants_already() {
        let asks = [ask(Capability::Tcp, &["a:1", "b:2"])];
        let missing = Grants::new(&asks, Some(&grant(&["tcp=a:1", "stdout"])), &grant(&[])).unwrap_err();
        assert_eq!(missing[0].targets, [Target::parse(Capability::Tcp, "b:2").unwrap()]);
        assert_eq!(
            missing[0].hint(),
            r#"make its `grant` say `grant = { tcp = ["a:1", "b:2"], stdout = true }`"#
        );
    }

    #[test]
    fn a_table_with_grants_does_not_have_the_defaults_too() {
        let asks = [ask(Capability::HostStats, &["cpu"])];
        let defaults = grant(&["host-stats"]);
        assert!(Grants::new(&asks, None, &defaults).unwrap().host_stats("cpu"));
        assert!(Grants::new(&asks, Some(&grant(&["state"])), &defaults).is_err());
    }

    #[test]
    fn a_previous_view_needs_the_family() {
        let mut cpu = ask(Capability::HostStats, &["cpu"]);
        cpu.previous = cpu.targets.clone();
        let grants = Grants::new(&[cpu], None, &grant(&["host-stats"])).unwrap();
        assert!(grants.previous("cpu") && !grants.previous("disk") && !grants.host_stats("disk"));
    }

    #[test]
    fn paths_are_held_as_far_as_they_are_granted() {
        let asks = [ask(Capability::Read, &["/var", "/proc/stat"])];
        let grants = Grants::new(&asks, Some(&grant(&["read=/var/log", "read=/proc"])), &grant(&[])).unwrap();
        assert_eq!(grants.read().collect::<Vec<_>>(), [Path::new("/var/log"), Path::new("/proc/stat")]);
        assert_eq!(grants.write().count(), 0);
    }

    #[test]
    fn http_goes_by_origin_and_sockets_by_the_operators_name() {
        let asks = [ask(Capability::Http, &["https://h/x", "unix:///run/docker.sock"])];
        let granted = grant(&["http=https://H", "http=mine=unix:///run/docker.sock"]);
        let grants = Grants::new(&asks, Some(&granted), &grant(&[])).unwrap();
        assert!(grants.allows_http("https", "h", 443));
        assert!(!grants.allows_http("http", "h", 443) && !grants.allows_http("https", "h", 8443));
        assert_eq!(grants.unix_socket("mine"), Some(Path::new("/run/docker.sock")));
        assert_eq!(grants.unix_socket("docker"), None);
    }

    #[test]
    fn a_refusal_says_which_side_is_missing() {
        let asks = [ask(Capability::Tcp, &["a:1"])];
        let grants = Grants::new(&asks, Some(&grant(&["tcp=a:1", "tcp=b:2"])), &grant(&[])).unwrap();
        let neither = grants.tcp_refusal("graphite", "c:3");
        assert!(neither.contains("manifest does not ask"), "{neither}");
        assert!(neither.contains(r#"grant = { tcp = ["a:1", "b:2", "c:3"] }"#), "{neither}");
        let unasked = grants.tcp_refusal("graphite", "b:2");
        assert!(unasked.contains("manifest does not ask") && !unasked.contains("grant ="), "{unasked}");
        let nonsense = grants.tcp_refusal("graphite", "nowhere");
        assert!(nonsense.contains("expected `host:port`"), "{nonsense}");
        let http = grants.http_refusal("x", "https", "h", 443);
        assert!(http.contains(r#"http = ["https://h"]"#), "{http}");
    }
}
