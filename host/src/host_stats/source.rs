//! One file of /proc or /sys, held open and read again and again into a buffer that others lend.
//!
//! Holding saves the walk down the path, the open and the close: about a quarter of a reading. Only
//! files of the kernel are held, since those are made anew at each read; an ordinary file may be
//! replaced under its name, and is opened each time.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::{fd::AsFd, unix::fs::FileExt},
    path::PathBuf,
};

use super::StatsError;

/// More than any real file here; the end of reading where something else pretends to be one.
const MAX_BYTES: usize = 16 << 20;

/// Most files fit, so that one `pread` gets all of it.
const FIRST_BYTES: usize = 32 << 10;

/// What `statfs` says of procfs and sysfs.
const KERNEL_FILES: [u64; 2] = [0x9fa0, 0x6265_6572];

/// A file and, while it can be read again, its descriptor.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    held: Option<File>,
}

impl Source {
    /// Opens nothing yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    /// The open file, if it is one of the kernel's.
    pub(super) fn held(&self) -> Option<&File> {
        self.held.as_ref()
    }

    /// Says that this file is the culprit.
    pub(super) fn unreadable(&self, source: impl Into<io::Error>) -> StatsError {
        StatsError::Unreadable { file: self.path.clone(), source: source.into() }
    }

    /// The whole file as it is now; none: there is no such file. What a held descriptor cannot
    /// read is opened again before it counts as an error.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, StatsError> {
        if let Some(file) = self.held.take()
            && let Ok(length) = read_all(&file, buffer)
        {
            self.held = Some(file);
            return Ok(Some(&buffer[..length]));
        }
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(self.unreadable(error)),
        };
        let length = read_all(&file, buffer).map_err(|error| self.unreadable(error))?;
        self.held = is_kernel_file(&file).then_some(file);
        Ok(Some(&buffer[..length]))
    }
}

/// Reads from the start to the end and gives the length. The buffer's own length is what it has
/// room for: it is never cleared, so that it is zeroed once only.
fn read_all(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= MAX_BYTES {
                return Err(io::Error::other(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
            }
            buffer.resize((length * 2).max(FIRST_BYTES), 0);
        }
        // A short read is no end: the kernel hands out many files page by page.
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => return Ok(length),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_kernel_file(file: &File) -> bool {
    rustix::fs::fstatfs(file.as_fd()).is_ok_and(|of| KERNEL_FILES.contains(&(of.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_held_and_ordinary_ones_are_not() {
        let mut buffer = Vec::new();
        let mut live = Source::new("/proc/loadavg".into());
        assert!(!live.read(&mut buffer).unwrap().unwrap().is_empty());
        assert!(live.held().is_some());
        assert!(!live.read(&mut buffer).unwrap().unwrap().is_empty());

        let directory = super::super::testing::Directory::new("held");
        let mut ordinary = Source::new(directory.file("loadavg", "one"));
        assert_eq!(ordinary.read(&mut buffer).unwrap(), Some(&b"one"[..]));
        std::fs::rename(directory.file("new", "two"), &ordinary.path).unwrap();
        assert_eq!(ordinary.read(&mut buffer).unwrap(), Some(&b"two"[..]), "the file that has the name now");
    }

    #[test]
    fn held_file_that_fails_is_opened_again() {
        let mut buffer = Vec::new();
        let mut source = Source::new("/proc/loadavg".into());
        source.held = Some(File::open("/proc").unwrap());
        assert!(!source.read(&mut buffer).unwrap().unwrap().is_empty());
    }

    #[test]
    fn files_longer_than_the_buffer_are_read_to_the_end() {
        let directory = super::super::testing::Directory::new("long");
        let text = "0123456789".repeat(FIRST_BYTES / 4);
        let mut source = Source::new(directory.file("long", &text));
        assert_eq!(source.read(&mut Vec::new()).unwrap(), Some(text.as_bytes()));
    }

    #[test]
    fn missing_is_none_and_anything_else_an_error() {
        let mut buffer = Vec::new();
        assert_eq!(Source::new("/proc/no-such-file".into()).read(&mut buffer).unwrap(), None);
        assert_eq!(Source::new("/proc/version/dev".into()).read(&mut buffer).unwrap(), None);
        assert!(Source::new("/proc".into()).read(&mut buffer).is_err());
        assert!(Source::new("/dev/zero".into()).read(&mut buffer).is_err(), "it never ends");
    }
}
