//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}` in a text; `$${` stands for `${`.
//!
//! Uses: nothing of kimberlite.

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `text` with its variables filled in. What they hold is not searched again. `:-` and `:?` also
/// count for a variable that is set and empty. The error is for people and shows no values.
pub(super) fn expand(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(plain) = before.strip_suffix('$') {
            filled.push_str(plain);
            filled.push_str("${");
            rest = after;
            continue;
        }
        let (inside, behind) =
            after.split_once('}').ok_or("`${` without its `}`; a plain one is written `$${`")?;
        filled.push_str(before);
        filled.push_str(&value(inside, env)?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What stands for the inside of one `${…}`.
fn value(inside: &str, env: Env<'_>) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, rule) = inside.split_at(inside.find(|c| !is_name(c)).unwrap_or(inside.len()));
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`${{{inside}}}` names no environment variable"));
    }
    let found = env(name);
    let filled = found.clone().filter(|value| !value.is_empty());
    if rule.is_empty() {
        return found.ok_or_else(|| {
            format!("environment variable `{name}` is not set; a default is written `${{{name}:-default}}`")
        });
    }
    if let Some(default) = rule.strip_prefix(":-") {
        return Ok(filled.unwrap_or_else(|| default.to_owned()));
    }
    if let Some(message) = rule.strip_prefix(":?") {
        return filled.ok_or_else(|| format!("environment variable `{name}`: {message}"));
    }
    Err(format!("`${{{inside}}}`: behind the name of the variable comes `:-default` or `:?message`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("web".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in_once() {
        for (text, filled) in [
            ("plain $5 }", "plain $5 }"),
            ("a${HOST}b${HOST}", "awebbweb"),
            ("${NESTED}", "${HOST}"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}${NONE:-y}${HOST:-z}", "xyweb"),
            ("${NONE:-}", ""),
            ("${HOST:?must be there}", "web"),
            ("$${HOST} ${HOST}", "${HOST} web"),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_says_why() {
        for (text, why) in [
            ("${NONE}", "environment variable `NONE` is not set"),
            ("${NONE:?say where}", "environment variable `NONE`: say where"),
            ("${EMPTY:?say where}", "environment variable `EMPTY`: say where"),
            ("${HOST", "without its `}`"),
            ("${}", "names no environment variable"),
            ("${1}", "names no environment variable"),
            ("${HOST-x}", "comes `:-default`"),
        ] {
            let error = expand(text, &env).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
