//! The agent's own log: one event, one line on stderr, in text or in JSON.
//!
//! ```text
//! tracing event ─▶ level of its plugin ─▶ Line: scrubbed, escaped ─▶ Repeats ─▶ stderr
//! ```
//!
//! Events about a plugin carry a field `plugin` with its name: its own log level applies then, and its
//! repeated lines are counted apart from those of others.
//!
//! Uses: `secrets`.

mod line;
mod repeats;

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::secrets::Secrets;
use line::Line;
use repeats::{Repeated, Repeats};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `2025-11-22T22:08:00.000Z WARN collector failed; backing off plugin=cpu faults=2`
    #[default]
    Text,
    /// `{"time":"…","level":"warn","target":"…","message":"…","plugin":"cpu","faults":2}`
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no log format: write `text` or `json`")),
        }
    }
}

/// Steers the log while the agent runs. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Log>);

struct Log {
    format: Format,
    secrets: Secrets,
    levels: RwLock<Levels>,
    output: Mutex<Output>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

struct Levels {
    default: LevelFilter,
    /// Only of plugins that have one of their own.
    plugins: HashMap<String, LevelFilter>,
}

struct Output {
    repeats: Repeats,
    writer: Box<dyn Write + Send>,
}

/// Starts the log on stderr: at level `info`, one step more for each `-v` (`verbosity` 1, 2), one less
/// for each `-q` (-1, -2, -3: nothing). A panic becomes a line, too. The first call in a process counts.
pub fn init(format: Format, verbosity: i8, secrets: Secrets) -> Handle {
    let handle = Handle(Arc::new(Log {
        format,
        secrets,
        levels: RwLock::new(Levels { default: level_of(verbosity), plugins: HashMap::new() }),
        output: Mutex::new(Output { repeats: Repeats::default(), writer: Box::new(std::io::stderr()) }),
        clock: Box::new(SystemTime::now),
    }));
    let subscriber = Registry::default().with(LogLayer(handle.clone()));
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        log_panics(handle.clone());
    }
    handle
}

impl Handle {
    /// The log level of one plugin, whatever the agent's; none: the agent's again.
    pub fn set_plugin_level(&self, plugin: &str, level: Option<LevelFilter>) {
        {
            let mut levels = self.0.levels.write().unwrap_or_else(PoisonError::into_inner);
            match level {
                Some(level) => levels.plugins.insert(plugin.to_owned(), level),
                None => levels.plugins.remove(plugin),
            };
        }
        // Disabled events cost nothing because tracing remembers that they are; now some may be wanted.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Whether a line of this level about this plugin would be written.
    pub fn is_enabled(&self, plugin: &str, level: Level) -> bool {
        self.0.is_enabled(Some(plugin), level)
    }

    /// Writes what is due of the lines `… repeated n times`. They also come with the next line, but
    /// then only if there is one: call this about once a minute.
    pub fn sum_up(&self) {
        let now = (self.0.clock)();
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = output.repeats.sum_up(now);
        self.0.write_sums(&mut output, sums, now);
    }

    /// As [`Handle::sum_up`], due or not: call this before the process ends.
    pub fn finish(&self) {
        let now = (self.0.clock)();
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = output.repeats.finish();
        self.0.write_sums(&mut output, sums, now);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("format", &self.0.format).finish_non_exhaustive()
    }
}

impl Log {
    fn is_enabled(&self, plugin: Option<&str>, level: Level) -> bool {
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        level <= *plugin.and_then(|name| levels.plugins.get(name)).unwrap_or(&levels.default)
    }

    /// The level above which nobody wants a line.
    fn most_verbose(&self) -> LevelFilter {
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        levels.plugins.values().copied().fold(levels.default, LevelFilter::max)
    }

    fn record(&self, event: &Event<'_>) {
        let line = Line::of(event, &self.secrets);
        if !self.is_enabled(line.plugin(), line.level) {
            return;
        }
        let now = (self.clock)();
        let text = line.render(self.format, now);
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let sums = output.repeats.sum_up(now);
        self.write_sums(&mut output, sums, now);
        if output.repeats.admits(event.metadata().callsite(), &line, now) {
            output.write(&text);
        }
    }

    fn write_sums(&self, output: &mut Output, sums: Vec<Repeated>, now: SystemTime) {
        for repeated in sums {
            output.write(&Line::from(repeated).render(self.format, now));
        }
    }
}

impl Output {
    /// In one write, so that lines of several processes do not mix. Where stderr is closed there is
    /// nobody left to tell.
    fn write(&mut self, line: &str) {
        let _ = self.writer.write_all(line.as_bytes());
    }
}

struct LogLayer(Handle);

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries speak of their own matters: at `info` only their warnings, at `debug` no more, at
        // `trace` all.
        let log = &self.0.0;
        *metadata.level() <= log.most_verbose()
            && (is_ours(metadata.target())
                || *metadata.level() <= Level::WARN
                || log.is_enabled(None, Level::TRACE))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.0.most_verbose())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.0.record(event);
    }
}

/// Whether the agent says it, and not one of its libraries.
fn is_ours(target: &str) -> bool {
    target.starts_with(env!("CARGO_CRATE_NAME"))
}

fn level_of(verbosity: i8) -> LevelFilter {
    match verbosity {
        ..=-3 => LevelFilter::OFF,
        -2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    }
}

/// A panic may happen while the log is locked, so its line goes past the lock.
fn log_panics(handle: Handle) {
    std::panic::set_hook(Box::new(move |info| {
        let text = Line::of_panic(info, &handle.0.secrets).render(handle.0.format, SystemTime::now());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use tracing::{debug, error, info, trace, warn};

    /// What was written, and a clock to step.
    #[derive(Clone, Default)]
    struct Probe {
        written: Arc<Mutex<Vec<u8>>>,
        seconds: Arc<AtomicU64>,
    }

    impl Write for Probe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Probe {
        fn handle(&self, format: Format, verbosity: i8, writer: Box<dyn Write + Send>) -> Handle {
            let secrets = Secrets::default();
            secrets.add("s3cret/key");
            let seconds = self.seconds.clone();
            Handle(Arc::new(Log {
                format,
                secrets,
                levels: RwLock::new(Levels { default: level_of(verbosity), plugins: HashMap::new() }),
                output: Mutex::new(Output { repeats: Repeats::default(), writer }),
                clock: Box::new(move || {
                    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed))
                }),
            }))
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: Format, verbosity: i8, say: impl FnOnce(&Handle, &Probe)) -> String {
        let probe = Probe::default();
        let handle = probe.handle(format, verbosity, Box::new(probe.clone()));
        let subscriber = Registry::default().with(LogLayer(handle.clone()));
        tracing::subscriber::with_default(subscriber, || say(&handle, &probe));
        probe.text()
    }

    #[test]
    fn a_line_has_time_level_message_and_fields() {
        let text = logged(Format::Text, 0, |_, _| {
            warn!(plugin = "cpu", faults = 2, retry_in = ?Duration::from_secs(3), why = "no such file", "failed");
        });
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000Z WARN failed plugin=cpu faults=2 retry_in=3s why=\"no such file\"\n"
        );
    }

    #[test]
    fn a_json_line_is_one_object_with_typed_values() {
        let text = logged(Format::Json, 0, |_, _| {
            error!(
                plugin = "cpu",
                faults = 2,
                ratio = 0.5,
                nan = f64::NAN,
                ok = true,
                level = "x",
                "say \"hi\"\n"
            );
        });
        let json: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "time": "1970-01-01T00:00:00.000Z", "level": "error", "message": "say \"hi\"\n",
                "target": module_path!(), "plugin": "cpu", "faults": 2, "ratio": 0.5, "nan": "NaN", "ok": true,
                "level_": "x",
            })
        );
    }

    #[test]
    fn secrets_appear_in_no_part_of_a_line() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, 0, |_, _| {
                let url = "https://x.org/s3cret%2Fkey";
                info!(plugin = "m", %url, error = ?Some("s3cret/key"), key = "s3cret/key", "posting to {url} s3cret/key");
            });
            assert!(!text.contains("s3cret"), "{text}");
            assert_eq!(text.matches("[secret]").count(), 5, "{text}");
        }
    }

    #[test]
    fn a_guest_cannot_forge_a_line() {
        for format in [Format::Text, Format::Json] {
            let evil = "fine\n1970-01-01T00:00:00.000Z ERROR all is lost\r\u{1b}[2J\u{9b}\u{202e}\u{2028}";
            let text = logged(format, 0, |_, _| info!(plugin = "evil\nERROR", field = evil, "{evil}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            let visible = |c: char| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c);
            assert!(text.trim_end().chars().all(visible), "{text:?}");
        }
    }

    #[test]
    fn verbosity_moves_the_level() {
        let say = |_: &Handle, _: &Probe| {
            trace!("t");
            debug!("d");
            info!("i");
            warn!("w");
            error!("e");
        };
        let lines = |verbosity| logged(Format::Text, verbosity, say).lines().count();
        assert_eq!([-3, -2, -1, 0, 1, 2].map(lines), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_plugins_level_is_its_own() {
        let text = logged(Format::Text, 0, |handle, _| {
            handle.set_plugin_level("loud", Some(LevelFilter::DEBUG));
            handle.set_plugin_level("quiet", Some(LevelFilter::ERROR));
            for plugin in ["loud", "quiet", "other"] {
                debug!(plugin, "debug");
                info!(plugin, "info");
                error!(plugin, "error");
            }
            debug!("agent");
            assert!(handle.is_enabled("loud", Level::DEBUG) && !handle.is_enabled("other", Level::DEBUG));
            handle.set_plugin_level("loud", None);
            assert!(!handle.is_enabled("loud", Level::DEBUG));
        });
        let words: Vec<_> =
            text.lines().filter_map(|line| line.split_once("Z ")).map(|(_, rest)| rest).collect();
        assert_eq!(
            words,
            [
                "DEBUG debug plugin=loud",
                "INFO info plugin=loud",
                "ERROR error plugin=loud",
                "ERROR error plugin=quiet",
                "INFO info plugin=other",
                "ERROR error plugin=other",
            ]
        );
    }

    #[test]
    fn libraries_are_heard_when_they_warn() {
        let say = |_: &Handle, _: &Probe| {
            info!(target: "hyper::proto", "chatter");
            warn!(target: "hyper::proto", "warning");
        };
        assert_eq!(
            logged(Format::Text, 1, say),
            "1970-01-01T00:00:00.000Z WARN warning target=hyper::proto\n"
        );
        assert_eq!(logged(Format::Text, 2, say).lines().count(), 2);
    }

    #[test]
    fn repeated_lines_are_counted_and_summed_up() {
        let text = logged(Format::Text, 0, |_, probe| {
            for second in 0..20 {
                probe.seconds.store(second, Ordering::Relaxed);
                for plugin in ["a", "b"] {
                    warn!(plugin, attempt = second, "cannot connect");
                }
            }
            probe.seconds.store(61, Ordering::Relaxed);
            info!("next minute");
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 13, "{text}");
        let mut sums = lines[10..12].to_vec();
        sums.sort_unstable();
        assert_eq!(
            sums,
            [
                "1970-01-01T00:01:01.000Z WARN cannot connect … repeated 15 times plugin=a repeated=15",
                "1970-01-01T00:01:01.000Z WARN cannot connect … repeated 15 times plugin=b repeated=15",
            ]
        );
    }

    #[test]
    fn the_sum_comes_without_another_line_and_at_the_end() {
        let say = |probe: &Probe| {
            for _ in 0..7 {
                warn!("cannot connect");
            }
            probe.seconds.store(60, Ordering::Relaxed);
        };
        let due = logged(Format::Text, 0, |handle, probe| {
            handle.sum_up();
            say(probe);
            handle.sum_up();
        });
        assert!(due.ends_with("cannot connect … repeated 2 times repeated=2\n"), "{due}");
        let ended = logged(Format::Text, 0, |handle, probe| {
            say(probe);
            probe.seconds.store(1, Ordering::Relaxed);
            handle.finish();
        });
        assert!(ended.ends_with("repeated=2\n"), "{ended}");
    }

    #[test]
    fn distinct_lines_fill_no_memory() {
        let text = logged(Format::Text, 0, |handle, probe| {
            for n in 0..3_000 {
                info!("line {n}");
            }
            let kinds = || handle.0.output.lock().unwrap().repeats.kinds();
            assert_eq!(kinds(), 1_000);
            probe.seconds.store(60, Ordering::Relaxed);
            handle.sum_up();
            assert_eq!(kinds(), 0);
        });
        assert_eq!(text.lines().count(), 3_000, "none is lost");
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_minute() {
        let text = logged(Format::Text, 0, |_, probe| {
            probe.seconds.store(1_000, Ordering::Relaxed);
            for _ in 0..7 {
                warn!("cannot connect");
            }
            probe.seconds.store(900, Ordering::Relaxed);
            warn!("cannot connect");
        });
        assert_eq!(text.lines().count(), 7, "{text}");
    }

    #[test]
    fn a_closed_stderr_stops_nobody() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let handle = Probe::default().handle(Format::Text, 0, Box::new(Closed));
        tracing::subscriber::with_default(Registry::default().with(LogLayer(handle)), || info!("hello"));
    }
}
