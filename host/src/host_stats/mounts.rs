//! The family `filesystem`: which file systems are mounted, and how large they are.
//!
//! The list costs the kernel more than any other file here (21 µs for 20 lines, and `procfs` 27 µs more),
//! but the kernel can be asked whether it has changed (0.3 µs). So list, paths, labels and device
//! numbers are kept until it has, and a reading is one `statvfs` for each mount.
//! The `procfs` crate is not used: it leaves the `\040` of a blank as it is, and one odd line makes it
//! refuse all others.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    StatsError,
    sizes::{Pool, Sizes},
    source::Source,
    table::Draft,
};

pub(super) const TEXT_COLUMNS: [&str; 3] = ["device", "type", "label"];

/// How long a reading waits for servers, all together. A server on another continent answers within it.
const PATIENCE: Duration = Duration::from_millis(200);

/// Types whose sizes a server has to tell. Names that end in `*` are beginnings.
const REMOTE: [&str; 10] =
    ["nfs*", "cifs", "smb*", "fuse*", "glusterfs", "ceph", "9p", "afs", "lustre", "ncpfs"];

/// Types that store nothing: windows into the kernel, and `autofs`, which would mount what is
/// asked for. They have no row.
const WITHOUT_STORAGE: [&str; 21] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// A line of /proc/mounts.
#[derive(Debug, PartialEq)]
struct Mount {
    device: Vec<u8>,
    point: Vec<u8>,
    kind: Vec<u8>,
}

/// What is mounted, and how to ask for its size.
#[derive(Debug)]
struct Measured {
    mount: Mount,
    /// Where this process sees it.
    path: Arc<Path>,
    remote: bool,
    label: Vec<u8>,
    /// The device number, once it is known.
    dev: Option<u64>,
}

impl Measured {
    fn sizes(&self) -> Option<Sizes> {
        match self.dev {
            Some(dev) => Sizes::of_device(&self.path, dev),
            None => Sizes::of(&self.path),
        }
    }
}

/// File systems of the running machine.
#[derive(Debug)]
pub(super) struct Filesystems {
    list: Source,
    root: PathBuf,
    by_label: PathBuf,
    mounts: Vec<Measured>,
    labels_as_of: Option<SystemTime>,
    pool: Pool,
}

impl Filesystems {
    /// Seen from `root`, which is `/` save in a container.
    pub(super) fn new(proc: &Path, root: &Path) -> Self {
        // In a container `mounts` shows the container's own, through `self`.
        let first = proc.join("1/mounts");
        let list = if root == Path::new("/") || !first.exists() { proc.join("mounts") } else { first };
        Self {
            list: Source::new(list),
            root: root.to_owned(),
            by_label: root.join("dev/disk/by-label"),
            mounts: Vec::new(),
            labels_as_of: None,
            pool: Pool::new(Sizes::of),
        }
    }

    /// How many mounts have been asked for their sizes and have not answered.
    pub(super) fn stuck(&self) -> usize {
        self.pool.stuck()
    }

    /// A row for each line whose file system stores something and answers.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, draft: &mut Draft) -> Result<(), StatsError> {
        self.refresh(buffer)?;
        let remote = self.mounts.iter().filter(|mount| mount.remote).map(|mount| mount.path.clone());
        let answers = self.pool.ask(remote, PATIENCE);
        for measured in &mut self.mounts {
            let sizes = match measured.remote {
                true => answers.get(&measured.path).copied().flatten(),
                false => measured.sizes(),
            };
            if let Some(sizes) = sizes {
                measured.dev = Some(sizes.dev());
                let Mount { device, point, kind } = &measured.mount;
                draft.push_with_texts(point, &sizes.values(), &[device, kind, &measured.label]);
            }
        }
        Ok(())
    }

    fn refresh(&mut self, buffer: &mut Vec<u8>) -> Result<(), StatsError> {
        let labels_as_of = fs::metadata(&self.by_label).and_then(|directory| directory.modified()).ok();
        let known = self.list.held().is_some_and(|list| !has_changed(list));
        if known && labels_as_of == self.labels_as_of {
            return Ok(());
        }
        let text = self.list.read(buffer)?.unwrap_or_default();
        let remote_points: Vec<_> = parse(text)
            .filter(|mount| is_one_of(&REMOTE, &mount.kind))
            .map(|mount| path(&mount.point))
            .collect();
        let labels = labels(&self.by_label);
        self.labels_as_of = labels_as_of;
        self.mounts = parse(text)
            .filter(|mount| !is_one_of(&WITHOUT_STORAGE, &mount.kind))
            .map(|mount| Measured {
                path: below(&self.root, &mount.point).into(),
                // The way to a mount below a remote one leads through its server.
                remote: remote_points.iter().any(|point| path(&mount.point).starts_with(point)),
                label: label(&labels, &self.root, &mount.device),
                dev: None,
                mount,
            })
            .collect();
        Ok(())
    }
}

/// File systems of a recorded tree: its `mounts`, and their sizes from its `statvfs.json`.
#[derive(Debug)]
pub(super) struct RecordedFilesystems {
    list: Source,
    sizes: Source,
}

impl RecordedFilesystems {
    pub(super) fn new(tree: &Path) -> Self {
        Self { list: Source::new(tree.join("mounts")), sizes: Source::new(tree.join("statvfs.json")) }
    }

    /// A row for each line whose mount point has sizes. No labels are looked up: this machine's
    /// have nothing to do with the recorded one's.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, draft: &mut Draft) -> Result<(), StatsError> {
        let Some(text) = self.sizes.read(buffer)? else { return Ok(()) };
        let sizes: HashMap<String, Sizes> =
            serde_json::from_slice(text).map_err(|error| self.sizes.unreadable(error))?;
        let text = self.list.read(buffer)?;
        for mount in parse(text.unwrap_or_default()) {
            let point = String::from_utf8_lossy(&mount.point);
            if let Some(sizes) = sizes.get(&*point) {
                draft.push_with_texts(&mount.point, &sizes.values(), &[&mount.device, &mount.kind, b""]);
            }
        }
        Ok(())
    }
}

/// Whether the list has changed since it was opened or last asked. It is asked before the list is
/// read, so that a change in between is noticed at the next reading.
fn has_changed(list: &File) -> bool {
    let mut asked = [PollFd::new(list, PollFlags::PRI)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut asked, Some(&at_once)), Ok(0))
}

fn parse(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        // One blank each: a device without a name leaves nothing between two.
        let mut fields = line.split(|byte| *byte == b' ').map(unescape);
        let mount = Mount { device: fields.next()?, point: fields.next()?, kind: fields.next()? };
        (mount.point.starts_with(b"/") && !mount.kind.is_empty()).then_some(mount)
    })
}

/// Undoes the kernel's `\040` for a blank, and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            _ => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

fn is_one_of(patterns: &[&str], kind: &[u8]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => kind.starts_with(start.as_bytes()),
        None => kind == pattern.as_bytes(),
    })
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

/// Where a path of the machine lies when its root is seen at `root`.
fn below(root: &Path, absolute: &[u8]) -> PathBuf {
    root.join(path(absolute).strip_prefix("/").unwrap_or(Path::new("")))
}

/// The labels of devices, by the devices' real paths.
fn labels(by_label: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let Ok(links) = fs::read_dir(by_label) else { return HashMap::new() };
    links
        .flatten()
        .filter_map(|link| {
            let device = link.path().canonicalize().ok()?;
            let label = link.file_name().to_string_lossy().replace(r"\x2f", "/");
            Some((device, label.into_bytes()))
        })
        .collect()
}

fn label(labels: &HashMap<PathBuf, Vec<u8>>, root: &Path, device: &[u8]) -> Vec<u8> {
    if labels.is_empty() || !device.starts_with(b"/dev/") {
        return Vec::new();
    }
    let device = below(root, device).canonicalize().ok();
    device.and_then(|device| labels.get(&device).cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            table::{Columns, Table},
            testing::Directory,
        },
        *,
    };

    const SIZES: &str = r#"{"/": {"dev":1,"frsize":4096,"blocks":10,"bfree":5,"bavail":4,"files":9,"ffree":8,
        "favail":7}, "/a b": {"dev":2,"frsize":512,"blocks":1,"bfree":1,"bavail":1,"files":0,"ffree":0,"favail":0}}"#;

    fn finish(mut draft: Draft) -> Table {
        draft.finish(&Columns::new(&Sizes::COLUMNS, &TEXT_COLUMNS), None).0
    }

    fn live(filesystems: &mut Filesystems) -> Table {
        let mut draft = Draft::default();
        filesystems.read(&mut Vec::new(), &mut draft).unwrap();
        finish(draft)
    }

    #[test]
    fn lines_are_taken_apart_and_unescaped() {
        let text = b"/dev/sda1 / ext4 rw 0 0\n\
            //nas/a\\040b /mnt/tab\\011\\134040 cifs rw 0 0\n\
            \x20/x tmpfs rw 0 0\n\
            short\n\n\
            none relative tmpfs rw 0 0\n\
            end /z\\04 ext2";
        let mounts: Vec<_> = parse(text)
            .map(|mount| {
                [mount.device, mount.point, mount.kind].map(|field| String::from_utf8(field).unwrap())
            })
            .collect();
        let expected = [
            ["/dev/sda1", "/", "ext4"],
            ["//nas/a b", "/mnt/tab\t\\040", "cifs"],
            ["", "/x", "tmpfs"],
            ["end", "/z\\04", "ext2"],
        ];
        assert_eq!(mounts, expected.map(|mount| mount.map(str::to_owned)));
    }

    #[test]
    fn live_mounts_agree_with_procfs() {
        let table = live(&mut Filesystems::new(Path::new("/proc"), Path::new("/")));
        let texts: Vec<_> = table.texts.iter().collect();
        let rows: Vec<_> = table.keys.iter().zip(texts.chunks(3)).map(|(k, t)| (k, t[0], t[1])).collect();
        let entries = procfs::process::Process::myself().and_then(|me| me.mountinfo()).unwrap();
        let root = entries.iter().rev().find(|entry| entry.mount_point == Path::new("/")).unwrap();
        assert!(rows.iter().any(|(point, _, kind)| *point == "/" && *kind == root.fs_type), "{rows:?}");
        assert!(rows.iter().all(|(_, _, kind)| *kind != "proc"), "a window into the kernel has no size");
        let (_, sizes) = table.rows().find(|(point, _)| *point == "/").unwrap();
        assert!(sizes[1] > 0.0 && sizes[2] >= sizes[3] && sizes[3] >= sizes[4], "{sizes:?}");
    }

    #[test]
    fn unchanged_list_is_not_read_again() {
        let mut filesystems = Filesystems::new(Path::new("/proc"), Path::new("/"));
        live(&mut filesystems);
        filesystems.mounts.clear();
        assert!(live(&mut filesystems).keys.is_empty(), "nothing has been mounted meanwhile");
    }

    #[test]
    fn in_a_container_sizes_and_labels_are_those_below_the_root() {
        let directory = Directory::new("root");
        let proc = directory.path().join("proc");
        directory.file("proc/mounts", "wrong /nowhere ext4 rw 0 0");
        directory.file("proc/1/mounts", "/dev/sda1 /data ext4 rw 0 0\n/dev/sdb1 /gone ext4 rw 0 0\n");
        directory.file("root/data/file", "");
        directory.file("root/dev/sda1", "");
        directory.file("root/dev/disk/by-label/other", "");
        let link = directory.path().join(r"root/dev/disk/by-label/my\x2fdisk");
        std::os::unix::fs::symlink("../../sda1", link).unwrap();

        let table = live(&mut Filesystems::new(&proc, &directory.path().join("root")));
        assert_eq!(table.keys.iter().collect::<Vec<_>>(), ["/data"], "what is not there has no row");
        assert_eq!(table.texts.iter().collect::<Vec<_>>(), ["/dev/sda1", "ext4", "my/disk"]);
    }

    #[test]
    fn mount_below_a_remote_one_is_remote() {
        let directory = Directory::new("remote");
        let lines = ["nas:/ /home nfs4 rw", "tmpfs /home/ann/cache tmpfs rw", "/dev/sda1 /homes ext4 rw"];
        directory.file("mounts", &lines.join(" 0 0\n"));
        let mut filesystems = Filesystems::new(directory.path(), Path::new("/"));
        filesystems.refresh(&mut Vec::new()).unwrap();
        let remote: Vec<_> = filesystems.mounts.iter().map(|mount| mount.remote).collect();
        assert_eq!(remote, [true, true, false]);
    }

    #[test]
    fn recorded_sizes_are_those_of_the_tree() {
        let directory = Directory::new("recorded");
        directory
            .file("mounts", "/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\nnas:/x /a\\040b nfs4 rw 0 0\n");
        directory.file("statvfs.json", SIZES);
        let mut draft = Draft::default();
        RecordedFilesystems::new(directory.path()).read(&mut Vec::new(), &mut draft).unwrap();
        let table = finish(draft);
        let expected = [
            ("/", &[1.0, 4096.0, 10.0, 5.0, 4.0, 9.0, 8.0, 7.0][..]),
            ("/a b", &[2.0, 512.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ];
        assert_eq!(table.rows().collect::<Vec<_>>(), expected);
        assert_eq!(table.texts.iter().collect::<Vec<_>>(), ["/dev/sda1", "ext4", "", "nas:/x", "nfs4", ""]);
    }

    #[test]
    fn recorded_sizes_that_cannot_be_understood_name_their_file() {
        let directory = Directory::new("broken");
        directory.file("mounts", "/dev/sda1 / ext4 rw 0 0\n");
        directory.file("statvfs.json", r#"{"/": {"dev": 1}}"#);
        let mut draft = Draft::default();
        let error = RecordedFilesystems::new(directory.path()).read(&mut Vec::new(), &mut draft).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("statvfs.json") && text.contains("missing field `frsize`"), "{text}");
    }

    #[test]
    fn types_are_told_apart() {
        for kind in ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "9p"] {
            assert!(is_one_of(&REMOTE, kind.as_bytes()), "{kind}");
        }
        for kind in ["ext4", "tmpfs", "overlay", "9p2", "xfs", ""] {
            assert!(!is_one_of(&REMOTE, kind.as_bytes()), "{kind}");
            assert!(!is_one_of(&WITHOUT_STORAGE, kind.as_bytes()), "{kind}");
        }
    }
}
