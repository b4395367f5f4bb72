//! Compiled code that one agent of a test leaves to the next: compiling a component takes a second,
//! and dozens of tests use the same.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

fn kept() -> PathBuf {
    Path::new(env!("TARGET_DIR")).join("test-code-cache")
}

/// Fills the cache of an agent that has not started yet.
pub fn lend(cache: &str) {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(cache).unwrap();
    copy_new(&kept(), Path::new(cache));
}

/// Keeps what an agent has compiled. Damaged files would be compiled anew, so nothing here can go wrong
/// that matters.
pub fn take_back(cache: &str) {
    let _ = fs::create_dir_all(kept());
    copy_new(Path::new(cache), &kept());
}

fn copy_new(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        // Other tests do the same at this moment: a file is there whole or not at all.
        let aside = to.join(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
        if !to.join(&name).exists() && fs::copy(entry.path(), &aside).is_ok() {
            let _ = fs::rename(&aside, to.join(&name));
        }
    }
}
