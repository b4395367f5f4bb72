//! How long the texts of a collector may be.

use super::drops::DropReason;
use crate::sample::{Attribute, AttributeValue, Tag};

/// Longest name of a metric, in bytes: the contract says so.
const LONGEST_METRIC: usize = 1024;
/// Longest name of a tag or an attribute, in bytes: the contract says so.
const LONGEST_TAG: usize = 256;

type Checked = Result<(), DropReason>;

/// Longest text of any other sort, in bytes. Names may not be longer than that, either.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts(pub(super) usize);

impl Texts {
    /// A metric's name.
    pub(super) fn metric(self, name: &str) -> Checked {
        Self::name(name, LONGEST_METRIC.min(self.0))
    }

    /// An element's id, a check's name.
    pub(super) fn id(self, id: &str) -> Checked {
        Self::name(id, self.0)
    }

    pub(super) fn text(self, text: &str) -> Checked {
        if text.len() > self.0 { Err(DropReason::TooLong) } else { Ok(()) }
    }

    pub(super) fn tags(self, tags: &[Tag]) -> Checked {
        tags.iter().try_for_each(|tag| {
            Self::name(&tag.name, LONGEST_TAG)?;
            self.text(&tag.value)
        })
    }

    pub(super) fn attributes(self, attributes: &[Attribute]) -> Checked {
        attributes.iter().try_for_each(|attribute| {
            Self::name(&attribute.name, LONGEST_TAG)?;
            match &attribute.value {
                AttributeValue::Text(text) => self.text(text),
                AttributeValue::Number(number) if !number.is_finite() => Err(DropReason::NotFinite),
                AttributeValue::Number(_) => Ok(()),
            }
        })
    }

    fn name(name: &str, longest: usize) -> Checked {
        match name.len() {
            0 => Err(DropReason::EmptyName),
            length if length > longest => Err(DropReason::TooLong),
            _ => Ok(()),
        }
    }
}

/// Bytes that tags take on the heap.
pub(super) fn tag_bytes(tags: &[Tag]) -> usize {
    tags.iter().map(|tag| size_of::<Tag>() + tag.name.len() + tag.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metrics_end_at_1024_bytes_and_are_not_empty() {
        let texts = Texts(4096);
        assert_eq!(texts.metric(&"m".repeat(1024)), Ok(()));
        assert_eq!(texts.metric(&"m".repeat(1025)), Err(DropReason::TooLong));
        assert_eq!(texts.metric(""), Err(DropReason::EmptyName));
    }

    #[test]
    fn names_of_tags_end_at_256_bytes_and_their_values_at_the_limit() {
        let tag = |name: usize, value: usize| Tag { name: "n".repeat(name), value: "v".repeat(value) };
        let texts = Texts(300);
        assert_eq!(texts.tags(&[tag(256, 300), tag(1, 0)]), Ok(()));
        assert_eq!(texts.tags(&[tag(257, 0)]), Err(DropReason::TooLong));
        assert_eq!(texts.tags(&[tag(1, 301)]), Err(DropReason::TooLong));
        assert_eq!(texts.tags(&[tag(0, 1)]), Err(DropReason::EmptyName));
    }

    #[test]
    fn numbers_of_attributes_are_finite() {
        let attribute = Attribute { name: "cpus".to_owned(), value: AttributeValue::Number(f64::NAN) };
        assert_eq!(Texts(300).attributes(&[attribute]), Err(DropReason::NotFinite));
    }
}
