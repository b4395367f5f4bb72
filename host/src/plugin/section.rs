//! The manifest inside a component: a custom section of the component, or of a module in it.

use std::borrow::Cow;
use std::ops::Range;

use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Encoding, Parser, Payload};

/// The section's name.
pub const SECTION: &str = "kimberlite:manifest";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasm {
    Component,
    /// A core module: what `wasm32-unknown-unknown` and a missing `wasip2` produce.
    Module,
}

/// Tells components from modules; everything else is an error in words.
pub fn kind_of(bytes: &[u8]) -> Result<Wasm, String> {
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version { encoding: Encoding::Component, .. })) => Ok(Wasm::Component),
        Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) => Ok(Wasm::Module),
        _ => Err("is not WebAssembly".to_owned()),
    }
}

/// The manifest's text; none: there is none. The outermost section wins; two at one level are an
/// error.
pub fn read(bytes: &[u8]) -> Result<Option<String>, String> {
    let mut depth = 0_usize;
    let mut found: Option<(usize, &[u8])> = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| format!("is not a whole WebAssembly file: {error}"))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == SECTION => match found {
                Some((at, _)) if at == depth => {
                    return Err(format!("has two `{SECTION}` sections at one level"));
                }
                Some((at, _)) if at < depth => {}
                _ => found = Some((depth, section.data())),
            },
            _ => {}
        }
    }
    match found {
        Some((_, data)) => match std::str::from_utf8(data) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(format!("has a `{SECTION}` section that is not UTF-8")),
        },
        None => Ok(None),
    }
}

/// The component with `manifest` in it, without an older one, and without the names that a
/// linker leaves at the top (a tenth of a small plugin).
pub fn embed(bytes: &[u8], manifest: &str) -> Result<Vec<u8>, String> {
    match kind_of(bytes)? {
        Wasm::Component => {}
        Wasm::Module => return Err("is a core module, not a component".to_owned()),
    }
    let mut out = Vec::with_capacity(bytes.len() + manifest.len() + 64);
    let mut kept_to = 0;
    for cut in top_level_customs(bytes)? {
        out.extend_from_slice(&bytes[kept_to..cut.start]);
        kept_to = cut.end;
    }
    out.extend_from_slice(&bytes[kept_to..]);
    CustomSection { name: SECTION.into(), data: Cow::Borrowed(manifest.as_bytes()) }
        .append_to_component(&mut out);
    Ok(out)
}

/// Where the manifest and the names lie at the top level, id and length included.
fn top_level_customs(bytes: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let mut depth = 0_usize;
    let mut previous_end = 8;
    let mut cuts = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| format!("is not a whole WebAssembly file: {error}"))?;
        let section = payload.as_section().map(|(_, range)| range);
        if depth == 0 {
            if let Payload::CustomSection(custom) = &payload
                && (custom.name() == SECTION || custom.name() == "component-name")
            {
                cuts.push(previous_end..custom.range().end);
            }
            if let Some(range) = &section {
                previous_end = range.end;
            }
        }
        match payload {
            Payload::ModuleSection { unchecked_range: range, .. }
            | Payload::ComponentSection { unchecked_range: range, .. } => {
                if depth == 0 {
                    previous_end = range.end;
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{Component, Module, ModuleSection};

    fn custom(text: &str) -> CustomSection<'_> {
        CustomSection { name: SECTION.into(), data: Cow::Borrowed(text.as_bytes()) }
    }

    fn nested(inner: Option<&str>, outer: &[&str]) -> Vec<u8> {
        let mut module = Module::new();
        if let Some(text) = inner {
            module.section(&custom(text));
        }
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        for text in outer {
            component.section(&custom(text));
        }
        component.finish()
    }

    #[test]
    fn a_manifest_in_the_module_inside_is_found() {
        assert_eq!(read(&nested(Some("inner"), &[])).unwrap().as_deref(), Some("inner"));
        assert_eq!(read(&nested(None, &[])).unwrap(), None);
    }

    #[test]
    fn the_outermost_manifest_wins() {
        assert_eq!(read(&nested(Some("inner"), &["outer"])).unwrap().as_deref(), Some("outer"));
    }

    #[test]
    fn two_at_one_level_are_an_error() {
        assert!(read(&nested(None, &["a", "b"])).unwrap_err().contains("two"));
    }

    #[test]
    fn embedding_replaces_what_was_there() {
        let once = embed(&nested(Some("inner"), &[]), "first").unwrap();
        let twice = embed(&once, "second").unwrap();
        assert_eq!(read(&twice).unwrap().as_deref(), Some("second"));
        assert_eq!(twice.len(), once.len() + "second".len() - "first".len());
        assert_eq!(read(&embed(&nested(None, &["a", "b"]), "c").unwrap()).unwrap().as_deref(), Some("c"));
    }

    #[test]
    fn what_is_no_component_is_said_in_words() {
        assert_eq!(kind_of(b"").unwrap_err(), "is empty");
        assert_eq!(kind_of(b"#!/bin/sh\n").unwrap_err(), "is not WebAssembly");
        assert_eq!(kind_of(&Module::new().finish()).unwrap(), Wasm::Module);
        assert!(embed(&Module::new().finish(), "x").unwrap_err().contains("core module"));
    }
}
