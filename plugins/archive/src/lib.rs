//! Appends samples to a file that rotates, one line each, as Diamond wrote them.
//!
//! ```text
//! batch ──▶ lines ──▶ ArchiveFile: rotate if its span is over ──▶ mend a torn end ──▶ append
//!                        └─ Span: which file a moment belongs to
//! ```

mod file;
mod span;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use handler_text::{Lines, Plaintext};
use kimberlite_plugin_sdk::{Batch, Error, HandleError, Handler, Receipt, Result, Settings, export_handler};

use file::ArchiveFile;
use span::Span;

#[derive(Debug)]
struct Archive {
    plaintext: Plaintext,
    lines: Lines,
    file: ArchiveFile,
}

impl Handler for Archive {
    fn new(settings: &Settings) -> Result<Self> {
        let path: &str = settings.require("log_file")?;
        if !Path::new(path).is_absolute() || path.ends_with('/') {
            return Err(Error::setting("log_file", "must be the absolute path of a file"));
        }
        let when = settings.text("when").unwrap_or("midnight");
        let count = settings.get::<u32>("rollover_interval")?.unwrap_or(1);
        let span = Span::new(when, count)?;
        let kept: usize = settings.get("days")?.unwrap_or(7);
        Ok(Self {
            plaintext: Plaintext::new(settings.text("prefix").unwrap_or("servers")),
            lines: Lines::default(),
            file: ArchiveFile::new(path, span, kept),
        })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        self.plaintext.write(batch, &mut self.lines);
        if self.lines.text().is_empty() {
            return Ok(Receipt::delivered());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.file.append(&self.lines, now).map_err(|failure| {
            let written = u32::try_from(failure.samples).unwrap_or(u32::MAX);
            HandleError::retry(failure.reason).done(0..written)
        })?;
        Ok(Receipt::delivered())
    }
}

export_handler!(Archive);

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::{Element, Series, Summary, testing};

    #[test]
    fn samples_end_up_in_the_file() {
        let folder = file::tests::Folder::new("handler");
        let path = folder.path().join("archive.log");
        let settings = Settings::new().with("log_file", path.to_str().unwrap()).with("prefix", "p");
        let mut archive = Archive::new(&settings).unwrap();
        let batch = testing::batch().at(1_503_300_000_000).gauge("cpu.total.user", 12.5).build();
        assert_eq!(archive.handle(&batch), Ok(Receipt::delivered()));
        assert_eq!(archive.handle(&batch), Ok(Receipt::delivered()));
        let line = "p.test.cpu.total.user 12.5 1503300000\n";
        assert_eq!(std::fs::read_to_string(path).unwrap(), line.repeat(2));
    }

    #[test]
    fn lines_are_those_of_diamond() {
        let folder = file::tests::Folder::new("lines");
        let path = folder.path().join("archive.log");
        let web = Element::new("4f1c").name("web-7");
        let latency = Series::gauge("app.latency").element(&web);
        let summary = Summary { val: Some(2.5), max: Some(1e16), cnt: Some(3), ..Summary::default() };
        let batch = testing::batch()
            .at(1_503_300_060_000)
            .of(&Element::new("web.example.com"))
            .gauge("cpu.total.user", 12.5)
            .gauge("memory.MemFree", 2_048_000)
            .rate("iostat.sda.await", 100.0 / 3.0)
            .summary(&latency, summary)
            .build();
        let settings = Settings::new().with("log_file", path.to_str().unwrap());
        Archive::new(&settings).unwrap().handle(&batch).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), include_str!("../fixtures/archive.log"));
    }

    #[test]
    fn folder_that_is_not_there_is_a_retry_that_names_the_file() {
        let settings = Settings::new().with("log_file", "/nowhere/at/all/archive.log");
        let batch = testing::batch().gauge("a", 1).build();
        let error = Archive::new(&settings).unwrap().handle(&batch).unwrap_err();
        let HandleError::Retry { reason, done, .. } = error else { panic!("{error}") };
        assert!(reason.starts_with("/nowhere/at/all/archive.log: "), "{reason}");
        assert_eq!(done, []);
    }

    #[test]
    fn unusable_settings_are_named() {
        let log_file = || Settings::new().with("log_file", "/tmp/archive.log");
        let cases = [
            (Settings::new(), "log_file"),
            (Settings::new().with("log_file", "archive.log"), "log_file"),
            (Settings::new().with("log_file", "/var/log/"), "log_file"),
            (log_file().with("when", "weekly"), "when"),
            (log_file().with("rollover_interval", -1), "rollover_interval"),
            (log_file().with("days", -1), "days"),
        ];
        for (settings, key) in cases {
            assert_eq!(Archive::new(&settings).unwrap_err().setting_key(), Some(key));
        }
    }
}
