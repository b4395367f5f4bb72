//! What a capability is about: one path, origin, address or name, in one form for asks and grants.
//!
//! ```text
//! text in plugin.toml ──parse──▶ Target ─┐
//!                                        ├─ meet ──▶ what both sides name
//! text in the config  ──parse──▶ Target ─┘
//! ```
//!
//! Uses: nothing of kimberlite.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Component, Path, PathBuf};

use super::Capability;

/// The families of `host-stats`.
pub const FAMILIES: [&str; 8] =
    ["cpu", "memory", "load", "disk", "filesystem", "network", "vmstat", "processes"];

/// Given by name only: command lines and environments of processes may hold secrets.
pub(super) const NEVER_BY_DEFAULT: &str = "processes";

/// One thing that is asked or granted. Two texts that mean the same make the same target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `state` and `stdout`: there is nothing to name.
    Whole,
    /// Of `host-stats`.
    Family(&'static str),
    /// Absolute, without `.` and `..`.
    Path(PathBuf),
    /// `https://example.com:8443`.
    Origin {
        scheme: &'static str,
        address: Address,
    },
    /// A socket that speaks HTTP, reached as `http://NAME.unix/`.
    Socket {
        name: String,
        path: PathBuf,
    },
    Address(Address),
    /// `udp://0.0.0.0:8125`.
    Listen {
        scheme: &'static str,
        address: Address,
    },
    /// Of an environment variable.
    Variable(String),
}

/// A host and a port. The host is lower case; IPv6 is in brackets, in its shortest form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Target {
    /// Reads `text` as a target of `capability`. An HTTP URL is reduced to its origin. The error is
    /// what was expected, for people, and does not repeat the text.
    pub fn parse(capability: Capability, text: &str) -> Result<Self, &'static str> {
        match capability {
            Capability::State | Capability::Stdout => Err("expected `true`: there is nothing to name"),
            Capability::HostStats => FAMILIES
                .into_iter()
                .find(|family| *family == text)
                .map(Self::Family)
                .ok_or("expected one of cpu, memory, load, disk, filesystem, network, vmstat, processes"),
            Capability::Read | Capability::Write => {
                clean_path(text).map(Self::Path).ok_or("expected an absolute path without `..`")
            }
            Capability::Http => http(text),
            Capability::Tcp | Capability::Udp => {
                Address::parse(text).map(Self::Address).ok_or("expected `host:port`")
            }
            Capability::Listen => [("udp", "udp://"), ("tcp", "tcp://")]
                .into_iter()
                .find_map(|(scheme, prefix)| {
                    let address = Address::parse(text.strip_prefix(prefix)?)?;
                    Some(Self::Listen { scheme, address })
                })
                .ok_or("expected `udp://address:port` or `tcp://address:port`"),
            Capability::Env => {
                let fits = !text.is_empty() && !text.contains(['=', '\0']);
                fits.then(|| Self::Variable(text.to_owned())).ok_or("expected a variable's name")
            }
        }
    }

    /// The name of a socket.
    pub(super) fn socket(&self) -> Option<&str> {
        match self {
            Self::Socket { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What both sides name: of two paths the narrower, if one holds the other; otherwise the
    /// target itself if it is the same. The operator's name for a socket counts.
    pub fn meet(&self, granted: &Self) -> Option<Self> {
        match (self, granted) {
            (Self::Path(asked), Self::Path(held)) if asked.starts_with(held) => Some(self.clone()),
            (Self::Path(asked), Self::Path(held)) if held.starts_with(asked) => Some(granted.clone()),
            (Self::Socket { path: asked, .. }, Self::Socket { path: held, .. }) if asked == held => {
                Some(granted.clone())
            }
            _ => (self == granted).then(|| self.clone()),
        }
    }
}

impl fmt::Display for Target {
    /// As the config would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("true"),
            Self::Family(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Origin { scheme, address } if Some(address.port) == default_port(scheme) => {
                write!(f, "{scheme}://{}", address.host)
            }
            Self::Origin { scheme, address } | Self::Listen { scheme, address } => {
                write!(f, "{scheme}://{address}")
            }
            Self::Socket { name, path } if socket_name(path).as_deref() == Some(name) => {
                write!(f, "unix://{}", path.display())
            }
            Self::Socket { name, path } => write!(f, "{name}=unix://{}", path.display()),
            Self::Address(address) => address.fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

impl Address {
    /// `host:port`, `[v6]:port`. A port of 0 is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::new(host, port.parse().ok()?)
    }

    /// The host in its one form; none if it is no host's name or address.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        if port == 0 {
            return None;
        }
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inside) => format!("[{}]", inside?.parse::<Ipv6Addr>().ok()?),
            None => {
                let name = host.strip_suffix('.').unwrap_or(host).to_lowercase();
                let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
                if name.is_empty() || !name.chars().all(fits) {
                    return None;
                }
                name
            }
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `https://host[:port][/…]`, `unix:///path/NAME.sock` or `OTHER=unix:///path`.
fn http(text: &str) -> Result<Target, &'static str> {
    const WANTED: &str = "expected `https://host[:port]`, `http://host[:port]` or `unix:///path/NAME.sock`";
    let (alias, url) = match text.split_once('=') {
        Some((alias, url)) if url.starts_with("unix://") => (Some(alias), url),
        _ => (None, text),
    };
    if let Some(path) = url.strip_prefix("unix://") {
        let path = clean_path(path).ok_or(WANTED)?;
        let name = match alias {
            Some(alias) => Some(alias.to_lowercase()).filter(|name| is_label(name)),
            None => socket_name(&path),
        };
        let name = name.ok_or("expected a socket that ends in `.sock`, or `OTHER=unix:///path`")?;
        return Ok(Target::Socket { name, path });
    }
    let (scheme, rest) = url.split_once("://").ok_or(WANTED)?;
    let scheme = ["http", "https"].into_iter().find(|s| s.eq_ignore_ascii_case(scheme)).ok_or(WANTED)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port = authority.rfind(':') > authority.rfind(']');
    let address = match (has_port, default_port(scheme)) {
        (false, Some(port)) => Address::new(authority, port),
        _ => Address::parse(authority),
    };
    Ok(Target::Origin { scheme, address: address.ok_or(WANTED)? })
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// `docker` of `/var/run/docker.sock`: what stands before `.unix` in its URL.
fn socket_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".sock")?.to_lowercase();
    is_label(&name).then_some(name)
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn clean_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let is_plain = !path.components().any(|part| part == Component::ParentDir) && !text.contains('\0');
    (path.is_absolute() && is_plain).then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(capability: Capability, text: &str) -> String {
        match Target::parse(capability, text) {
            Ok(target) => target.to_string(),
            Err(wanted) => wanted.to_owned(),
        }
    }

    #[test]
    fn texts_that_mean_the_same_have_one_form() {
        use Capability::*;
        for (capability, text, form) in [
            (Http, "HTTPS://Api.Example.com:443/ingest?key=1", "https://api.example.com"),
            (Http, "http://example.com:8080", "http://example.com:8080"),
            (Http, "http://[0:0::1]/x", "http://[::1]"),
            (Http, "https://[::1]:444", "https://[::1]:444"),
            (Http, "unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            (Http, "docker=unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            (Http, "Other=unix:///run/x/docker.sock", "other=unix:///run/x/docker.sock"),
            (Tcp, "Graphite.Example.com.:2003", "graphite.example.com:2003"),
            (Udp, "[FE80::0:1]:9", "[fe80::1]:9"),
            (Listen, "udp://0.0.0.0:8125", "udp://0.0.0.0:8125"),
            (Read, "/proc//net/./dev", "/proc/net/dev"),
            (HostStats, "cpu", "cpu"),
        ] {
            assert_eq!(shown(capability, text), form, "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        use Capability::*;
        for (capability, text) in [
            (Http, "ftp://example.com"),
            (Http, "example.com"),
            (Http, "https://user:pw@example.com"),
            (Http, "https://"),
            (Http, "https://host:0"),
            (Http, "unix:///run/docker"),
            (Http, "a.b=unix:///run/docker"),
            (Http, "unix://run/docker.sock"),
            (Tcp, "10.0.0.7"),
            (Tcp, "10.0.0.7:70000"),
            (Tcp, "::1:2003"),
            (Tcp, "*:2003"),
            (Listen, "0.0.0.0:8125"),
            (Read, "proc/stat"),
            (Write, "/var/log/../lib"),
            (HostStats, "cpus"),
            (Env, "A=B"),
            (Env, ""),
            (State, "x"),
        ] {
            let wanted = Target::parse(capability, text);
            assert!(wanted.is_err_and(|wanted| wanted.starts_with("expected")), "{text}");
        }
    }

    #[test]
    fn of_two_paths_the_narrower_is_held_by_whole_names() {
        let path = |text| Target::parse(Capability::Read, text).unwrap();
        assert_eq!(path("/proc/stat").meet(&path("/proc")), Some(path("/proc/stat")));
        assert_eq!(path("/").meet(&path("/var/log")), Some(path("/var/log")));
        assert_eq!(path("/proc/status").meet(&path("/proc/stat")), None);
    }
}
