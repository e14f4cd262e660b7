//! Cutting literals out of a statement's text, so that what many statements share is written once.
//!
//! This is no SQL lexer. It finds what looks like a number or like a quoted string; where it is
//! wrong, a template is shared less often. What it cut is put together again and compared before it
//! is written, so the text can never be another one.

use std::sync::Arc;

use super::wire::{Input, Malformed, put_u64};
use crate::record::{Spliced, Template};

/// Texts longer than this stay whole, bytes.
const TEXT_MAX: usize = 64 << 10;
/// Texts with more literals than this (bulk inserts, long lists) stay whole.
const HOLES_MAX: usize = 128;
/// More digits may not fit a number, and are kept as text.
const DIGITS_MAX: usize = 18;

/// A text taken apart. Its buffers are used again and again.
#[derive(Debug, Default)]
pub(super) struct Cut {
    text: Vec<u8>,
    holes: Vec<u32>,
    /// As they are written.
    values: Vec<u8>,
    /// Bytes of the literals in the text.
    literals: usize,
    /// For comparing.
    again: Vec<u8>,
    lengths: Vec<u32>,
}

impl Cut {
    /// Takes `raw` apart; whether that is worth keeping: if not, the text is to be written whole.
    pub(super) fn take(&mut self, raw: &[u8]) -> bool {
        self.clear();
        if raw.len() > TEXT_MAX || !self.pieces(raw) {
            return false;
        }
        self.again.clear();
        self.lengths.clear();
        let mut values = Input(&self.values);
        let spliced = splice(&self.text, &self.holes, &mut values, &mut self.again, &mut self.lengths);
        spliced.is_ok() && values.is_empty() && self.again == raw
    }

    /// `raw` as a template without literals.
    pub(super) fn whole(&mut self, raw: &[u8]) {
        self.clear();
        self.text.extend_from_slice(raw);
    }

    /// The values, as they are written into a record.
    pub(super) fn values(&self) -> &[u8] {
        &self.values
    }

    /// How many bytes of the text are literals.
    pub(super) fn literals(&self) -> usize {
        self.literals
    }

    /// The template, as it is written into a definition.
    pub(super) fn put_template(&self, out: &mut Vec<u8>) {
        put_u64(out, self.holes.len() as u64);
        let mut before = 0;
        for hole in &self.holes {
            put_u64(out, u64::from(hole - before));
            before = *hole;
        }
        put_u64(out, self.text.len() as u64);
        out.extend_from_slice(&self.text);
    }

    fn clear(&mut self) {
        self.text.clear();
        self.holes.clear();
        self.values.clear();
        self.literals = 0;
    }

    /// Whether there are not too many literals.
    fn pieces(&mut self, raw: &[u8]) -> bool {
        let (mut at, mut kept, mut in_word) = (0, 0, false);
        // A quote that nothing closes is looked for once.
        let mut closed = true;
        while let Some(&byte) = raw.get(at) {
            let literal = match byte {
                b'\'' if closed => {
                    let string = string(raw, at);
                    closed = string.is_some();
                    string
                }
                b'0'..=b'9' if !in_word => Some((at, number(raw, at))),
                _ => None,
            };
            in_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
            let Some((start, end)) = literal else {
                at += 1;
                continue;
            };
            if self.holes.len() == HOLES_MAX {
                return false;
            }
            self.text.extend_from_slice(raw.get(kept..start).unwrap_or_default());
            self.holes.push(self.text.len() as u32);
            let value = raw.get(start..end).unwrap_or_default();
            put_value(&mut self.values, value);
            self.literals += value.len();
            kept = end;
            // The closing quote is behind a string, and not an opening one.
            at = if byte == b'\'' { end + 1 } else { end };
            in_word = byte != b'\'';
        }
        self.text.extend_from_slice(raw.get(kept..).unwrap_or_default());
        true
    }
}

/// What stands between the quote at `at` and the one that ends the string.
fn string(raw: &[u8], at: usize) -> Option<(usize, usize)> {
    let start = at + 1;
    let mut end = start;
    loop {
        end += raw.get(end..)?.iter().position(|byte| *byte == b'\'')?;
        if raw.get(end + 1) != Some(&b'\'') {
            return Some((start, end));
        }
        end += 2;
    }
}

/// Where the digits end that begin at `at`.
fn number(raw: &[u8], at: usize) -> usize {
    let digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    at + raw.get(at..).unwrap_or_default().iter().take_while(|byte| digit(byte)).count()
}

/// A number that its digits can be told from, or any text.
fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    let plain = (1..=DIGITS_MAX).contains(&value.len())
        && value.iter().all(u8::is_ascii_digit)
        && (value.len() == 1 || value.first() != Some(&b'0'));
    if plain {
        let number = value.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        put_u64(out, number << 1 | 1);
    } else {
        put_u64(out, (value.len() as u64) << 1);
        out.extend_from_slice(value);
    }
}

/// Puts a text together at the end of `out`; the length of each value at the end of `lengths`.
fn splice(
    text: &[u8],
    holes: &[u32],
    values: &mut Input<'_>,
    out: &mut Vec<u8>,
    lengths: &mut Vec<u32>,
) -> Result<(), Malformed> {
    let mut kept = 0;
    for hole in holes {
        let hole = *hole as usize;
        out.extend_from_slice(text.get(kept..hole).unwrap_or_default());
        kept = hole;
        let (before, head) = (out.len(), values.u64()?);
        if head & 1 == 1 {
            put_digits(out, head >> 1);
        } else {
            out.extend_from_slice(values.take_u64(head >> 1)?);
        }
        lengths.push((out.len() - before) as u32);
    }
    out.extend_from_slice(text.get(kept..).unwrap_or_default());
    Ok(())
}

fn put_digits(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// Reads a template.
pub(super) fn template(input: &mut Input<'_>) -> Result<Template, Malformed> {
    let (count, mut hole) = (input.count()?, 0_u32);
    let mut holes = Vec::with_capacity(count);
    let wrong = Malformed("the places of a template's literals are out of order");
    for _ in 0..count {
        let gap = u32::try_from(input.u64()?).map_err(|_| wrong)?;
        hole = hole.checked_add(gap).ok_or(wrong)?;
        holes.push(hole);
    }
    Template::new(input.bytes()?, holes).map_err(|_| wrong)
}

/// Reads the values of a template, and puts them in.
pub(super) fn spliced(template: &Arc<Template>, input: &mut Input<'_>) -> Result<Spliced, Malformed> {
    let (text, holes) = (template.text(), template.holes());
    let mut out = Vec::with_capacity(text.len() + holes.len() * 8);
    let mut lengths = Vec::with_capacity(holes.len());
    splice(text, holes, input, &mut out, &mut lengths)?;
    Ok(Spliced::new(Arc::clone(template), out.into(), lengths.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The template with `?` where literals were, and the values.
    fn cut(raw: &str) -> (String, Vec<String>) {
        let mut cut = Cut::default();
        assert!(cut.take(raw.as_bytes()), "{raw}");
        let mut written = Vec::new();
        cut.put_template(&mut written);
        let template = Arc::new(template(&mut Input(&written)).unwrap());
        let mut values = Input(cut.values());
        let spliced = spliced(&template, &mut values).unwrap();
        assert!(values.is_empty());
        assert_eq!(spliced.as_bytes(), raw.as_bytes());
        let mut shown = String::from_utf8(template.text().to_vec()).unwrap();
        for hole in template.holes().iter().rev() {
            shown.insert(*hole as usize, '?');
        }
        (shown, spliced.values().map(|value| String::from_utf8(value.to_vec()).unwrap()).collect())
    }

    #[test]
    fn numbers_and_strings_are_cut_out_and_names_are_not() {
        for (raw, template, values) in [
            ("select 1", "select ?", vec!["1"]),
            ("select a1, \"b2\", $3 from t4", "select a1, \"b2\", $3 from t4", vec![]),
            ("where a = 'it''s' and b=-1.50", "where a = '?' and b=-?", vec!["it''s", "1.50"]),
            (
                "values ('', 007, 99999999999999999999)",
                "values ('?', ?, ?)",
                vec!["", "007", "99999999999999999999"],
            ),
            ("'open", "'open", vec![]),
            ("'a''", "'a''", vec![]),
            ("x'1f'5", "x'?'?", vec!["1f", "5"]),
            ("1 2", "? ?", vec!["1", "2"]),
            ("", "", vec![]),
        ] {
            assert_eq!(cut(raw), (template.to_owned(), values.iter().map(|v| (*v).to_owned()).collect()));
        }
    }

    #[test]
    fn long_texts_and_long_lists_stay_whole() {
        assert!(!Cut::default().take(&vec![b'x'; TEXT_MAX + 1]));
        assert!(!Cut::default().take("1,".repeat(HOLES_MAX + 1).as_bytes()));
        assert!(Cut::default().take("1,".repeat(HOLES_MAX).as_bytes()));
    }

    #[test]
    fn lying_values_are_refused() {
        let template = Arc::new(Template::new(*b"ab", [1, 2]).unwrap());
        for lie in [&[][..], &[1], &[1, 8], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
            assert!(spliced(&template, &mut Input(lie)).is_err(), "{lie:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_cut_is_put_together_again(
            raw in prop::collection::vec(prop_oneof![
                prop::sample::select(b"'\\0123456789. $\"ab_".to_vec()), any::<u8>()
            ], 0..60),
        ) {
            let mut cut = Cut::default();
            prop_assert!(cut.take(&raw));
            let mut written = Vec::new();
            cut.put_template(&mut written);
            let template = Arc::new(template(&mut Input(&written)).unwrap());
            let spliced = spliced(&template, &mut Input(cut.values())).unwrap();
            prop_assert_eq!(spliced.as_bytes(), &raw[..]);
            prop_assert_eq!(spliced.values().map(<[u8]>::len).sum::<usize>(), cut.literals());
        }
    }
}
