//! stub
pub(crate) mod log {
    use crate::bindings::imports::kimberlite::plugin::log::Severity;

    #[expect(clippy::print_stderr, reason = "natively there is no agent to log to")]
    pub(crate) fn log(severity: Severity, message: &str) {
        eprintln!("{severity:?}: {message}");
    }

    pub(crate) fn enabled(_severity: Severity) -> bool {
        true
    }
}
