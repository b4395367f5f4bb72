//! Does a component speak our interface? Looked at before anything of it runs, because the
//! linker's lookup ignores patch versions and types, and its messages help no author.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type};

use crate::config::manifest::PluginKind;

/// What this host speaks.
pub const VERSION: &str = "0.1";

const PACKAGE: &str = "kimberlite:plugin/";

/// What a component exports of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    pub kind: PluginKind,
    /// As the component names it: `0.1.3`.
    pub version: String,
    /// It can be asked about its heap.
    pub diagnostics: bool,
}

/// Reads kind and version off the names of the component's exports.
pub fn exports(component: &Component, engine: &Engine) -> Result<Exports, String> {
    let mut found: Option<(PluginKind, String)> = None;
    let mut diagnostics = false;
    let mut names = Vec::new();
    for (name, _) in component.component_type().exports(engine) {
        names.push(name.to_owned());
        let Some((interface, version)) = name.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@'))
        else {
            continue;
        };
        let kind = match interface {
            "collector" => PluginKind::Collector,
            "handler" => PluginKind::Handler,
            "diagnostics" => {
                diagnostics = true;
                continue;
            }
            _ => continue,
        };
        if found.is_some() {
            return Err("exports more than one of collector and handler; a plugin is one of them".to_owned());
        }
        found = Some((kind, version.to_owned()));
    }
    let Some((kind, version)) = found else {
        let seen = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        return Err(format!(
            "exports neither `{PACKAGE}collector` nor `{PACKAGE}handler` (it exports {seen}); \
             build it against the worlds of kimberlite:plugin@{VERSION}"
        ));
    };
    let mut numbers = version.split('.');
    if (numbers.next(), numbers.next()) != (Some("0"), Some("1")) {
        return Err(format!(
            "speaks kimberlite:plugin@{version}, this agent speaks @{VERSION}: rebuild it with \
             the SDK of this agent's version"
        ));
    }
    Ok(Exports { kind, version, diagnostics })
}

/// What an interface of `component` has that differs from `reference`, item by item
/// (`collect result.ok.heap: missing`). Empty: nothing.
pub fn differences(
    component: &Component,
    reference: &Component,
    engine: &Engine,
    interface: &str,
) -> Vec<String> {
    let (Some(theirs), Some(ours)) =
        (instance(component, engine, interface), instance(reference, engine, interface))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, item) in ours.exports(engine) {
        let ComponentItem::ComponentFunc(wanted) = item.ty else { continue };
        match theirs.exports(engine).find(|(other, _)| *other == name).map(|(_, item)| item.ty) {
            Some(ComponentItem::ComponentFunc(given)) => function(name, &given, &wanted, &mut found),
            _ => found.push(format!("{name}: missing")),
        }
    }
    found
}

fn instance(component: &Component, engine: &Engine, interface: &str) -> Option<ComponentInstance> {
    let prefix = format!("{PACKAGE}{interface}@");
    component.component_type().exports(engine).find_map(|(name, item)| match item.ty {
        ComponentItem::ComponentInstance(instance) if name.starts_with(&prefix) => Some(instance),
        _ => None,
    })
}

fn function(name: &str, given: &ComponentFunc, wanted: &ComponentFunc, found: &mut Vec<String>) {
    let given_params: Vec<_> = given.params().collect();
    let wanted_params: Vec<_> = wanted.params().collect();
    if given_params.len() != wanted_params.len() {
        found.push(format!("{name}: takes {} values, not {}", given_params.len(), wanted_params.len()));
    }
    for ((_, given), (param, wanted)) in given_params.iter().zip(&wanted_params) {
        types(&format!("{name} {param}"), given, wanted, found);
    }
    for (given, wanted) in given.results().zip(wanted.results()) {
        types(&format!("{name} result"), &given, &wanted, found);
    }
}

fn types(path: &str, given: &Type, wanted: &Type, found: &mut Vec<String>) {
    if given == wanted {
        return;
    }
    match (given, wanted) {
        (Type::Record(given), Type::Record(wanted)) => members(
            path,
            given.fields().map(|field| (field.name, Some(field.ty))).collect(),
            wanted.fields().map(|field| (field.name, Some(field.ty))).collect(),
            found,
        ),
        (Type::Variant(given), Type::Variant(wanted)) => members(
            path,
            given.cases().map(|case| (case.name, case.ty)).collect(),
            wanted.cases().map(|case| (case.name, case.ty)).collect(),
            found,
        ),
        (Type::Enum(given), Type::Enum(wanted)) => members(
            path,
            given.names().map(|name| (name, None)).collect(),
            wanted.names().map(|name| (name, None)).collect(),
            found,
        ),
        (Type::List(given), Type::List(wanted)) => {
            types(&format!("{path}[]"), &given.ty(), &wanted.ty(), found);
        }
        (Type::Option(given), Type::Option(wanted)) => {
            types(&format!("{path}?"), &given.ty(), &wanted.ty(), found);
        }
        (Type::Result(given), Type::Result(wanted)) => {
            for (side, given, wanted) in [("ok", given.ok(), wanted.ok()), ("err", given.err(), wanted.err())]
            {
                match (given, wanted) {
                    (Some(given), Some(wanted)) => types(&format!("{path}.{side}"), &given, &wanted, found),
                    (None, None) => {}
                    (None, Some(_)) => found.push(format!("{path}.{side}: missing")),
                    (Some(_), None) => found.push(format!("{path}.{side}: not in this version")),
                }
            }
        }
        (Type::Tuple(given), Type::Tuple(wanted)) if given.types().len() == wanted.types().len() => {
            for (index, (given, wanted)) in given.types().zip(wanted.types()).enumerate() {
                types(&format!("{path}.{index}"), &given, &wanted, found);
            }
        }
        _ => found.push(format!("{path}: {} instead of {}", word(given), word(wanted))),
    }
}

/// Fields or cases: first what is missing and what is too much, then what differs inside.
fn members(
    path: &str,
    given: Vec<(&str, Option<Type>)>,
    wanted: Vec<(&str, Option<Type>)>,
    found: &mut Vec<String>,
) {
    let before = found.len();
    for (name, wanted) in &wanted {
        match given.iter().find(|(other, _)| other == name) {
            None => found.push(format!("{path}.{name}: missing")),
            Some((_, given)) => match (given, wanted) {
                (Some(given), Some(wanted)) => types(&format!("{path}.{name}"), given, wanted, found),
                (None, None) => {}
                _ => found.push(format!("{path}.{name}: has another payload")),
            },
        }
    }
    for (name, _) in &given {
        if !wanted.iter().any(|(other, _)| other == name) {
            found.push(format!("{path}.{name}: not in this version"));
        }
    }
    if found.len() == before {
        found.push(format!("{path}: in another order"));
    }
}

fn word(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::S8 | Type::S16 | Type::S32 | Type::S64 => "a signed number",
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => "an unsigned number",
        Type::Float32 | Type::Float64 => "a floating-point number",
        Type::Char => "char",
        Type::String => "string",
        Type::List(_) => "list",
        Type::Record(_) => "record",
        Type::Tuple(_) => "tuple",
        Type::Variant(_) => "variant",
        Type::Enum(_) => "enum",
        Type::Option(_) => "option",
        Type::Result(_) => "result",
        Type::Flags(_) => "flags",
        Type::Own(_) | Type::Borrow(_) => "resource",
        _ => "another type",
    }
}
