//! What waits for one handler on disk: first in, first out, bounded in bytes and age.
//!
//! ```text
//! append ──▶ 0000000000000003.log   written: records behind each other
//!            0000000000000002.log
//! load ◀──── 0000000000000001.log   read: `head` says up to where it was acknowledged
//!            damaged/               bytes that were no records
//! ```
//!
//! A log of our own, because embedded stores keep all in one file or one tree: one that is cut or
//! bent anywhere opens as a whole or not at all, and none gives its room back while it is read.
//! Here each record stands for itself, segments are deleted as they are read, and an agent never
//! writes behind what an earlier one left, so a torn end is only that.
//!
//! A record that was appended survives the agent being killed; with `fsync`, the machine losing
//! power after [`Spool::sync`]. `head` is never forced to disk: after a power cut some batches may
//! be delivered twice.
//!
//! Uses: `sample`, `outgoing`. Blocks on the disk.

mod record;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::record::Header;
use self::segment::{Found, Segment};
use crate::outgoing::Outgoing;
use crate::sample::{Batch, Millis};

/// One record with a batch, as a spool has it.
pub(crate) fn to_record(batch: &Batch, since: Millis) -> io::Result<Vec<u8>> {
    record::encode(batch, 0, since).map_err(io::Error::other)
}

/// The batch of one whole record; none: it is none, or damaged.
pub(crate) fn from_record(record: &[u8]) -> Option<Batch> {
    let header = Header::read(record)?;
    let payload = &record[record::HEADER..];
    (header.record() == record.len() as u64 && header.fits(payload)).then(|| record::decode(payload))?
}

/// How much a spool may hold, and how surely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Bytes; beyond them the oldest go.
    pub disk: u64,
    /// What has waited for longer goes.
    pub age: Duration,
    /// Whether [`Spool::sync`] forces what was appended to disk.
    pub fsync: bool,
}

/// Items that went without having been read, by reason; bytes that nobody could read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Items beyond the bytes.
    pub full: u64,
    /// Items beyond the age.
    pub old: u64,
    /// Items whose files were deleted by somebody.
    pub deleted: u64,
    /// Bytes moved aside; how many items they were cannot be known.
    pub damaged_bytes: u64,
}

/// Where a record is, and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    at: u64,
    bytes: u64,
    items: u64,
}

/// One handler's spool. One owner; the directory is its own.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    config: SpoolConfig,
    /// The oldest first; only the last is written, and only if this run made it.
    segments: VecDeque<Segment>,
    writes: bool,
    next_number: u64,
    head: Head,
    /// The record that is out to be delivered.
    out: Option<Place>,
    /// Records that have gone before older ones, by segment and place: their bytes. Forgotten with
    /// the process, so they may be delivered twice.
    gone: BTreeMap<(u64, u64), u64>,
    dropped: Dropped,
}

impl Spool {
    /// Takes up what an earlier run left; makes nothing yet.
    pub fn open(dir: PathBuf, config: SpoolConfig) -> io::Result<Self> {
        let mut found: Vec<(u64, PathBuf)> = match fs::read_dir(&dir) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter_map(|path| Some((segment::number(&path)?, path)))
                .collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        found.sort_unstable();
        let head = Head::read(&dir);
        let mut spool = Self {
            next_number: found.last().map_or(0, |(number, _)| *number).max(head.segment) + 1,
            dir,
            config,
            segments: VecDeque::new(),
            writes: false,
            head,
            out: None,
            gone: BTreeMap::new(),
            dropped: Dropped::default(),
        };
        for (number, path) in found {
            if number < head.segment {
                fs::remove_file(&path)?;
                continue;
            }
            let at = if number == head.segment { head.at } else { 0 };
            spool.segments.push_back(Segment::open(path, number, at)?);
        }
        spool.evict();
        Ok(spool)
    }

    pub fn set_config(&mut self, config: SpoolConfig) {
        self.config = config;
        self.evict();
    }

    /// Adds a batch behind all others; where it does not fit the oldest go. After an error it is
    /// not there. `since`: when the oldest of it came, by the wall clock. None: it is larger than
    /// the spool, and not there.
    pub fn append(&mut self, outgoing: &Outgoing, since: Millis) -> io::Result<Option<Place>> {
        let record = record::encode(&outgoing.batch, outgoing.kills, since).map_err(io::Error::other)?;
        let size = record.len() as u64;
        if size > self.config.disk {
            return Ok(None);
        }
        self.find_deleted();
        let items = outgoing.len() as u64;
        let segment = self.writable(size)?;
        let place = Place { segment: segment.number, at: segment.length, bytes: size, items };
        segment.append(&record, items, since)?;
        self.evict();
        Ok(Some(place))
    }

    /// So many items were let go of because they did not fit.
    pub fn drop_items(&mut self, items: usize) {
        self.dropped.full += items as u64;
    }

    /// Forces what was appended to disk, if the config says so.
    pub fn sync(&self) -> io::Result<()> {
        match self.segments.back() {
            Some(segment) if self.config.fsync && self.writes => segment.sync(),
            _ => Ok(()),
        }
    }

    /// The oldest batch, and when it came by the wall clock. It stays until [`Spool::acknowledge`];
    /// none: there is nothing, or one is out already. After an error it may be tried again.
    pub fn load(&mut self, now: Millis) -> io::Result<Option<(Outgoing, Millis)>> {
        if self.out.is_some() {
            return Ok(None);
        }
        self.find_deleted();
        while let Some(segment) = self.segments.front_mut() {
            let (number, at, found) = (segment.number, segment.at, segment.next()?);
            match found {
                Found::Record(header, payload) => {
                    let items = u64::from(header.items);
                    if self.is_old(header.since, now) {
                        self.dropped.old += items;
                        self.skip(header.record(), items);
                        continue;
                    }
                    let Some(batch) = record::decode(&payload) else {
                        // Whole, and not understood: written by something else.
                        self.set_aside(&payload);
                        self.skip(header.record(), items);
                        continue;
                    };
                    self.out = Some(Place { segment: number, at, bytes: header.record(), items });
                    let outgoing = Outgoing { kills: header.kills, ..Outgoing::new(batch, 0) };
                    return Ok(Some((outgoing, header.since)));
                }
                Found::Damage(bytes) => {
                    self.set_aside(&bytes);
                    self.skip(bytes.len() as u64, 0);
                }
                Found::End => self.leave(),
            }
        }
        Ok(None)
    }

    /// What is out has gone for good, wherever to.
    pub fn acknowledge(&mut self) {
        let Some(place) = self.out.take() else { return };
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.number == place.segment) else {
            return;
        };
        segment.items = segment.items.saturating_sub(place.items);
        self.gone.insert((place.segment, place.at), place.bytes);
        self.pass_gone();
    }

    /// What is out comes back: [`Spool::load`] gives it again.
    pub fn unload(&mut self) {
        self.out = None;
    }

    /// What was written there is out already, in its writer's hands.
    pub fn adopt(&mut self, place: Place) {
        self.out = Some(place);
    }

    /// How many items there are, the batch that is out among them.
    pub fn items(&self) -> u64 {
        self.segments.iter().map(|segment| segment.items).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.items() == 0
    }

    /// Of all files, read parts included.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn is_old(&self, since: Millis, now: Millis) -> bool {
        u128::from(now.saturating_sub(since)) > self.config.age.as_millis()
    }

    /// The segment that takes so many bytes more.
    fn writable(&mut self, bytes: u64) -> io::Result<&mut Segment> {
        // Evicting takes whole segments: sixteen of them, so that it takes a small part.
        let most = (self.config.disk / 16).clamp(4 << 10, 4 << 20);
        let full = self.segments.back().is_none_or(|last| last.length > 0 && last.length + bytes > most);
        if full || !self.writes {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            if self.writes
                && self.config.fsync
                && let Some(last) = self.segments.back()
            {
                last.sync()?;
            }
            let segment = Segment::create(&self.dir, self.next_number)?;
            self.next_number += 1;
            if self.config.fsync {
                sync_name(&segment.path)?;
            }
            self.writes = true;
            self.segments.push_back(segment);
        }
        self.segments.back_mut().ok_or_else(|| io::Error::other("no segment"))
    }

    fn evict(&mut self) {
        while self.bytes() > self.config.disk && self.segments.len() > 1 {
            // What is out will still be delivered or come back: it is not lost.
            let Some(segment) = self.segments.front() else { return };
            let held = self.out.take_if(|place| place.segment == segment.number);
            self.dropped.full += segment.items.saturating_sub(held.map_or(0, |place| place.items));
            self.leave();
        }
    }

    /// Behind a record, or what is none, of the first segment, and behind what has gone already.
    fn skip(&mut self, bytes: u64, items: u64) {
        self.step(bytes, items);
        self.pass_gone();
    }

    fn step(&mut self, bytes: u64, items: u64) {
        let Some(segment) = self.segments.front_mut() else { return };
        segment.at += bytes;
        segment.items = segment.items.saturating_sub(items);
        let (number, at, is_read) = (segment.number, segment.at, segment.at >= segment.length);
        if is_read {
            self.leave();
        } else {
            self.head.write(&self.dir, number, at);
        }
    }

    fn pass_gone(&mut self) {
        while let Some(first) = self.segments.front()
            && let Some(bytes) = self.gone.remove(&(first.number, first.at))
        {
            self.step(bytes, 0);
        }
    }

    /// Deletes the first segment.
    fn leave(&mut self) {
        let Some(segment) = self.segments.pop_front() else { return };
        self.writes &= !self.segments.is_empty();
        self.gone.retain(|(number, _), _| *number > segment.number);
        if fs::remove_file(&segment.path).is_err() {
            // Still there after a restart, it must not be read again.
            self.head.write(&self.dir, segment.number + 1, 0);
        }
    }

    /// Counts what somebody has deleted.
    fn find_deleted(&mut self) {
        let ends = [self.segments.front(), self.segments.back()];
        if ends.into_iter().flatten().all(Segment::is_there) {
            return;
        }
        self.segments.retain(|segment| {
            let there = segment.is_there();
            if !there {
                let held = self.out.take_if(|place| place.segment == segment.number);
                self.dropped.deleted += segment.items.saturating_sub(held.map_or(0, |place| place.items));
            }
            there
        });
        self.gone.retain(|(number, _), _| self.segments.iter().any(|segment| segment.number == *number));
        self.writes = false;
        self.head = Head::read(&self.dir);
    }

    /// Keeps what could not be read for whoever wants to look at it: a segment's worth.
    fn set_aside(&mut self, bytes: &[u8]) {
        self.dropped.damaged_bytes += bytes.len() as u64;
        let Some(segment) = self.segments.front() else { return };
        let dir = self.dir.join("damaged");
        let kept = fs::read_dir(&dir).map_or(0, |entries| {
            entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|meta| meta.len()).sum::<u64>()
        });
        if kept + bytes.len() as u64 > self.config.disk / 16 {
            return;
        }
        let path = dir.join(format!("{:016}-{}", segment.number, segment.at));
        let written = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).and_then(|()| {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all_at(bytes, 0)
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "damaged bytes of a spool could not be kept");
        }
    }
}

/// After a power cut a new file's bytes would be of no use without its name, nor its directory's.
fn sync_name(file: &Path) -> io::Result<()> {
    file.ancestors().skip(1).take(2).try_for_each(|dir| File::open(dir)?.sync_all())
}

/// Up to where the spool was acknowledged. Written in turns to two places of one file, so that one
/// of them is always whole.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    turn: u64,
    segment: u64,
    at: u64,
}

impl Head {
    const BYTES: usize = 28;

    fn read(dir: &Path) -> Self {
        let Ok(bytes) = fs::read(dir.join("head")) else { return Self::default() };
        let heads = bytes.chunks_exact(Self::BYTES).filter_map(|place| {
            let number = |at: usize| Some(u64::from_le_bytes(place.get(at..at + 8)?.try_into().ok()?));
            let checksum = u32::from_le_bytes(place.get(24..28)?.try_into().ok()?);
            (crc32fast::hash(&place[..24]) == checksum).then_some(())?;
            Some(Self { turn: number(0)?, segment: number(8)?, at: number(16)? })
        });
        heads.max_by_key(|head| head.turn).unwrap_or_default()
    }

    /// Without it a batch is delivered twice after a restart, so nothing stops when this fails.
    fn write(&mut self, dir: &Path, segment: u64, at: u64) {
        *self = Self { turn: self.turn + 1, segment, at };
        let mut bytes = [0; Self::BYTES];
        for (place, number) in [(0, self.turn), (8, segment), (16, at)] {
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        let place = self.turn % 2 * Self::BYTES as u64;
        let file: io::Result<File> =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("head"));
        if let Err(error) = file.and_then(|file| file.write_all_at(&bytes, place)) {
            tracing::debug!(%error, "the head of a spool could not be written");
        }
    }
}

#[cfg(test)]
mod tests;
