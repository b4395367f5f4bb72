//! One `.wasm` file: read whole, judged, or refused with a reason. Nothing of it is run or compiled.
//!
//! Uses: `trust`, `plugin::section` for the name in its manifest.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::manifest::Manifest;
use crate::config::{AgentConfig, name_fault};
use crate::plugin::section;
use crate::trust::{self, Signer};

/// Which files are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRules {
    /// Bytes.
    pub largest: u64,
    /// Whether a file that others can change is refused.
    pub checks_owner: bool,
    /// If there are any, one of them must have signed it.
    pub trusted_keys: Vec<String>,
    /// Links must not lead out of this directory.
    pub within: Option<PathBuf>,
}

/// A file that may be used.
#[derive(Debug)]
pub struct ComponentFile {
    pub bytes: Vec<u8>,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// The manifest's name, else the file's stem.
    pub name: String,
    pub signer: Option<Signer>,
}

impl FileRules {
    /// Those of this config, wherever the file lies.
    pub fn new(agent: &AgentConfig, checks_owner: bool) -> Self {
        Self {
            largest: agent.plugin_size,
            checks_owner,
            trusted_keys: agent.trusted_keys.clone(),
            within: None,
        }
    }
}

/// Reads a component. Errors are sentences that begin behind the file's name.
pub fn read(path: &Path, rules: &FileRules) -> Result<ComponentFile, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err("cannot be read: it is not a file".to_owned());
    }
    if let Some(dir) = &rules.within {
        let (dir, real) = (fs::canonicalize(dir), fs::canonicalize(path).map_err(unreadable)?);
        if !dir.is_ok_and(|dir| real.starts_with(dir)) {
            return Err(format!(
                "is not used: it leads out of its directory, to `{}`; `agent.follow_links = true` allows that",
                real.display()
            ));
        }
    }
    if rules.checks_owner {
        trust::check_file(path)?;
    }
    // What it is may have changed by now: a pipe must not hold the reader up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let too_large = |bytes: u64| {
        format!("is not used: it has {bytes} bytes, `agent.plugin_size` allows {}", rules.largest)
    };
    if meta.len() > rules.largest {
        return Err(too_large(meta.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(rules.largest + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > rules.largest {
        return Err(too_large(bytes.len() as u64));
    }
    let signer = if rules.trusted_keys.is_empty() {
        None
    } else {
        let signature = trust::signature_of(path);
        let text = fs::read_to_string(&signature)
            .map_err(|error| format!("is not used: its signature `{}`: {error}", signature.display()))?;
        let signed = trust::signer(&bytes, &text, &rules.trusted_keys);
        Some(signed.map_err(|why| format!("is not used: {why}"))?)
    };
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = name(&bytes, stem)?;
    Ok(ComponentFile { sha256: sha256(&bytes), bytes, name, signer })
}

fn name(bytes: &[u8], stem: String) -> Result<String, String> {
    section::kind_of(bytes)?;
    let name = match section::read(bytes)? {
        Some(text) => {
            let wrong = |faults| format!("has a manifest that is wrong:\n{faults}");
            Manifest::parse(&text).map_err(wrong)?.name
        }
        None => stem,
    };
    match name_fault(&name) {
        Some(fault) => Err(format!("is not used: {fault}")),
        None => Ok(name),
    }
}

/// Lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
