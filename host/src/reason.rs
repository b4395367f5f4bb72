//! The words for why an instance ended. Knows nothing of the rest.

/// Why an instance ended or a call brought nothing, as logs, `list` and metrics say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonCode {
    /// It asked for more linear memory or tables than its limit.
    MemoryLimit,
    /// What the host keeps for this instance grew beyond its limit.
    HostMemoryLimit,
    /// Another limit of the host, which guests cannot catch: handles, bodies, sizes of answers.
    HostLimit,
    /// The call took too long.
    Deadline,
    Trap,
    /// It ended its own process.
    Exited,
    /// More samples, series or output than a run may bring.
    Flood,
    /// It could not be instantiated, or its `init` gave an error.
    InitFailed,
    /// A changed file or configuration took its place. Not a failure.
    Replaced,
    /// It grew past the soft limit and was exchanged between two calls. Not a failure.
    Recycled,
    /// A call gave an error of the plugin's own. Counted; the instance lives on.
    Failed,
}

impl ReasonCode {
    pub const ALL: [Self; 11] = [
        Self::MemoryLimit,
        Self::HostMemoryLimit,
        Self::HostLimit,
        Self::Deadline,
        Self::Trap,
        Self::Exited,
        Self::Flood,
        Self::InitFailed,
        Self::Replaced,
        Self::Recycled,
        Self::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryLimit => "memory-limit",
            Self::HostMemoryLimit => "host-memory-limit",
            Self::HostLimit => "host-limit",
            Self::Deadline => "deadline",
            Self::Trap => "trap",
            Self::Exited => "exited",
            Self::Flood => "flood",
            Self::InitFailed => "init-failed",
            Self::Replaced => "replaced",
            Self::Recycled => "recycled",
            Self::Failed => "failed",
        }
    }

    /// Whether it ends an instance against its will.
    pub fn is_kill(self) -> bool {
        !matches!(self, Self::Replaced | Self::Recycled | Self::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_at_its_own_place_and_has_its_own_name() {
        let mut names: Vec<_> = ReasonCode::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ReasonCode::ALL.len());
        assert!(ReasonCode::ALL.iter().enumerate().all(|(place, &reason)| reason as usize == place));
    }

    #[test]
    fn exchanges_and_a_plugins_own_errors_are_no_kills() {
        let kinder: Vec<_> = ReasonCode::ALL.iter().filter(|reason| !reason.is_kill()).collect();
        assert_eq!(kinder, [&ReasonCode::Replaced, &ReasonCode::Recycled, &ReasonCode::Failed]);
    }
}
