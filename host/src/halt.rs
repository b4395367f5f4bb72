//! Remembers on disk that a handler is halted, so that a restart does not undo what only a person,
//! or a changed configuration, may; and asks for the settings anew.
//!
//! Uses: `config`, `data_dir`, `secrets`.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Place;
use crate::config::manifest::Manifest;
use crate::config::settings::{Setting, Settings, SystemSecrets, resolve};
use crate::data_dir::replace_private;
use crate::sample::Millis;
use crate::secrets::Secrets;

/// One handler's halt. With no path it is forgotten with the process.
#[derive(Debug, Default)]
pub struct HaltFile {
    path: Option<PathBuf>,
    /// Something of this installation, so that nobody can look a secret's fingerprint up.
    salt: String,
    /// The component's hash.
    plugin: String,
    /// Of what the handler was told; another one lifts the halt.
    fingerprint: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// By the wall clock.
    since: Millis,
    reason: String,
    fingerprint: String,
}

impl HaltFile {
    /// `salt`: the agent's id. `plugin`: the component's hash.
    pub fn new(path: PathBuf, salt: &str, plugin: &str, settings: &[Setting]) -> Self {
        let (salt, plugin) = (salt.to_owned(), plugin.to_owned());
        let mut file = Self { path: Some(path), salt, plugin, fingerprint: String::new() };
        file.told(settings);
        file
    }

    /// The handler is told something else from now on.
    pub fn told(&mut self, settings: &[Setting]) {
        self.fingerprint = fingerprint(&self.salt, &self.plugin, settings);
    }

    /// The reason, if the handler was halted when the agent ended and nothing has changed since.
    pub fn read(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot tell whether the handler was halted");
                }
                return None;
            }
        };
        // A file that says nothing halts nobody: the receiver will.
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        if kept.fingerprint != self.fingerprint {
            self.lift();
            return None;
        }
        Some(kept.reason)
    }

    /// `reason` must hold no secrets.
    pub fn write(&self, since: Millis, reason: &str) {
        let Some(path) = &self.path else { return };
        let kept = Kept { since, reason: reason.to_owned(), fingerprint: self.fingerprint.clone() };
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| replace_private(path, &serde_json::to_vec(&kept).map_err(std::io::Error::other)?));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the halt will not survive a restart");
        }
    }

    pub fn lift(&self) {
        if let Some(path) = &self.path {
            // One that stays speaks of a halt that the receiver will renew or that `resume` lifts.
            drop(fs::remove_file(path));
        }
    }
}

/// A table's settings as they are each time they are read: files that they name may change.
#[derive(Debug)]
pub struct SettingsSource {
    manifest: Manifest,
    given: Settings,
    place: Place,
    secrets: Secrets,
}

impl SettingsSource {
    pub fn new(manifest: Manifest, given: Settings, place: Place, secrets: Secrets) -> Self {
        Self { manifest, given, place, secrets }
    }

    /// None: they cannot be had now.
    pub fn read(&self) -> Option<Vec<Setting>> {
        let settings = resolve(&self.manifest, &self.given, &self.place, &SystemSecrets).ok()?;
        settings.iter().filter_map(Setting::secret).for_each(|text| self.secrets.add(text));
        Some(settings)
    }
}

fn fingerprint(salt: &str, plugin: &str, settings: &[Setting]) -> String {
    let mut hash = Sha256::new();
    for text in [salt, plugin] {
        hash.update(text);
        hash.update([0]);
    }
    for Setting { key, value, .. } in settings {
        hash.update(format!("{key}={value:?}\0"));
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SettingValue;

    fn file(dir: &std::path::Path, key: &str) -> HaltFile {
        let value = SettingValue::Text(key.to_owned());
        let setting = Setting { key: "api_key".to_owned(), value, secret: true };
        HaltFile::new(dir.join("metricly/halt"), "salt", "sha", &[setting])
    }

    #[test]
    fn a_halt_lasts_until_it_is_lifted_or_a_setting_changes() {
        let dir = std::env::temp_dir().join(format!("kimberlite-halt-{}", std::process::id()));
        assert_eq!(file(&dir, "old").read(), None);
        file(&dir, "old").write(5, "wrong key");
        assert_eq!(file(&dir, "old").read().as_deref(), Some("wrong key"));
        assert_eq!(file(&dir, "new").read(), None);
        assert_eq!(file(&dir, "old").read(), None, "the change has lifted it for good");
        file(&dir, "old").write(5, "wrong key");
        file(&dir, "old").lift();
        assert_eq!(file(&dir, "old").read(), None);
        fs::create_dir_all(dir.join("metricly")).unwrap();
        fs::write(dir.join("metricly/halt"), "half a fi").unwrap();
        assert_eq!(file(&dir, "old").read(), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
