//! One file of a spool: records behind each other, only ever added to at the end.
//!
//! Uses: `record`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{HEADER, Header, MAGIC};
use crate::sample::Millis;

/// An open segment and what is in it that has not been read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: File,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Where the next record to be read begins.
    pub(super) at: u64,
    /// From there on.
    pub(super) items: u64,
    /// When the youngest record came.
    pub(super) youngest: Millis,
}

/// What begins at a place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    Record(Header, Vec<u8>),
    /// Bytes that are no record, up to the next one or the end.
    Damage(Vec<u8>),
    End,
}

impl Segment {
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let path = dir.join(name(number));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { number, path, file, length: 0, at: 0, items: 0, youngest: 0 })
    }

    /// One that an earlier run left; its records from `at` on are counted.
    pub(super) fn open(path: PathBuf, number: u64, at: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let mut segment = Self { number, path, file, length, at, items: 0, youngest: 0 };
        let mut place = at;
        loop {
            match segment.find(place)? {
                Found::Record(header, _) => {
                    segment.items += u64::from(header.items);
                    segment.youngest = segment.youngest.max(header.since);
                    place += header.record();
                }
                Found::Damage(bytes) => place += bytes.len() as u64,
                Found::End => return Ok(segment),
            }
        }
    }

    /// Adds a record; none of it is there if that fails.
    pub(super) fn append(&mut self, record: &[u8], items: u64, since: Millis) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(record, self.length) {
            // If this fails, too, what is left there is recognised as no record.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += record.len() as u64;
        self.items += items;
        self.youngest = self.youngest.max(since);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether its path still leads to it: who deletes the directory leaves an open file behind.
    pub(super) fn is_there(&self) -> bool {
        let here = self.file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let there = fs::metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        matches!((here, there), (Ok(here), Ok(there)) if here == there)
    }

    /// What there is to be read next.
    pub(super) fn next(&self) -> io::Result<Found> {
        self.find(self.at)
    }

    fn find(&self, at: u64) -> io::Result<Found> {
        if at >= self.length {
            return Ok(Found::End);
        }
        let mut header = [0; HEADER];
        let header = match self.file.read_exact_at(&mut header, at) {
            Ok(()) => Header::read(&header),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        if let Some(header) = header
            && at + header.record() <= self.length
        {
            let mut payload = vec![0; header.payload as usize];
            self.file.read_exact_at(&mut payload, at + HEADER as u64)?;
            if header.fits(&payload) {
                return Ok(Found::Record(header, payload));
            }
        }
        self.damage(at).map(Found::Damage)
    }

    /// From `at` to the next whole header behind it, or to the end.
    fn damage(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut rest = vec![0; usize::try_from(self.length - at).unwrap_or(0)];
        self.file.read_exact_at(&mut rest, at)?;
        let next = (1..rest.len())
            .find(|&from| rest[from..].starts_with(&MAGIC) && Header::read(&rest[from..]).is_some());
        rest.truncate(next.unwrap_or(rest.len()));
        Ok(rest)
    }
}

pub(super) fn name(number: u64) -> String {
    format!("{number:016}.log")
}

/// The number that a file's name says, if it is a segment.
pub(super) fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}
