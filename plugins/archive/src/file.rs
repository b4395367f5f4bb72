//! The file: whole lines or nothing, rotated by the wall clock.
//!
//! It is opened for each batch, so that one that was moved away or removed is made anew.
//!
//! Uses: `span`. The time is an argument.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use handler_text::Lines;
use kimberlite_plugin_sdk::log;

use crate::span::Span;

/// A longer end without a line feed is none of ours: it is left alone, and closed by one.
const LONGEST_LINE: u64 = 8192;

/// Where lines go.
#[derive(Debug)]
pub(crate) struct ArchiveFile {
    path: PathBuf,
    span: Span,
    /// How many rotated files stay; 0: all.
    kept: usize,
    /// When the span of what is in the file began; none before the first look at it.
    start: Option<u64>,
}

/// Why not all was written.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// How many samples stand in the file all the same.
    pub(crate) samples: usize,
}

impl ArchiveFile {
    pub(crate) fn new(path: &str, span: Span, kept: usize) -> Self {
        Self { path: PathBuf::from(path), span, kept, start: None }
    }

    /// Appends `lines`, to a new file if the span of the old one was over at `now` (seconds since
    /// 1970). A failed write leaves whole lines only.
    pub(crate) fn append(&mut self, lines: &Lines, now: u64) -> Result<(), Failure> {
        self.rotate_if_due(now);
        let failed = |reason: &dyn std::fmt::Display, samples| Failure {
            reason: format!("{}: {reason}", self.path.display()),
            samples,
        };
        let mut file = self.open().map_err(|error| failed(&error, 0))?;
        let start = mend(&mut file).map_err(|error| failed(&error, 0))?;
        match file.write_all(lines.text()).and_then(|()| file.flush()) {
            Ok(()) => Ok(()),
            Err(error) => {
                // WASI keeps the system's own reason to itself, and the usual one is a full disk.
                let reason = format!("cannot write: {error}; is the disk full?");
                Err(failed(&reason, undo_torn(&file, start, lines)))
            }
        }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).open(&self.path)
    }

    /// A rotation that fails is said and tried again with the next span: samples come first.
    fn rotate_if_due(&mut self, now: u64) {
        let current = self.span.start(now);
        // After a restart the file tells by its last change which span it holds.
        let start = self.start.or_else(|| Some(self.span.start(changed(&self.path)?))).unwrap_or(current);
        // A clock that was set back rotates nothing.
        self.start = Some(start.max(current));
        if start < current
            && let Err(error) = self.rotate(start)
        {
            log::warn!("{} is not rotated: {error}", self.path.display());
        }
    }

    fn rotate(&self, start: u64) -> io::Result<()> {
        let rotated = self.rotated(&self.span.suffix(start));
        // Never over a file that is there already: then the old one simply grows on.
        if fs::exists(&rotated)? {
            return Err(io::Error::other(format!("{} exists already", rotated.display())));
        }
        match OpenOptions::new().read(true).append(true).open(&self.path) {
            Ok(mut file) => mend(&mut file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fs::rename(&self.path, &rotated)?;
        self.remove_old()
    }

    fn remove_old(&self) -> io::Result<()> {
        if self.kept == 0 {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let own = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut suffixes = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let suffix = name.to_str().and_then(|name| name.strip_prefix(&*own)?.strip_prefix('.'));
            suffixes.extend(suffix.filter(|suffix| self.span.is_suffix(suffix)).map(str::to_owned));
        }
        suffixes.sort();
        for suffix in suffixes.iter().rev().skip(self.kept) {
            fs::remove_file(self.rotated(suffix))?;
        }
        Ok(())
    }

    fn rotated(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }
}

/// Seconds since 1970; none: there is no such file, or nothing in it.
fn changed(path: &Path) -> Option<u64> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.len() > 0)?;
    Some(meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Cuts off the part of a line that an agent killed while writing left behind: its batch comes again
/// whole. Gives the file's length.
fn mend(file: &mut File) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 || end_of(file, length, 1)? == b"\n" {
        return Ok(length);
    }
    let end = end_of(file, length, LONGEST_LINE)?;
    match end.iter().rposition(|byte| *byte == b'\n') {
        None if length > LONGEST_LINE => {
            file.write_all(b"\n")?;
            Ok(length + 1)
        }
        line_feed => {
            let torn = end.len() - line_feed.map_or(0, |at| at + 1);
            let whole = length - torn as u64;
            file.set_len(whole)?;
            Ok(whole)
        }
    }
}

/// The last `most` bytes.
fn end_of(file: &mut File, length: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

/// After a failed write: leaves only whole samples behind `start` and says how many they are.
fn undo_torn(file: &File, start: u64, lines: &Lines) -> usize {
    let Ok(length) = file.metadata().map(|meta| meta.len()) else { return 0 };
    let written = usize::try_from(length.saturating_sub(start)).unwrap_or_default();
    let samples = lines.samples_within(written);
    match file.set_len(start + lines.end_of(samples) as u64) {
        Ok(()) => samples,
        // The next batch mends it; until then nothing of this one counts.
        Err(_) => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use handler_text::Plaintext;
    use handler_text::date::DAY;
    use kimberlite_plugin_sdk::testing;

    /// Monday, 21 August 2017, 07:21:01.
    const MONDAY: u64 = 1_503_300_061;

    /// A folder of one test, gone with it.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kimberlite-archive-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        fn file(&self, when: &str, kept: usize) -> ArchiveFile {
            let path = self.0.join("a.log");
            ArchiveFile::new(path.to_str().unwrap(), Span::new(when, 1).unwrap(), kept)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What is left behind is in the folder for temporary files.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn lines(metrics: &[&str]) -> Lines {
        let mut batch = testing::batch();
        for metric in metrics {
            batch = batch.gauge(metric, 1);
        }
        let mut lines = Lines::default();
        Plaintext::new("").write(&batch.build(), &mut lines);
        lines
    }

    #[test]
    fn file_is_rotated_at_the_border_and_named_for_its_beginning() {
        let folder = Folder::new("rotated");
        let mut file = folder.file("midnight", 7);
        file.append(&lines(&["a"]), MONDAY).unwrap();
        file.append(&lines(&["b"]), MONDAY + 3600).unwrap();
        file.append(&lines(&["c"]), MONDAY + DAY).unwrap();
        assert_eq!(folder.read("a.log.2017-08-21"), "test.a 1 0\ntest.b 1 0\n");
        assert_eq!(folder.read("a.log"), "test.c 1 0\n");
    }

    #[test]
    fn only_so_many_rotated_files_are_kept() {
        let folder = Folder::new("kept");
        folder.write("a.log.2017-08-19.gz", "not one of ours");
        folder.write("b.log.2017-08-19", "nor this");
        let mut file = folder.file("midnight", 2);
        for day in 0..5 {
            file.append(&lines(&["a"]), MONDAY + day * DAY).unwrap();
        }
        let expected =
            ["a.log", "a.log.2017-08-19.gz", "a.log.2017-08-23", "a.log.2017-08-24", "b.log.2017-08-19"];
        assert_eq!(folder.names(), expected);
    }

    #[test]
    fn all_are_kept_with_zero() {
        let folder = Folder::new("all");
        let mut file = folder.file("midnight", 0);
        for day in 0..5 {
            file.append(&lines(&["a"]), MONDAY + day * DAY).unwrap();
        }
        assert_eq!(folder.names().len(), 5);
    }

    #[test]
    fn rotated_file_is_never_overwritten() {
        let folder = Folder::new("taken");
        folder.write("a.log.2017-08-21", "precious\n");
        let mut file = folder.file("midnight", 7);
        for day in 0..2 {
            file.append(&lines(&["a"]), MONDAY + day * DAY).unwrap();
        }
        assert_eq!(folder.read("a.log.2017-08-21"), "precious\n");
        assert_eq!(folder.read("a.log"), "test.a 1 0\ntest.a 1 0\n");
        assert_eq!(testing::logs().len(), 1);
    }

    #[test]
    fn clock_that_was_set_back_rotates_nothing() {
        let folder = Folder::new("back");
        let mut file = folder.file("midnight", 7);
        file.append(&lines(&["a"]), MONDAY + DAY).unwrap();
        file.append(&lines(&["b"]), MONDAY).unwrap();
        file.append(&lines(&["c"]), MONDAY + DAY).unwrap();
        assert_eq!(folder.names(), ["a.log"]);
    }

    #[test]
    fn file_of_an_earlier_agent_is_rotated_by_its_last_change() {
        let folder = Folder::new("earlier");
        folder.write("a.log", "old 1 0\n");
        let old = UNIX_EPOCH + std::time::Duration::from_secs(MONDAY);
        File::options().append(true).open(folder.path().join("a.log")).unwrap().set_modified(old).unwrap();
        folder.file("midnight", 7).append(&lines(&["a"]), MONDAY + 3 * DAY).unwrap();
        assert_eq!(folder.read("a.log.2017-08-21"), "old 1 0\n");
        assert_eq!(folder.read("a.log"), "test.a 1 0\n");
    }

    #[test]
    fn torn_line_is_cut_off() {
        let folder = Folder::new("torn");
        for (torn, whole) in [("a 1 0\nb 1", "a 1 0\n"), ("b 1", ""), ("a 1 0\n", "a 1 0\n"), ("", "")] {
            folder.write("a.log", torn);
            folder.file("midnight", 7).append(&lines(&["c"]), 0).unwrap();
            assert_eq!(folder.read("a.log"), format!("{whole}test.c 1 0\n"));
        }
    }

    #[test]
    fn torn_line_is_cut_off_before_a_rotation_too() {
        let folder = Folder::new("torn-rotated");
        let mut file = folder.file("midnight", 7);
        file.append(&lines(&["a"]), MONDAY).unwrap();
        folder.write("a.log", "test.a 1 0\ntest.b");
        file.append(&lines(&["b"]), MONDAY + DAY).unwrap();
        assert_eq!(folder.read("a.log.2017-08-21"), "test.a 1 0\n");
        assert_eq!(folder.read("a.log"), "test.b 1 0\n");
    }

    #[test]
    fn long_end_that_is_no_line_of_ours_is_left_alone() {
        let folder = Folder::new("foreign");
        let foreign = "x".repeat(10_000);
        folder.write("a.log", &foreign);
        folder.file("midnight", 7).append(&lines(&["a"]), 0).unwrap();
        assert_eq!(folder.read("a.log"), format!("{foreign}\ntest.a 1 0\n"));
    }

    #[test]
    fn failed_write_leaves_whole_samples_only() {
        let folder = Folder::new("failed");
        let lines = lines(&["a", "b", "c"]);
        // As a full disk leaves it: the second line is half there.
        folder.write("a.log", "before\ntest.a 1 0\ntest.b");
        let file = folder.file("midnight", 7).open().unwrap();
        assert_eq!(undo_torn(&file, "before\n".len() as u64, &lines), 1);
        assert_eq!(folder.read("a.log"), "before\ntest.a 1 0\n");
    }
}
