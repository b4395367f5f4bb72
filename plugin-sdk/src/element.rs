//! What is measured: a machine, a disk, a container.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use crate::bindings::imports::kimberlite::plugin::types as wit;
use crate::hash::Hashing;

/// What is measured: a machine, a disk, a container. A collector that measures the agent's own
/// machine needs none. Cheap to clone.
///
/// ```
/// use kimberlite_plugin_sdk::{Element, Series};
///
/// let container = Element::new("4f1c…").name("web").kind("CONTAINER").tag("image", "nginx:1.27");
/// let memory = Series::gauge("memory.usage").unit("byte").element(&container);
/// ```
#[derive(Clone)]
pub struct Element(Rc<wit::Element>);

impl Element {
    /// `id` is unique for the receiver, for instance a container's id. Not empty.
    pub fn new(id: impl Into<String>) -> Self {
        Self(Rc::new(wit::Element {
            handle: 0,
            id: id.into(),
            name: String::new(),
            type_: String::new(),
            location: None,
            tags: Vec::new(),
            attributes: Vec::new(),
            relations: Vec::new(),
        }))
    }

    /// The name for people; without it the id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.facts().name = name.into();
        self
    }

    /// For instance `CONTAINER`; without it `SERVER`.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.facts().type_ = kind.into();
        self
    }

    /// Where it is, for instance a data centre.
    pub fn location(mut self, location: impl Into<String>) -> Self {
        self.facts().location = Some(location.into());
        self
    }

    /// Adds a tag, for grouping and filtering at the receiver.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts().tags.push(tag(name, value));
        self
    }

    /// Adds a fact that seldom changes: a text or a number.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.facts().attributes.push(attribute(name, value));
        self
    }

    /// Adds the id of an element that this one belongs to or uses.
    pub fn relation(mut self, id: impl Into<String>) -> Self {
        self.facts().relations.push(id.into());
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    fn facts(&mut self) -> &mut wit::Element {
        Rc::make_mut(&mut self.0)
    }

    pub(crate) fn described_as(&self, handle: u32) -> wit::Element {
        wit::Element { handle, ..(*self.0).clone() }
    }

    /// Equal facts, equal number; so a change is seen without keeping the facts.
    pub(crate) fn fingerprint(&self) -> u64 {
        let facts = &*self.0;
        let mut hasher = Hashing.build_hasher();
        (&facts.name, &facts.type_, &facts.location, &facts.relations).hash(&mut hasher);
        for tag in &facts.tags {
            (&tag.name, &tag.value).hash(&mut hasher);
        }
        for attribute in &facts.attributes {
            attribute.name.hash(&mut hasher);
            match &attribute.value {
                wit::AttributeValue::Text(text) => text.hash(&mut hasher),
                wit::AttributeValue::Number(number) => number.to_bits().hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Element").field(&self.0.id).finish()
    }
}

/// The value of an attribute: made from texts and numbers by `into`.
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeValue {
    /// For instance a distribution's name.
    Text(String),
    /// For instance how many CPUs there are.
    Number(f64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<N: crate::Number> From<N> for AttributeValue {
    fn from(number: N) -> Self {
        Self::Number(number.number())
    }
}

/// Facts that a collector adds to the agent's own element, see [`Run::machine`](crate::Run::machine).
#[derive(Debug, Clone, Default)]
pub struct Additions {
    pub(crate) tags: Vec<wit::Tag>,
    pub(crate) attributes: Vec<wit::Attribute>,
    pub(crate) relations: Vec<String>,
}

impl Additions {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(tag(name, value));
        self
    }

    /// Adds a text or number that seldom changes.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push(attribute(name, value));
        self
    }

    /// Adds the id of an element that the machine belongs to or uses.
    pub fn relation(mut self, id: impl Into<String>) -> Self {
        self.relations.push(id.into());
        self
    }
}

pub(crate) fn tag(name: impl Into<String>, value: impl Into<String>) -> wit::Tag {
    wit::Tag { name: name.into(), value: value.into() }
}

fn attribute(name: impl Into<String>, value: impl Into<AttributeValue>) -> wit::Attribute {
    let value = match value.into() {
        AttributeValue::Text(text) => wit::AttributeValue::Text(text),
        AttributeValue::Number(number) => wit::AttributeValue::Number(number),
    };
    wit::Attribute { name: name.into(), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_changes_with_any_fact() {
        let plain = Element::new("a").name("A");
        let changed = [
            plain.clone().name("B"),
            plain.clone().kind("DISK"),
            plain.clone().location("hel1"),
            plain.clone().tag("a", "b"),
            plain.clone().attribute("cpus", 2),
            plain.clone().attribute("os", "linux"),
            plain.clone().relation("b"),
        ];
        assert_eq!(plain.fingerprint(), Element::new("a").name("A").fingerprint());
        for element in changed {
            assert_ne!(plain.fingerprint(), element.fingerprint());
        }
    }
}
