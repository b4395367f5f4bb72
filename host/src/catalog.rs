//! What lies in the plugin directories, and which file owns which name.
//!
//! ```text
//! plugin_dirs, in order; file names, in order ──read──▶ candidates ──claim──▶ owners
//!                                                        refused: why        parked: whose the name is
//! ```
//!
//! A name has one owner. The file that has it keeps it for as long as it is there, also while its
//! contents are no good; when it goes, the first of the others takes it. Uses: `component_file`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::component_file::{self, FileRules};
use crate::settling::Unsettled;

/// Of a file that changes still.
pub const UNSETTLED: &str = "is still being written";

/// More files in the plugin directories are not looked at.
const MOST: usize = 10_000;

/// Which file has which name. Kept from one look to the next.
pub type Owners = BTreeMap<String, PathBuf>;

/// A file in a plugin directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub path: PathBuf,
    pub found: Verdict,
}

/// What a file is, as far as that can be said without compiling it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Whole {
        name: String,
        sha256: String,
    },
    /// It changes still: what it was before goes on.
    Unsettled,
    /// A sentence that begins behind the file's name.
    Refused(String),
}

/// All plugin directories at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// In the order in which they claim names.
    pub candidates: Vec<Candidate>,
    pub owners: Owners,
}

impl Catalog {
    /// Looks at all `*.wasm` in these directories. `before`: who owned what. `unsettled` are not
    /// read.
    pub fn scan(
        dirs: &[PathBuf],
        rules: &FileRules,
        follow_links: bool,
        before: &Owners,
        unsettled: &Unsettled,
    ) -> Self {
        let mut candidates = Vec::new();
        for dir in dirs {
            let within = (!follow_links).then(|| dir.clone());
            let rules = FileRules { within, ..rules.clone() };
            for path in files(dir).into_iter().take(MOST - candidates.len().min(MOST)) {
                let found = if unsettled.has(&path) {
                    Verdict::Unsettled
                } else {
                    match component_file::read(&path, &rules) {
                        Ok(file) => Verdict::Whole { name: file.name, sha256: file.sha256 },
                        Err(why) => Verdict::Refused(why),
                    }
                };
                candidates.push(Candidate { path, found });
            }
        }
        let owners = claim(&candidates, before);
        Self { candidates, owners }
    }

    /// The file that owns a name.
    pub fn owner(&self, name: &str) -> Option<&Candidate> {
        let path = self.owners.get(name)?;
        self.candidates.iter().find(|candidate| candidate.path == *path)
    }
}

/// Decides who owns each name.
fn claim(candidates: &[Candidate], before: &Owners) -> Owners {
    let mut owners = Owners::new();
    let stays = |name: &String, path: &PathBuf| {
        candidates.iter().any(|candidate| {
            candidate.path == *path
                && match &candidate.found {
                    Verdict::Whole { name: now, .. } => now == name,
                    Verdict::Unsettled | Verdict::Refused(_) => true,
                }
        })
    };
    for (name, path) in before {
        if stays(name, path) {
            owners.insert(name.clone(), path.clone());
        }
    }
    for Candidate { path, found } in candidates {
        if let Verdict::Whole { name, .. } = found {
            owners.entry(name.clone()).or_insert_with(|| path.clone());
        }
    }
    owners
}

/// In the order of their names. Hidden ones are somebody's temporary files.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(path: &str, name: &str) -> Candidate {
        let found = Verdict::Whole { name: name.to_owned(), sha256: String::new() };
        Candidate { path: path.into(), found }
    }

    fn other(path: &str, found: Verdict) -> Candidate {
        Candidate { path: path.into(), found }
    }

    fn owners(pairs: &[(&str, &str)]) -> Owners {
        pairs.iter().map(|&(name, path)| (name.to_owned(), path.into())).collect()
    }

    #[test]
    fn the_first_file_has_the_name_and_the_next_one_takes_it_when_that_goes() {
        let both = [whole("/a/x", "n"), whole("/b/y", "n")];
        assert_eq!(claim(&both, &Owners::new()), owners(&[("n", "/a/x")]));
        assert_eq!(claim(&both[1..], &owners(&[("n", "/a/x")])), owners(&[("n", "/b/y")]));
    }

    #[test]
    fn who_has_a_name_keeps_it_whoever_comes() {
        let both = [whole("/a/x", "n"), whole("/b/y", "n")];
        assert_eq!(claim(&both, &owners(&[("n", "/b/y")])), owners(&[("n", "/b/y")]));
    }

    #[test]
    fn a_file_that_is_no_good_now_keeps_its_name() {
        for found in [Verdict::Unsettled, Verdict::Refused("is empty".to_owned())] {
            let files = [other("/a/x", found), whole("/b/y", "n")];
            assert_eq!(claim(&files, &owners(&[("n", "/a/x")])), owners(&[("n", "/a/x")]));
        }
    }

    #[test]
    fn a_file_that_has_become_another_plugin_gives_its_name_away() {
        let files = [whole("/a/x", "m"), whole("/b/y", "n")];
        let expected = owners(&[("m", "/a/x"), ("n", "/b/y")]);
        assert_eq!(claim(&files, &owners(&[("n", "/a/x")])), expected);
    }
}
