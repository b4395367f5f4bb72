//! How large a file system is, as `statvfs` says it, and what follows from it.

use kimberlite_plugin_sdk::host_stats::{Column, Row, Table};

/// Where the sizes are in each row.
pub(crate) struct Columns {
    dev: Column,
    frsize: Column,
    blocks: Column,
    bfree: Column,
    bavail: Column,
    files: Column,
    ffree: Column,
    favail: Column,
}

/// What `statvfs` says of a file system. Blocks are `frsize` bytes; `bavail` is what others than root
/// may fill of `bfree`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    frsize: f64,
    blocks: f64,
    bfree: f64,
    bavail: f64,
    files: f64,
    ffree: f64,
    favail: f64,
}

impl Columns {
    /// None: the table lacks one.
    pub(crate) fn of(filesystems: &Table) -> Option<Self> {
        let column = |name| filesystems.column(name);
        Some(Self {
            dev: column("dev")?,
            frsize: column("frsize")?,
            blocks: column("blocks")?,
            bfree: column("bfree")?,
            bavail: column("bavail")?,
            files: column("files")?,
            ffree: column("ffree")?,
            favail: column("favail")?,
        })
    }

    /// The number of the device, and the sizes; none: there is no answer for this row.
    pub(crate) fn read(&self, row: &Row<'_>) -> Option<(f64, Sizes)> {
        let sizes = Sizes {
            frsize: row.get(self.frsize)?,
            blocks: row.get(self.blocks)?,
            bfree: row.get(self.bfree)?,
            bavail: row.get(self.bavail)?,
            files: row.get(self.files)?,
            ffree: row.get(self.ffree)?,
            favail: row.get(self.favail)?,
        };
        Some((row.get(self.dev)?, sizes))
    }
}

impl Sizes {
    /// Free percent (0 where there are no blocks), then bytes used, free, and free for others than
    /// root.
    pub(crate) fn space(&self) -> [f64; 4] {
        let percent = if self.blocks > 0.0 { 100.0 * self.bfree / self.blocks } else { 0.0 };
        let [used, free, available] =
            [self.blocks - self.bfree, self.bfree, self.bavail].map(|blocks| blocks * self.frsize);
        [percent, used, free, available]
    }

    /// Inodes used, free, and free for others than root; then free percent, unless the file system
    /// does not count inodes, as btrfs.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = f64> {
        let percent = (self.files > 0.0).then(|| 100.0 * self.ffree / self.files);
        [self.files - self.ffree, self.ffree, self.favail].into_iter().chain(percent)
    }
}
