//! A handler that misbehaves as its settings say, against `wit/` alone.
//!
//! Of every batch it takes it writes one line to the log: `took 3 items, attempt 1: a b c`, and where
//! there is a `file`, one line there for each sample: `a 1.5`.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

wit_bindgen::generate!({ path: "../../../wit", world: "handler-plugin", generate_all });

use exports::kimberlite::plugin::handler::{Answer, Batch, Guest, Receipt, Reject, Retry};
use kimberlite::plugin::log::{Severity, log};
use kimberlite::plugin::types::{InitError, Setting, SettingValue, Strings};

#[used]
#[unsafe(link_section = "kimberlite:manifest")]
static MANIFEST: [u8; include_bytes!("../plugin.toml").len()] = *include_bytes!("../plugin.toml");

struct Hostile;

#[derive(Default)]
struct Instance {
    mode: String,
    amount: usize,
    token: String,
    file: String,
    batches: usize,
    hoard: Vec<Vec<u8>>,
}

thread_local! {
    static INSTANCE: RefCell<Instance> = RefCell::default();
}

impl Guest for Hostile {
    fn init(settings: Vec<Setting>) -> Result<(), InitError> {
        INSTANCE.with_borrow_mut(|instance| {
            for Setting { key, value } in settings {
                match (key.as_str(), value) {
                    ("mode", SettingValue::Text(mode)) => instance.mode = mode,
                    ("amount", SettingValue::Whole(amount)) => instance.amount = amount as usize,
                    ("token", SettingValue::Text(token)) => instance.token = token,
                    ("file", SettingValue::Text(file)) => instance.file = file,
                    _ => {}
                }
            }
        });
        Ok(())
    }

    fn handle(batch: Batch) -> Answer {
        INSTANCE.with_borrow_mut(|instance| instance.handle(&batch))
    }
}

impl Instance {
    fn handle(&mut self, batch: &Batch) -> Answer {
        self.batches += 1;
        let items = batch.values.len() + batch.summaries.len() + batch.events.len() + batch.checks.len();
        let names = texts(&batch.dictionary.names);
        let reason = format!("{} says {}", self.mode, self.token);
        match self.mode.as_str() {
            "trap" if self.batches.is_multiple_of(self.amount) => panic!("{reason}"),
            // When it has taken the batch, but not said so.
            "late-trap" if self.batches.is_multiple_of(self.amount) => {
                self.write(batch).unwrap();
                panic!("{reason}");
            }
            "leak" if self.batches.is_multiple_of(self.amount) => {
                self.write(batch).unwrap();
                loop {
                    self.hoard.push(black_box(vec![1; 1 << 20]));
                }
            }
            "leak" => self.hoard.push(black_box(vec![1; 1 << 18])),
            // Whatever instance it is.
            "trap-first" if batch.attempt as usize <= self.amount => panic!("{reason}"),
            "poison" if names.iter().any(|name| name.contains("poison")) => panic!("{reason}"),
            "spin" => loop {
                black_box(items);
            },
            "hoard" => self.hoard.extend((0..self.amount).map(|_| black_box(vec![1; 1 << 20]))),
            "slow" => std::thread::sleep(Duration::from_millis(self.amount as u64)),
            "halt" => return Answer::Halt(reason),
            "retry" if batch.attempt as usize <= self.amount => {
                return Answer::Retry(Retry { after: None, reason, done: Vec::new() });
            }
            "reject" => return Answer::Reject(Reject { reason, which: Vec::new() }),
            "too-large" if items > self.amount => return Answer::TooLarge(reason),
            _ => {}
        }
        if let Err(error) = self.write(batch) {
            return Answer::Retry(Retry { after: None, reason: error.to_string(), done: Vec::new() });
        }
        let names = names.join(" ");
        log(Severity::Info, &format!("took {items} items, attempt {}: {names}", batch.attempt));
        Answer::Delivered(Receipt { unconfirmed: 0 })
    }
}

impl Instance {
    /// All lines at once, or none.
    fn write(&self, batch: &Batch) -> std::io::Result<()> {
        if self.file.is_empty() {
            return Ok(());
        }
        let names = texts(&batch.dictionary.names);
        let samples = batch.series.iter().zip(&batch.values);
        let lines: String =
            samples.map(|(series, value)| format!("{} {value}\n", names[*series as usize])).collect();
        let mut file = OpenOptions::new().append(true).create(true).open(&self.file)?;
        let length = file.metadata()?.len();
        file.write_all(lines.as_bytes()).inspect_err(|_| _ = file.set_len(length))
    }
}

fn texts(packed: &Strings) -> Vec<&str> {
    let mut start = 0;
    let text = |end: &u32| {
        let text = &packed.text[start..*end as usize];
        start = *end as usize;
        text
    };
    packed.ends.iter().map(text).collect()
}

export!(Hostile);
