//! Units of data as Diamond counts them: a prefix stands for 1024 of the unit below, for bits and
//! bytes alike, and 8 bits are a byte.

use kimberlite_plugin_sdk::{Error, Result, Settings};

/// A unit that amounts of data are published in.
#[derive(Debug, Clone, PartialEq)]
pub struct ByteUnit {
    /// As the operator wrote it: part of metric names.
    pub name: String,
    /// How many of it a byte is.
    pub per_byte: f64,
}

impl ByteUnit {
    /// The units of the setting `byte_unit`, in its order; an error that names the setting if one is
    /// unknown.
    pub fn listed(settings: &Settings) -> Result<Vec<Self>> {
        settings.require::<&[String]>("byte_unit")?.iter().map(|name| Self::named(name)).collect()
    }

    fn named(name: &str) -> Result<Self> {
        let per_byte = per_byte(name).ok_or_else(|| {
            let known = "bit, byte, kilobit, kilobyte (kB, KiB), megabit … yottabyte";
            Error::setting("byte_unit", format!("\"{name}\" is no unit of data; there are {known}"))
        })?;
        Ok(Self { name: name.to_owned(), per_byte })
    }
}

fn per_byte(name: &str) -> Option<f64> {
    /// Long, short, and short with the binary `i`; each 1024 of the one before.
    const PREFIXES: [[&str; 3]; 8] = [
        ["kilo", "k", "Ki"],
        ["mega", "M", "Mi"],
        ["giga", "G", "Gi"],
        ["tera", "T", "Ti"],
        ["peta", "P", "Pi"],
        ["exa", "E", "Ei"],
        ["zetta", "Z", "Zi"],
        ["yotta", "Y", "Yi"],
    ];
    match name {
        "bit" | "b" => return Some(8.0),
        "byte" | "B" => return Some(1.0),
        _ => {}
    }
    let mut size = 1.0;
    for prefixes in PREFIXES {
        size *= 1024.0;
        for prefix in prefixes {
            match name.strip_prefix(prefix) {
                Some("bit") => return Some(8.0 / size),
                Some("byte" | "B") => return Some(1.0 / size),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Result<Vec<f64>> {
        let settings = Settings::new().with("byte_unit", names.to_vec());
        Ok(ByteUnit::listed(&settings)?.into_iter().map(|unit| unit.per_byte).collect())
    }

    #[test]
    fn prefixes_are_powers_of_1024_for_bits_and_bytes() {
        assert_eq!(listed(&["byte", "B", "bit", "b"]), Ok(vec![1.0, 1.0, 8.0, 8.0]));
        assert_eq!(listed(&["kilobyte", "kB", "KiB"]), Ok(vec![1.0 / 1024.0; 3]));
        assert_eq!(listed(&["kilobit", "kbit", "Kibit"]), Ok(vec![8.0 / 1024.0; 3]));
        assert_eq!(listed(&["megabyte", "Mbyte", "MB", "MiB"]), Ok(vec![0.5f64.powi(20); 4]));
        assert_eq!(listed(&["gigabit", "TiB"]), Ok(vec![0.5f64.powi(27), 0.5f64.powi(40)]));
        assert_eq!(listed(&["yottabyte"]), Ok(vec![0.5f64.powi(80)]));
    }

    #[test]
    fn unknown_unit_is_a_fault_of_the_setting() {
        for name in ["", "parsec", "kilo", "KB ", "mbyte"] {
            let error = listed(&["byte", name]).unwrap_err();
            assert_eq!(error.setting_key(), Some("byte_unit"), "{name}");
        }
    }
}
