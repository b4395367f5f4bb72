//! What a collector's author writes, and how the agent calls it.

use crate::bindings::collector::exports::kimberlite::plugin::collector as wit;
use crate::error::{Cause, Error, Result};
use crate::run::Run;
use crate::settings::Settings;

/// A plugin that measures.
///
/// ```no_run
/// use kimberlite_plugin_sdk::{Collector, Context, Result, Run, Settings, export_collector};
///
/// struct Uptime;
///
/// impl Collector for Uptime {
///     fn new(_settings: &Settings) -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn collect(&mut self, run: &mut Run) -> Result<()> {
///         let text = std::fs::read_to_string("/proc/uptime")?;
///         let seconds = text.split(' ').next().context("/proc/uptime is empty")?;
///         run.gauge("uptime.seconds", seconds.parse::<f64>()?);
///         Ok(())
///     }
/// }
///
/// # #[cfg(any())]
/// export_collector!(Uptime);
/// # export_collector!(Uptime, manifest = "example/collector/plugin.toml");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a collector",
    label = "needs `impl Collector for {Self}` with `new` and `collect`",
    note = "a plugin that delivers is exported by `export_handler!`"
)]
pub trait Collector: Sized {
    /// Called once, before anything else. An error stops this start of the plugin; the agent tries
    /// again later.
    fn new(settings: &Settings) -> Result<Self>;

    /// Called at every run, never twice at once. Records what it finds in `run`; if it returns an
    /// error, nothing of it counts.
    fn collect(&mut self, run: &mut Run) -> Result<()>;
}

/// A collector together with what the agent knows of its series.
pub(crate) struct Instance<T> {
    collector: T,
    run: Run,
}

impl<T: Collector> Instance<T> {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { collector: T::new(settings)?, run: Run::new() })
    }

    pub(crate) fn collect(&mut self, tick: wit::Tick) -> Result<wit::Batch> {
        self.run.begin(tick);
        match self.collector.collect(&mut self.run) {
            Ok(()) => Ok(self.run.commit()),
            Err(error) => {
                self.run.rollback();
                Err(error)
            }
        }
    }
}

impl From<Error> for wit::CollectError {
    fn from(error: Error) -> Self {
        match error.cause {
            Cause::Absent => Self::Absent(error.message),
            Cause::Failed => Self::Failed(error.message),
            Cause::Setting(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<Error> for wit::InitError {
    fn from(error: Error) -> Self {
        match error.cause {
            Cause::Setting(key) => Self::Setting((key, error.message)),
            Cause::Absent | Cause::Failed => Self::Failed(error.message),
        }
    }
}
