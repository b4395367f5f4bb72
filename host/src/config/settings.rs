//! A plugin's settings: what the operator gave, what the manifest declares, and what comes of both.
//!
//! ```text
//! settings = { … } ──▶ Settings ─┐
//! --set key=value  ──▶ Given ────┼─ resolve ──▶ Vec<Setting> ──▶ the plugin's init
//! [settings.KEY]   ──▶ Manifest ─┘                 └─ `secret`: to be scrubbed from all that is written
//! ```
//!
//! Uses: `manifest`, `reader`.

use std::fmt;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::fault::{Fault, Faults, Place, nearest};
use super::manifest::{Manifest, SettingSpec, SettingType};
use super::reader::{Reader, beside, wrong};
use super::tree::{Node, Value};

/// What the operator gave, by flat key: `tls.verify`.
pub type Settings = IndexMap<String, Given>;

/// One given setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub value: GivenValue,
    pub place: Place,
}

/// A value as the operator wrote it, or where it is to be found.
#[derive(Clone, PartialEq)]
pub enum GivenValue {
    Text(String),
    Whole(i64),
    Number(f64),
    Boolean(bool),
    Texts(Vec<String>),
    /// A secret: the first line of this file.
    File(PathBuf),
    /// A secret: the value of this environment variable.
    Env(String),
}

impl fmt::Debug for GivenValue {
    /// Without texts: one of them may be a secret, which only the manifest could tell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::Texts(texts) => write!(f, "Texts({} …)", texts.len()),
            Self::Whole(number) => write!(f, "Whole({number})"),
            Self::Number(number) => write!(f, "Number({number})"),
            Self::Boolean(value) => write!(f, "Boolean({value})"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Env(name) => write!(f, "Env({name})"),
        }
    }
}

/// One setting as the plugin gets it.
#[derive(Clone, PartialEq)]
pub struct Setting {
    pub key: String,
    pub value: SettingValue,
    /// Never to be written anywhere.
    pub secret: bool,
}

impl Setting {
    /// What nobody may read, if it is that.
    pub fn secret(&self) -> Option<&str> {
        match &self.value {
            SettingValue::Text(text) if self.secret => Some(text),
            _ => None,
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secret {
            true => write!(f, "{} = [secret]", self.key),
            false => write!(f, "{} = {:?}", self.key, self.value),
        }
    }
}

/// As in the contract: durations and sizes are texts.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    Text(String),
    Whole(i64),
    Number(f64),
    Boolean(bool),
    Texts(Vec<String>),
}

/// Where secrets come from.
pub trait SecretSource {
    fn file(&self, path: &Path) -> std::io::Result<String>;
    fn env(&self, name: &str) -> Option<String>;
}

/// Files and environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct SystemSecrets;

impl SecretSource for SystemSecrets {
    fn file(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Fills in defaults, checks types, fetches secrets. The order is the manifest's. `place` is that
/// of the plugin's table. A plugin without a manifest gets what was given.
pub fn resolve(
    manifest: &Manifest,
    given: &Settings,
    place: &Place,
    secrets: &dyn SecretSource,
) -> Result<Vec<Setting>, Faults> {
    let mut faults = Vec::new();
    let mut settings = Vec::new();
    if manifest.is_bare {
        for (key, given) in given {
            match bare(&given.value, secrets) {
                Ok((value, secret)) => settings.push(Setting { key: key.clone(), value, secret }),
                Err(error) => faults.push(Fault::new(format!("setting `{key}`: {error}")).at(&given.place)),
            }
        }
        return Faults::none_or(faults, settings);
    }
    for (key, spec) in &manifest.settings {
        match given.get(key) {
            Some(given) => match typed(key, spec, &given.value, secrets) {
                Ok(value) => settings.push(Setting {
                    key: key.clone(),
                    value,
                    secret: spec.kind == SettingType::Secret,
                }),
                Err(fault) => faults.push(fault.at(&given.place)),
            },
            None if spec.required => {
                let message = format!("{} `{}` needs the setting `{key}`", manifest.kind, manifest.name);
                let hint = format!("add to its settings: `{}`", spec.example_line(key));
                faults.push(Fault::new(message).at(place).hint(hint));
            }
            None => settings.extend(spec.default.clone().map(|value| Setting {
                key: key.clone(),
                value,
                secret: false,
            })),
        }
    }
    for (key, given) in given.iter().filter(|(key, _)| !manifest.settings.contains_key(*key)) {
        let message = format!("{} `{}` has no setting `{key}`", manifest.kind, manifest.name);
        let hint = nearest(key, manifest.settings.keys().map(String::as_str));
        faults.push(Fault::new(message).at(&given.place).hint(hint));
    }
    Faults::none_or(faults, settings)
}

/// The value of a `--set` flag, `key=value`, read as the setting's type asks; lists are separated
/// by commas. Whether it fits is for [`resolve`] to say.
pub fn flag(manifest: &Manifest, text: &str) -> Result<(String, Given), Fault> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(
            Fault::new(format!("`--set {text}` has no value")).hint(format!("write `--set {text}=VALUE`"))
        );
    };
    let plain = || GivenValue::Text(value.to_owned());
    let value = match manifest.settings.get(key).map(|spec| spec.kind) {
        Some(SettingType::Whole) => value.parse().map_or_else(|_| plain(), GivenValue::Whole),
        Some(SettingType::Number) => value.parse().map_or_else(|_| plain(), GivenValue::Number),
        Some(SettingType::Boolean) => value.parse().map_or_else(|_| plain(), GivenValue::Boolean),
        Some(SettingType::Texts) => {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            GivenValue::Texts(items.map(str::to_owned).collect())
        }
        Some(_) => plain(),
        None => guess(value),
    };
    let place = Place::file(Path::new(&format!("--set {key}")));
    Ok((key.to_owned(), Given { value, place }))
}

/// What a text most likely is, where no manifest says it.
fn guess(text: &str) -> GivenValue {
    let number = || text.parse().ok().filter(|number: &f64| number.is_finite()).map(GivenValue::Number);
    let whole = text.parse().ok().map(GivenValue::Whole);
    let boolean = text.parse().ok().map(GivenValue::Boolean);
    boolean.or(whole).or_else(number).unwrap_or_else(|| GivenValue::Text(text.to_owned()))
}

/// The value a plugin without a manifest gets, and whether it is a secret.
fn bare(value: &GivenValue, secrets: &dyn SecretSource) -> Result<(SettingValue, bool), String> {
    if let Some(secret) = fetched(value, secrets) {
        return Ok((SettingValue::Text(secret?), true));
    }
    plain(value).map(|value| (value, false)).ok_or_else(|| "has no value".to_owned())
}

/// `value` as `spec` wants it. The fault has no place yet.
fn typed(
    key: &str,
    spec: &SettingSpec,
    value: &GivenValue,
    secrets: &dyn SecretSource,
) -> Result<SettingValue, Fault> {
    let is_secret = spec.kind == SettingType::Secret;
    match fetched(value, secrets) {
        Some(secret) if is_secret => {
            let secret = secret.map_err(|error| Fault::new(format!("setting `{key}`: {error}")))?;
            return Ok(SettingValue::Text(secret));
        }
        Some(_) => {
            let message = format!("setting `{key}` is no secret, so it comes from no file or variable");
            return Err(Fault::new(message).hint("write its value, or `\"${VAR}\"`"));
        }
        None => {}
    }
    let Some(found) = spec.kind.accept(value) else {
        let shown = if is_secret { value.kind().to_owned() } else { format!("`{value}`") };
        let fault = Fault::new(format!("setting `{key}` must be {}, not {shown}", spec.kind.wanted()));
        let unquoted = match value {
            GivenValue::Text(text) => Some(guess(text)),
            _ => None,
        };
        return Err(match unquoted.filter(|meant| spec.kind.accept(meant).is_some()) {
            Some(meant) => fault.hint(format!("write it without quotes: `{key} = {meant}`")),
            None => fault,
        });
    };
    match &found {
        SettingValue::Text(text) if !spec.choices.is_empty() && !spec.choices.contains(text) => {
            let choices = spec.choices.join("`, `");
            let fault = Fault::new(format!("setting `{key}` must be one of `{choices}`, not `{text}`"));
            Err(fault.hint(nearest(text, spec.choices.iter().map(String::as_str))))
        }
        SettingValue::Text(text) if is_secret && text.trim().is_empty() => {
            Err(Fault::new(format!("setting `{key}` is an empty secret")))
        }
        _ => Ok(found),
    }
}

/// The secret that a value points to; none if it points nowhere.
fn fetched(value: &GivenValue, secrets: &dyn SecretSource) -> Option<Result<String, String>> {
    let (text, origin) = match value {
        GivenValue::File(path) => {
            let origin = format!("the file `{}`", path.display());
            match secrets.file(path) {
                Ok(text) => (text, origin),
                Err(error) => return Some(Err(format!("cannot read {origin}: {error}"))),
            }
        }
        GivenValue::Env(name) => {
            let origin = format!("the environment variable `{name}`");
            match secrets.env(name) {
                Some(text) => (text, origin),
                None => return Some(Err(format!("{origin} is not set"))),
            }
        }
        _ => return None,
    };
    let line = text.lines().next().unwrap_or_default().trim();
    Some(if line.is_empty() { Err(format!("{origin} is empty")) } else { Ok(line.to_owned()) })
}

/// The value itself; none of a secret's source.
pub(super) fn plain(value: &GivenValue) -> Option<SettingValue> {
    Some(match value {
        GivenValue::Text(text) => SettingValue::Text(text.clone()),
        GivenValue::Whole(number) => SettingValue::Whole(*number),
        GivenValue::Number(number) => SettingValue::Number(*number),
        GivenValue::Boolean(value) => SettingValue::Boolean(*value),
        GivenValue::Texts(texts) => SettingValue::Texts(texts.clone()),
        GivenValue::File(_) | GivenValue::Env(_) => return None,
    })
}

impl GivenValue {
    /// What it is, without saying it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Whole(_) => "a whole number",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "`true` or `false`",
            Self::Texts(_) => "a list",
            Self::File(_) | Self::Env(_) => "a secret",
        }
    }
}

impl fmt::Display for GivenValue {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &String| toml::Value::from(text.as_str()).to_string();
        match self {
            Self::Text(value) => f.write_str(&text(value)),
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::Texts(texts) => write!(f, "[{}]", texts.iter().map(text).collect::<Vec<_>>().join(", ")),
            Self::File(path) => write!(f, "{{ file = {:?} }}", path.display().to_string()),
            Self::Env(name) => write!(f, "{{ env = {name:?} }}"),
        }
    }
}

/// Reads `settings = { … }`. Tables inside become dotted keys, save those that say where a secret
/// is: `{ file = "…" }` and `{ env = "…" }`.
pub(super) fn given(table: &mut Reader<'_>) -> Settings {
    let mut settings = Settings::default();
    flatten("", table, &mut settings);
    settings
}

fn flatten(prefix: &str, table: &mut Reader<'_>, settings: &mut Settings) {
    for (name, node) in table.rest() {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if let Some(value) = given_value(&node) {
            if settings.contains_key(&key) {
                table.report(Fault::new(format!("setting `{key}` stands twice")).at(&node.place));
            }
            settings.insert(key, Given { value, place: node.place });
        } else if matches!(node.value, Value::Table(_)) {
            table.within(&key, node, |inner| flatten(&key, inner, settings));
        } else if !node.value.is_faulty() {
            table.report(wrong(&key, "a text, a number, `true`, `false` or a list of texts", &node));
        }
    }
}

/// The value of a node; none if it is none, or a table that is not a secret's source.
pub(super) fn given_value(node: &Node) -> Option<GivenValue> {
    let text = |node: &Node| match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    match &node.value {
        Value::Text(text) => Some(GivenValue::Text(text.clone())),
        Value::Whole(number) => Some(GivenValue::Whole(*number)),
        Value::Number(number) => Some(GivenValue::Number(*number)).filter(|_| number.is_finite()),
        Value::Boolean(value) => Some(GivenValue::Boolean(*value)),
        Value::List(items) => items.iter().map(text).collect::<Option<_>>().map(GivenValue::Texts),
        Value::Table(entries) if entries.len() == 1 => match entries.first()? {
            (key, source) if key == "file" => {
                Some(GivenValue::File(beside(&source.place.file, &text(source)?)))
            }
            (key, source) if key == "env" => text(source).map(GivenValue::Env),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::Config;

    struct Vault;

    impl SecretSource for Vault {
        fn file(&self, path: &Path) -> io::Result<String> {
            match path.to_str() {
                Some("/run/key") => Ok("  from-file \nsecond line\n".to_owned()),
                Some("/run/empty") => Ok("\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn env(&self, name: &str) -> Option<String> {
            (name == "KEY").then(|| "from-env".to_owned())
        }
    }

    fn manifest() -> Manifest {
        Manifest::parse(
            r#"
            name = "graphite"
            kind = "handler"
            version = "0.1.0"
            [settings.host]
            type = "text"
            required = true
            example = "10.0.0.7"
            [settings.port]
            type = "whole"
            default = 2003
            [settings.proto]
            type = "text"
            default = "tcp"
            choices = ["tcp", "udp"]
            [settings.key]
            type = "secret"
            [settings.tls.verify]
            type = "boolean"
            [settings.ratio]
            type = "number"
            [settings.names]
            type = "texts"
            [settings.timeout]
            type = "duration"
            [settings.buffer]
            type = "size"
            "#,
        )
        .unwrap()
    }

    fn settings(toml: &str) -> Settings {
        let file = PathBuf::from("/k.toml");
        let mut config = Config::parse(&[(file, format!("[handlers.g]\n{toml}"))], &|_| None).unwrap();
        config.handlers.swap_remove("g").unwrap().plugin.settings
    }

    fn resolved(toml: &str) -> Result<Vec<Setting>, String> {
        let place = Place { file: Path::new("/k.toml").into(), line: 1, table: "handlers.g".to_owned() };
        resolve(&manifest(), &settings(toml), &place, &Vault).map_err(|faults| faults.to_string())
    }

    fn values(settings: &[Setting]) -> Vec<(&str, SettingValue)> {
        settings.iter().map(|setting| (setting.key.as_str(), setting.value.clone())).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_types_are_the_manifests() {
        let text = |text: &str| SettingValue::Text(text.to_owned());
        assert_eq!(
            values(&resolved("settings = { host = \"h\" }").unwrap()),
            [("host", text("h")), ("port", SettingValue::Whole(2003)), ("proto", text("tcp"))]
        );
        let all = "settings = { host = 'h', port = 1, proto = 'udp', tls = { verify = false }, ratio = 2, \
                   names = ['a', 'b'], timeout = '1m 30s', buffer = '64KiB' }";
        assert_eq!(
            values(&resolved(all).unwrap())[3..],
            [
                ("tls.verify", SettingValue::Boolean(false)),
                ("ratio", SettingValue::Number(2.0)),
                ("names", SettingValue::Texts(vec!["a".to_owned(), "b".to_owned()])),
                ("timeout", text("1m 30s")),
                ("buffer", text("64KiB")),
            ]
        );
    }

    #[test]
    fn secrets_come_literally_from_files_or_variables_and_are_marked() {
        for (source, value) in [
            ("'literal'", "literal"),
            ("{ file = '/run/key' }", "from-file"),
            ("{ env = 'KEY' }", "from-env"),
        ] {
            let settings = resolved(&format!("settings = {{ host = 'h', key = {source} }}")).unwrap();
            let key = settings.iter().find(|setting| setting.key == "key").unwrap();
            assert_eq!((&key.value, key.secret), (&SettingValue::Text(value.to_owned()), true));
            assert!(!format!("{settings:?}").contains(value));
        }
        assert!(!resolved("settings.host = 'h'").unwrap()[0].secret);
    }

    #[test]
    fn what_does_not_fit_is_named_and_no_secret_is_shown() {
        for (toml, fault) in [
            (
                "",
                "handler `graphite` needs the setting `host`\n  /k.toml:1  [handlers.g]\n  hint: add to its settings: `host = \"10.0.0.7\"`",
            ),
            (
                "[handlers.g.settings]\nhost = 'h'\nprot = 'udp'",
                "handler `graphite` has no setting `prot`\n  /k.toml:4  [handlers.g.settings]\n  hint: did you mean `port`?",
            ),
            ("settings = { host = 5 }", "setting `host` must be a text, not `5`\n  /k.toml:2"),
            (
                "settings = { host = 'h', port = '1' }",
                "setting `port` must be a whole number, not `\"1\"`\n  /k.toml:2  [handlers.g.settings]\n  hint: write it without quotes: `port = 1`",
            ),
            (
                "settings = { host = 'h', proto = 'tpc' }",
                "setting `proto` must be one of `tcp`, `udp`, not `tpc`\n  /k.toml:2  [handlers.g.settings]\n  hint: did you mean `tcp`?",
            ),
            (
                "settings = { host = 'h', timeout = '5 parsecs' }",
                "must be a duration such as `\"30s\"`, not `\"5 parsecs\"`",
            ),
            ("settings = { host = 'h', buffer = 'x' }", "must be a size such as"),
            ("settings = { host = { env = 'KEY' } }", "setting `host` is no secret"),
            (
                "settings = { host = 'h', key = ['hidden'] }",
                "setting `key` must be a text, `{ file = \"…\" }` or `{ env = \"…\" }`, not a list",
            ),
            ("settings = { host = 'h', key = ' ' }", "setting `key` is an empty secret"),
            (
                "settings = { host = 'h', key = { file = '/run/empty' } }",
                "setting `key`: the file `/run/empty` is empty",
            ),
            (
                "settings = { host = 'h', key = { file = '/run/none' } }",
                "setting `key`: cannot read the file `/run/none`: ",
            ),
            (
                "settings = { host = 'h', key = { env = 'NONE' } }",
                "setting `key`: the environment variable `NONE` is not set",
            ),
        ] {
            let faults = resolved(toml).unwrap_err();
            assert!(faults.contains(fault), "{toml}: {faults}");
            assert!(!faults.contains("hidden"), "{faults}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let faults = resolved("settings = { port = true, colour = 'red' }").unwrap_err();
        assert_eq!(faults.matches("error:").count(), 3, "{faults}");
    }

    #[test]
    fn a_flag_is_read_as_the_settings_type_asks() {
        let value = |text: &str| flag(&manifest(), text).unwrap().1.value;
        assert_eq!(value("port=9"), GivenValue::Whole(9));
        assert_eq!(value("host=9"), GivenValue::Text("9".to_owned()));
        assert_eq!(value("tls.verify=true"), GivenValue::Boolean(true));
        assert_eq!(value("ratio=0.5"), GivenValue::Number(0.5));
        assert_eq!(value("names=a, b,"), GivenValue::Texts(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(value("key=a=b"), GivenValue::Text("a=b".to_owned()));
        assert_eq!(value("port=nine"), GivenValue::Text("nine".to_owned()));
        assert!(flag(&manifest(), "port").is_err());

        let mut given = settings("settings.host = 'h'");
        given.extend([flag(&manifest(), "port=nine").unwrap()]);
        let place = Place::file(Path::new("k.toml"));
        let faults = resolve(&manifest(), &given, &place, &Vault).unwrap_err().to_string();
        assert!(faults.contains("not `\"nine\"`\n  --set port"), "{faults}");
    }

    #[test]
    fn a_plugin_without_a_manifest_gets_what_was_given() {
        let bare = Manifest::bare("x", crate::config::manifest::PluginKind::Handler);
        let mut given = settings("settings = { a = 1, key = { env = 'KEY' } }");
        for text in ["b=true", "c=1.5", "d=x,y", "e=inf"] {
            given.extend([flag(&bare, text).unwrap()]);
        }
        let settings = resolve(&bare, &given, &Place::file(Path::new("k.toml")), &Vault).unwrap();
        let text = |text: &str| SettingValue::Text(text.to_owned());
        assert_eq!(
            values(&settings),
            [
                ("a", SettingValue::Whole(1)),
                ("key", text("from-env")),
                ("b", SettingValue::Boolean(true)),
                ("c", SettingValue::Number(1.5)),
                ("d", text("x,y")),
                ("e", text("inf")),
            ]
        );
        assert!(settings[1].secret && !settings[0].secret);
    }
}
