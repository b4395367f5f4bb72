//! The command line: what each verb takes, and how an error becomes an exit code.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | a check ran and found faults: `validate`, a handler that gave up, a collector that failed |
//! | 2 | usage |
//! | 70 | software |
//! | 74 | I/O, a data directory in use too |
//! | 78 | `run`, `collect`, `send` cannot start for the config |

mod alone;
mod collect;
mod deadletters;
mod embed;
mod inspect;
mod list;
mod send;
mod table;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::admin::{BindError, Client, ClientError};
use crate::agent::Agent;
use crate::clock::RealClock;
use crate::config::{Config, ConfigSource, Faults};
use crate::data_dir::{DataDir, DataDirError};
use crate::secrets::Secrets;
use crate::telemetry;

/// A monitoring agent whose collectors and handlers are sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "kimberlite", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Main config file; may be given more than once. Without one:
    /// /etc/kimberlite/kimberlite.toml if it exists, else the built-in default.
    #[arg(short, long, global = true, value_name = "FILE", env = "KIMBERLITE_CONFIG", value_delimiter = ':')]
    config: Vec<PathBuf>,
    /// Directory of further config files, instead of `conf.d` beside the main file.
    #[arg(long, global = true, value_name = "DIR", env = "KIMBERLITE_CONFIG_DIR")]
    config_dir: Option<PathBuf>,
    /// How the log on stderr is written.
    #[arg(long, global = true, value_enum, default_value = "text", env = "KIMBERLITE_LOG_FORMAT")]
    log_format: LogFormat,
    /// More of the log; twice for even more.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "KIMBERLITE_VERBOSE")]
    verbose: u8,
    /// Less of the log; twice for errors only.
    #[arg(short, long, global = true, action = ArgAction::Count, env = "KIMBERLITE_QUIET")]
    quiet: u8,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value = "text", env = "KIMBERLITE_OUTPUT")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// How a verb prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the agent. Also what happens without a verb.
    Run,
    /// Checks the config and every plugin in it, and reports every fault. Touches no network.
    Validate,
    /// Shows every plugin: of the running agent, or what would be loaded.
    List,
    /// Shows what a .wasm file is and asks for.
    Inspect(inspect::Inspect),
    /// Runs one collector alone and prints what it finds.
    Collect(collect::Collect),
    /// Hands samples to one handler alone.
    Send(send::Send),
    /// Writes a manifest into a component.
    Embed(embed::Embed),
    /// Has the running agent look at its config and its plugins anew, and says what came of it.
    Reload,
    /// Lets a quarantined plugin of the running agent run again, or a new version that asks for more.
    Release(Named),
    /// Lets a halted handler of the running agent deliver again.
    Resume(Named),
    /// What handlers will never deliver: shows it, hands it back, deletes it.
    Deadletters(deadletters::Deadletters),
}

#[derive(Debug, Args)]
struct Named {
    /// The plugin's table in the config.
    name: String,
}

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A check found faults; they have been printed.
    Found,
    /// The config cannot be used.
    Config(String),
    /// A file, a socket, a data directory.
    Io(String),
    /// Something that should not happen.
    Software(String),
}

impl Ended {
    fn code(&self) -> u8 {
        match self {
            Ended::Found => 1,
            Ended::Config(_) => 78,
            Ended::Io(_) => 74,
            Ended::Software(_) => 70,
        }
    }
}

impl From<Faults> for Ended {
    fn from(faults: Faults) -> Self {
        Ended::Config(faults.to_string())
    }
}

impl From<DataDirError> for Ended {
    fn from(error: DataDirError) -> Self {
        Ended::Io(error.to_string())
    }
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Ended::Io(error.to_string())
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Ended::Io(error.to_string())
    }
}

/// What verbs share while they run.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) secrets: Secrets,
    pub(crate) log: telemetry::Handle,
}

/// Parses, calls, and turns an error into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let secrets = Secrets::default();
    let format = match cli.global.log_format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    // What runs one plugin alone prints results; its log shows what went wrong.
    let base = if matches!(cli.verb, None | Some(Verb::Run)) { 0 } else { -1 };
    let verbosity =
        base + i8::try_from(cli.global.verbose).unwrap_or(2) - i8::try_from(cli.global.quiet).unwrap_or(3);
    let log = telemetry::init(format, verbosity, secrets.clone());
    let session = Session { global: cli.global, secrets: secrets.clone(), log };
    let ended = match cli.verb.unwrap_or(Verb::Run) {
        Verb::Run => run(&session),
        Verb::Validate => validate::validate(&session),
        Verb::List => list::list(&session),
        Verb::Inspect(inspect) => inspect.run(&session),
        Verb::Collect(collect) => collect.run(&session),
        Verb::Send(send) => send.run(&session),
        Verb::Embed(embed) => embed.run(),
        Verb::Reload => reload(&session),
        Verb::Release(Named { name }) => tell(&session, |agent| agent.release(&name)),
        Verb::Resume(Named { name }) => tell(&session, |agent| agent.resume(&name)),
        Verb::Deadletters(letters) => letters.run(&session),
    };
    session.log.finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(ended) => {
            match &ended {
                Ended::Found => {}
                Ended::Config(text) | Ended::Io(text) | Ended::Software(text) => {
                    complain(&secrets.scrub(text));
                }
            }
            ExitCode::from(ended.code())
        }
    }
}

/// The agent, until it is told to stop.
fn run(session: &Session) -> Result<(), Ended> {
    let config = session.source().load_trusted()?;
    // What an agent and its plugins write is nobody else's: state, archives, compiled code.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let data = DataDir::open(&data_dir(&config)?)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let clock = Arc::new(RealClock::new());
        let (secrets, log) = (session.secrets.clone(), session.log.clone());
        let agent = Agent::start(config, session.source(), data, secrets, log, clock)
            .map_err(|error| Ended::Software(format!("{error:#}")))?;
        agent.run().await.map_err(|error| match error.downcast_ref::<BindError>() {
            Some(bind) => Ended::Io(bind.to_string()),
            None => Ended::Software(format!("{error:#}")),
        })
    });
    // A plugin that is being compiled must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

/// A config that the agent refuses is no fault of the way to it.
fn reload(session: &Session) -> Result<(), Ended> {
    match Client::connect(&session.agent_dir()?)?.reload() {
        Ok(done) => print(&format!("{done}\n")),
        Err(ClientError::Refused(why)) => return Err(Ended::Config(why)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn tell(session: &Session, order: impl FnOnce(&Client) -> Result<String, ClientError>) -> Result<(), Ended> {
    let client = Client::connect(&session.agent_dir()?)?;
    print(&format!("{}\n", order(&client)?));
    Ok(())
}

/// Everything runs on one thread: waking another costs more than most collectors do.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Ended> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(16).thread_keep_alive(std::time::Duration::from_secs(5));
    Ok(builder.build()?)
}

impl Session {
    /// Where flags and environment say that the config is.
    pub(crate) fn source(&self) -> ConfigSource {
        ConfigSource { main: self.global.config.clone(), directory: self.global.config_dir.clone() }
    }

    /// The config as the flags, the environment and the machine say.
    pub(crate) fn config(&self) -> Result<Config, Faults> {
        self.source().load()
    }

    /// Where the running agent is asked: its config may have a fault by now, and it runs all the same.
    pub(crate) fn agent_dir(&self) -> Result<PathBuf, Ended> {
        match self.config() {
            Ok(config) => data_dir(&config),
            Err(faults) => self.source().named_data_dir().ok_or_else(|| faults.into()),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.global.output == Output::Json
    }
}

/// Where the agent of this config keeps its things.
pub(crate) fn data_dir(config: &Config) -> Result<PathBuf, Ended> {
    let env = |name: &str| std::env::var(name).ok();
    config.agent.data_dir(rustix::process::geteuid().is_root(), &env).ok_or_else(|| {
        Ended::Config(
            "there is no place for the agent's data: HOME is not set\n  hint: set `agent.data_dir`"
                .to_owned(),
        )
    })
}

/// Compiled code is shared with the agent, where this user may.
pub(crate) fn cache_dir(config: &Config) -> Option<PathBuf> {
    let cache = data_dir(config).ok()?.join("cache");
    let writable = rustix::fs::access(&cache, rustix::fs::Access::WRITE_OK).is_ok();
    writable.then_some(cache)
}

/// Results go to standard output; a reader that has gone is no error of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // A closed pipe means that nobody wants more.
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Errors go to standard error, as a person reads them.
#[expect(clippy::print_stderr, reason = "errors of the command line are not events of the log")]
pub(crate) fn complain(text: &str) {
    for (index, part) in text.split("\nerror: ").enumerate() {
        let part = if index == 0 { part.trim_start_matches("error: ") } else { part };
        eprintln!("error: {part}");
    }
}
