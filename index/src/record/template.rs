//! Statement texts whose literals were cut out, and texts put together from them again.

use std::fmt;
use std::sync::Arc;

/// A text without its literals: what many statements have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<[u8]>,
    holes: Box<[u32]>,
}

/// The holes of a template are out of order, or lie beyond its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the places of a template's literals are out of order")]
pub struct WrongHoles;

impl Template {
    /// A text and the places in it where literals were, ascending.
    ///
    /// # Errors
    /// Places that do not ascend or lie beyond the text.
    pub fn new(text: impl Into<Box<[u8]>>, holes: impl Into<Box<[u32]>>) -> Result<Self, WrongHoles> {
        let (text, holes) = (text.into(), holes.into());
        let within = holes.last().is_none_or(|last| *last as usize <= text.len());
        if within && holes.is_sorted() { Ok(Self { text, holes }) } else { Err(WrongHoles) }
    }

    /// The text, with nothing where the literals were. The quotes of a string belong to it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where literals were, as places in [`Template::text`], ascending; doubles are possible.
    pub fn holes(&self) -> &[u32] {
        &self.holes
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?}, {:?})", self.text.escape_ascii().to_string(), self.holes)
    }
}

/// A text that was put together from a template and its values.
#[derive(Debug, Clone)]
pub struct Spliced {
    template: Arc<Template>,
    text: Box<[u8]>,
    /// Length of each value in the text.
    lengths: Box<[u32]>,
}

impl Spliced {
    /// `text` is the template with the values in its holes; `lengths` are theirs.
    pub(crate) fn new(template: Arc<Template>, text: Box<[u8]>, lengths: Box<[u32]>) -> Self {
        debug_assert_eq!(template.holes.len(), lengths.len(), "each hole has a value");
        Self { template, text, lengths }
    }

    /// What the text has in common with others. Texts of one template that were read by one reader
    /// share it, as long as the reader remembers it.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// The whole text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The literals: digits of a number, or what stands between the quotes of a string.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut before = 0;
        self.template.holes.iter().zip(&self.lengths).map(move |(hole, length)| {
            let (start, length) = (before + *hole as usize, *length as usize);
            before += length;
            self.text.get(start..start + length).unwrap_or_default()
        })
    }
}
