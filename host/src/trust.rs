//! Whom the agent trusts with what it runs: who may change a file, and who has signed it.
//!
//! ```text
//! file, and the directory that holds it ──▶ owned by root or by us? can others write it?
//! NAME.wasm beside NAME.wasm.minisig    ──▶ signed by one of `agent.trusted_keys`?
//! ```
//!
//! Uses: nothing of kimberlite. Signatures are minisign's: <https://jedisct1.github.io/minisign/>.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};
use rustix::fs::StatVfsMountFlags;

/// Write permission of group and others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Of `/tmp` and its like.
const STICKY: u32 = 0o1000;

/// Who has signed a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The public key, as the config has it.
    pub key: String,
    /// What the signer wrote into the signature; it is signed, too.
    pub comment: String,
}

/// Whether nobody but root and this user can change the file or put another in its place. Where it
/// lies on something that is mounted read-only, nobody can. Links are followed; parents further up
/// are not judged.
pub fn check_file(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be looked at: {error}");
    let real = fs::canonicalize(path).map_err(unreadable)?;
    let holders = [Some(real.as_path()), real.parent(), path.parent()];
    for part in holders.into_iter().flatten().filter(|part| !part.as_os_str().is_empty()) {
        let meta = fs::metadata(part).map_err(unreadable)?;
        let is_read_only =
            rustix::fs::statvfs(part).is_ok_and(|mounted| mounted.f_flag.contains(StatVfsMountFlags::RDONLY));
        if is_read_only {
            continue;
        }
        let shown = part.display();
        if meta.mode() & WRITABLE_BY_OTHERS != 0 {
            let mode = meta.mode() & 0o7777;
            let remedy = match meta.mode() & STICKY {
                0 => format!("`chmod go-w {shown}` ends that"),
                // It is meant for everybody.
                _ => "move it to a directory that only root and this user can write".to_owned(),
            };
            return Err(format!("is not used: others can write `{shown}` (mode {mode:04o}); {remedy}"));
        }
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() != 0 && meta.uid() != own {
            return Err(format!(
                "is not used: `{shown}` belongs to user {}, neither root nor this agent's user {own}; \
                 `chown {own} {shown}` ends that",
                meta.uid()
            ));
        }
    }
    Ok(())
}

/// Where the signature of a file lies.
pub fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// What is wrong with a public key, if anything.
pub fn check_key(key: &str) -> Result<(), String> {
    match PublicKey::from_base64(key) {
        Ok(_) => Ok(()),
        Err(_) => Err("is no minisign public key: 56 letters and digits that begin with RW".to_owned()),
    }
}

/// Who of `keys` has signed these bytes. `signature` is the text of a `.minisig` file.
pub fn signer(bytes: &[u8], signature: &str, keys: &[String]) -> Result<Signer, String> {
    let signature =
        Signature::decode(signature).map_err(|error| format!("its signature cannot be read: {error}"))?;
    let signed = |key: &&String| {
        PublicKey::from_base64(key).is_ok_and(|key| key.verify(bytes, &signature, true).is_ok())
    };
    match keys.iter().find(signed) {
        Some(key) => Ok(Signer { key: key.clone(), comment: signature.trusted_comment().to_owned() }),
        None => {
            Err("it is not signed by any of `agent.trusted_keys`, or was changed after it was".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use kimberlite_tests::TempDir;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A directory and a file in it that nobody else can write.
    fn with_file() -> (TempDir, PathBuf) {
        let dir = TempDir::new();
        let file = PathBuf::from(dir.write("x.wasm", "x"));
        (dir, file)
    }

    #[test]
    fn what_others_can_write_is_named_with_a_remedy() {
        let (dir, file) = with_file();
        assert_eq!(check_file(&file), Ok(()));
        let remedies = ["chmod go-w", "chmod go-w", "chmod go-w", "move it to a directory"];
        let modes = [(&*file, 0o664), (&file, 0o646), (dir.path(), 0o775), (dir.path(), 0o1777)];
        for ((path, mode), remedy) in modes.into_iter().zip(remedies) {
            chmod(&file, 0o644);
            chmod(dir.path(), 0o755);
            chmod(path, mode);
            let why = check_file(&file).unwrap_err();
            assert!(why.contains(&format!("{mode:04o}")) && why.contains(remedy), "{why}");
        }
    }

    #[test]
    fn a_link_is_judged_by_both_of_its_ends() {
        let (dir, _) = with_file();
        let (other, target) = with_file();
        let link = dir.path().join("link.wasm");
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(check_file(&link), Ok(()));
        chmod(other.path(), 0o777);
        assert!(check_file(&link).is_err());
        chmod(other.path(), 0o755);
        chmod(dir.path(), 0o777);
        assert!(check_file(&link).is_err());
    }

    #[test]
    fn a_signature_is_of_one_key_and_of_these_bytes() {
        let (ours, others) = (kimberlite_tests::Minisign::new(), kimberlite_tests::Minisign::new());
        let keys = [others.public_key(), ours.public_key()];
        let signature = ours.sign(b"test");
        let signed = signer(b"test", &signature, &keys).unwrap();
        assert_eq!((signed.key.as_str(), signed.comment.as_str()), (keys[1].as_str(), "of the tests"));
        signer(b"Test", &signature, &keys).unwrap_err();
        signer(b"test", &signature, &keys[..1]).unwrap_err();
        signer(b"test", &signature, &[]).unwrap_err();
        assert!(signer(b"test", "nonsense", &keys).unwrap_err().contains("cannot be read"));
        assert_eq!(check_key(&keys[0]), Ok(()));
        check_key("RWQ").unwrap_err();
    }
}
