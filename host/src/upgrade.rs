//! Whether a new version of a plugin may take the place of the one that runs.
//!
//! It may if it asks for nothing that its predecessor did not ask for; what is granted besides was
//! granted to another program. Uses: `capability`.

use crate::capability::{Ask, Capability, Target};

/// What a new version asks for, and the one that runs does not: of each capability, with the
/// reason that its manifest gives. Empty: it may take its place.
pub fn more(old: &[Ask], new: &[Ask]) -> Vec<Ask> {
    let asked = |capability: Capability| {
        old.iter().filter(move |ask| ask.capability == capability).flat_map(|ask| &ask.targets)
    };
    let is_new = |capability, target: &Target| {
        // What is asked for in part was not asked for.
        !asked(capability).any(|held| target.meet(held).as_ref() == Some(target))
    };
    let beyond = |ask: &Ask| Ask {
        targets: ask.targets.iter().filter(|target| is_new(ask.capability, target)).cloned().collect(),
        ..ask.clone()
    };
    new.iter().map(beyond).filter(|ask| !ask.targets.is_empty()).collect()
}

/// The same for a person.
pub fn describe(more: &[Ask]) -> String {
    let one = |ask: &Ask| {
        let reason = if ask.reason.is_empty() { String::new() } else { format!(" ({})", ask.reason) };
        format!("{}{reason}", ask.capability.phrase(&ask.targets))
    };
    more.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `capability=target`, several with commas.
    fn asks(text: &str) -> Vec<Ask> {
        let parse = |flag: &str| {
            let (name, target) = flag.split_once('=').unwrap_or((flag, ""));
            let capability = Capability::parse(name).unwrap();
            let targets = match capability.whole() {
                Some(whole) if target.is_empty() => whole,
                _ => vec![Target::parse(capability, target).unwrap()],
            };
            Ask { capability, targets, previous: Vec::new(), reason: String::new() }
        };
        text.split(", ").filter(|flag| !flag.is_empty()).map(parse).collect()
    }

    #[test]
    fn an_upgrade_is_taken_unless_it_asks_for_more() {
        const TAKEN: bool = true;
        const PARKED: bool = false;
        for (old, new, expected) in [
            ("", "", TAKEN),
            ("", "state", PARKED),
            ("state", "", TAKEN),
            ("state", "state", TAKEN),
            ("stdout", "state", PARKED),
            ("host-stats=cpu", "host-stats=cpu", TAKEN),
            ("host-stats=cpu", "host-stats=memory", PARKED),
            ("host-stats=cpu", "host-stats=cpu, host-stats=memory", PARKED),
            ("host-stats", "host-stats=memory", TAKEN),
            ("host-stats", "host-stats=processes", PARKED),
            ("read=/proc/stat", "read=/proc/stat", TAKEN),
            ("read=/proc", "read=/proc/stat", TAKEN),
            ("read=/proc/stat", "read=/proc", PARKED),
            ("read=/proc/stat", "read=/proc/status", PARKED),
            ("read=/var", "write=/var", PARKED),
            ("write=/var", "read=/var", PARKED),
            ("tcp=a:1", "tcp=A:1", TAKEN),
            ("tcp=a:1", "tcp=a:2", PARKED),
            ("tcp=a:1", "udp=a:1", PARKED),
            ("tcp=a:1, tcp=b:2", "tcp=b:2", TAKEN),
            ("http=https://h", "http=https://h:443", TAKEN),
            ("http=https://h", "http=http://h", PARKED),
            ("http=https://h", "http=https://h, http=https://i", PARKED),
            ("http=unix:///run/docker.sock", "http=unix:///run/docker.sock", TAKEN),
            ("http=unix:///run/docker.sock", "http=unix:///run/other.sock", PARKED),
            ("env=HOME", "env=HOME", TAKEN),
            ("env=HOME", "env=HOME, env=TOKEN", PARKED),
            ("listen=udp://127.0.0.1:8125", "listen=udp://0.0.0.0:8125", PARKED),
            ("host-stats=cpu, state", "state, host-stats=cpu", TAKEN),
        ] {
            let more = more(&asks(old), &asks(new));
            assert_eq!(more.is_empty(), expected, "`{old}` becomes `{new}`: {more:?}");
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let more = more(&asks("read=/a, tcp=h:1"), &asks("read=/a, read=/b, tcp=h:1, state"));
        let text = describe(&more);
        assert!(text.contains("/b") && !text.contains("/a") && !text.contains("h:1"), "{text}");
    }
}
