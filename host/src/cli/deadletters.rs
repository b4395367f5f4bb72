//! `kimberlite deadletters`: what handlers will never deliver.

use std::path::Path;

use clap::{Args, Subcommand};

use super::list::time;
use super::table::table;
use super::{Ended, Session, print};
use crate::admin::Client;
use crate::agent::own_element;
use crate::config::Config;
use crate::data_dir::dead_letters_dir;
use crate::dead_letters::{Cover, DeadLetters, handlers};
use crate::jsonl;

#[derive(Debug, Args)]
pub(super) struct Deadletters {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows them, oldest first.
    List,
    /// Prints the samples of one as JSON Lines.
    Show(Id),
    /// Hands one back to its handler, in the running agent.
    Retry(Id),
    /// Deletes one.
    Drop(Id),
}

#[derive(Debug, Args)]
struct Id {
    /// As `list` shows it: HANDLER/NUMBER.
    #[arg(value_parser = id)]
    id: (String, u64),
}

fn id(text: &str) -> Result<(String, u64), String> {
    let parts = text.split_once('/').and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
    let inside = |name: &str| !name.is_empty() && !name.starts_with('.');
    parts.filter(|(name, _)| inside(name)).ok_or_else(|| "is not HANDLER/NUMBER".to_owned())
}

impl Deadletters {
    pub(super) fn run(self, session: &Session) -> Result<(), Ended> {
        let data = session.agent_dir()?;
        let dir = dead_letters_dir(&data);
        match self.verb {
            Verb::List => list(session, &dir),
            Verb::Show(Id { id }) => show(&session.config()?, &dir, &id),
            Verb::Drop(Id { id: (name, number) }) => {
                of(&dir, &name).drop(number).map_err(|error| about(&name, number, &error))?;
                print(&format!("{name}/{number} is gone\n"));
                Ok(())
            }
            Verb::Retry(Id { id: (name, number) }) => {
                // A letter that cannot be read is said here, where a person waits for it.
                of(&dir, &name).read(number).map_err(|error| about(&name, number, &error))?;
                let client = Client::connect(&data)?;
                print(&format!("{}\n", client.retry(&name, number)?));
                Ok(())
            }
        }
    }
}

fn of(dir: &Path, handler: &str) -> DeadLetters {
    DeadLetters::new(dir.join(handler), u64::MAX)
}

fn about(name: &str, number: u64, error: &std::io::Error) -> Ended {
    Ended::Io(format!("dead letter {name}/{number}: {error}\n  hint: see `kimberlite deadletters list`"))
}

fn list(session: &Session, dir: &Path) -> Result<(), Ended> {
    let unreadable = |error: std::io::Error| Ended::Io(format!("cannot read `{}`: {error}", dir.display()));
    let mut letters: Vec<(String, Cover)> = Vec::new();
    for name in handlers(dir).map_err(unreadable)? {
        let covers = of(dir, &name).list().map_err(unreadable)?;
        letters.extend(covers.into_iter().map(|cover| (name.clone(), cover)));
    }
    if session.is_json() {
        for (handler, Cover { number, at, reason, items }) in letters {
            let id = format!("{handler}/{number}");
            let line = serde_json::json!({"id": id, "at": at, "reason": reason, "samples": items});
            print(&format!("{line}\n"));
        }
        return Ok(());
    }
    if letters.is_empty() {
        print("there are no dead letters\n");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = letters
        .into_iter()
        .map(|(handler, Cover { number, at, reason, items })| {
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            vec![format!("{handler}/{number}"), time(at), items.to_string(), reason]
        })
        .collect();
    print(&table(&["ID", "SET ASIDE", "SAMPLES", "REASON"], &rows));
    Ok(())
}

fn show(config: &Config, dir: &Path, (name, number): &(String, u64)) -> Result<(), Ended> {
    let (_, batch) = of(dir, name).read(*number).map_err(|error| about(name, *number, &error))?;
    print(&jsonl::write(&batch, 1, &own_element(config)));
    Ok(())
}
