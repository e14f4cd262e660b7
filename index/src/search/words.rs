//! How text becomes words: the same cutting for what is indexed and for what is asked.
//!
//! A text is cut at three depths, all lower-cased. `select from public.orderItems_2` gives the
//! words `select`, `from`, `public`, `order`, `items`, `2`, each at its own position; the name
//! `orderitems_2` at the position of its first word; and the compound `public.orderitems_2` at the
//! position of its first word. So an e-mail address, a UUID or a token is found whole, in part, and
//! by its beginning. Nothing is dropped for being long, up to [`MAX_WORD`].
//!
//! Of the values of a record only the smallest words are indexed, and where capitals split a part of a
//! name, that part ([`push_values`]): names and compounds are put together again from the record.

use std::collections::BTreeSet;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::field::Field;

/// Longest word kept, in bytes; longer ones are found by their parts only.
pub(crate) const MAX_WORD: usize = 8 * 1024;
/// Longest text cut into words, in bytes; the rest of it is not searchable.
pub(crate) const MAX_TEXT: usize = 1024 * 1024;
/// Names longer than this are not split at capitals: they are tokens, not words.
const MAX_CAMEL: usize = 128;
/// A buffer for words larger than this is given back after use.
const PIECES_KEEP_MAX: usize = 64 * 1024;

/// One word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Lower-case.
    pub(crate) text: String,
    /// Where, counted in smallest words.
    pub(crate) position: usize,
    /// Whether it is a smallest word (and not a name or compound made of several).
    pub(crate) smallest: bool,
}

/// Cuts a text.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut out = Vec::with_capacity(text.len().min(MAX_TEXT) / 5);
    cut(text, &mut |word, position, size| {
        let mut text = String::with_capacity(word.len());
        push_lower(&mut text, word);
        out.push(Word { text, position, smallest: size == Size::Smallest });
    });
    out
}

/// Takes each word as it stands in the text, where it is, and whether it is a smallest one.
trait Take: FnMut(&str, usize, Size) {}

impl<F: FnMut(&str, usize, Size)> Take for F {}

fn cut(text: &str, take: &mut impl Take) {
    let mut position = 0;
    for compound in compounds(head(text, MAX_TEXT)) {
        cut_compound(compound, &mut position, take);
    }
}

/// The smallest words only, in order.
pub(crate) fn smallest(text: &str) -> Vec<String> {
    words(text).into_iter().filter(|word| word.smallest).map(|word| word.text).collect()
}

/// A text that is one name (letters, digits, `_`, `$` and nothing else), lower-cased.
pub(crate) fn single_name(text: &str) -> Option<String> {
    (!text.is_empty() && text.chars().all(in_name)).then(|| text.to_lowercase())
}

/// A text that is one compound (without blanks and the like), lower-cased.
pub(crate) fn compound(text: &str) -> Option<String> {
    let one = text.trim_matches(joins);
    (!one.is_empty() && one.chars().all(|c| in_name(c) || joins(c))).then(|| one.to_lowercase())
}

/// The words and names in dotted object names, without doubles.
pub(crate) fn name_words<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    names.flat_map(|name| name.split('.')).flat_map(words).map(|word| word.text).collect()
}

/// The tails of a dotted name, each preceded by its number of parts: `public.users` is found as
/// `1users` and as `2public.users`.
pub(crate) fn tails(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let mut starts: Vec<usize> = name.match_indices('.').map(|(at, _)| at + 1).collect();
    starts.insert(0, 0);
    let parts = starts.len();
    starts.iter().enumerate().map(|(index, start)| format!("{}{}", parts - index, &name[*start..])).collect()
}

/// The forms under which a person is found: the whole name and, of an address, the part before `@`.
pub(crate) fn person(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    match name.split_once('@') {
        Some((local, _)) if !local.is_empty() => vec![name.clone(), local.to_owned()],
        _ => vec![name],
    }
}

/// Between the words that [`push_values`] makes.
const NEXT_WORD: char = '\0';
/// Between the words of one record and those of the next.
pub(crate) const NEXT_RECORD: char = '\n';
/// Stands in front of a part of a name that capitals split: it is no word of its own.
pub(crate) const PART: char = '.';
/// The word of a value without words.
pub(crate) const EMPTY: &str = "-";

/// Adds the words under which a value is found, in the form that [`Cut::Values`] takes.
pub(crate) fn push_values(out: &mut String, value: &str) {
    let start = out.len();
    for compound in compounds(head(value, MAX_TEXT)) {
        for name in compound.split(joins).filter(|name| !name.is_empty()) {
            for part in name.split(NAME_PARTS).filter(|part| !part.is_empty()) {
                push_part(out, name, part);
            }
        }
    }
    if out.len() == start {
        out.push_str(EMPTY);
        out.push(NEXT_WORD);
    }
}

fn push_part(out: &mut String, name: &str, part: &str) {
    let mut push = |mark: Option<char>, word: &str| {
        if word.len() <= MAX_WORD {
            out.extend(mark);
            push_folded(out, word);
            out.push(NEXT_WORD);
        }
    };
    let mut words = 0;
    capitals(part, |word| {
        words += 1;
        push(None, word);
    });
    if words > 1 {
        push((name.len() > part.len()).then_some(PART), part);
    }
}

/// What separates the parts of a name.
const NAME_PARTS: [char; 2] = ['_', '$'];

/// The parts of names and compounds, of a text that is one; as [`push_values`] writes them.
pub(crate) fn parts(whole: &str) -> Vec<String> {
    let parts = whole.split(|c: char| joins(c) || NAME_PARTS.contains(&c));
    parts.filter(|part| !part.is_empty()).map(folded).collect()
}

/// Lower-case, and one form for letters that have two.
pub(crate) fn folded(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    push_folded(&mut out, word);
    out
}

fn push_folded(out: &mut String, word: &str) {
    let start = out.len();
    push_lower(out, word);
    if !word.is_ascii() && out[start..].contains('ς') {
        let one = out[start..].replace('ς', "σ");
        out.truncate(start);
        out.push_str(&one);
    }
}

/// Whether a character can be a part of a word or a name.
pub(crate) fn continues_name(c: char) -> bool {
    in_name(c)
}

/// Whether a text has a character that only joins names.
pub(crate) fn is_joined(text: &str) -> bool {
    text.contains(joins)
}

fn head(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn joins(c: char) -> bool {
    matches!(c, '.' | '@' | '-' | '+' | ':' | '/')
}

/// Runs of name characters and joiners, without joiners at either end.
fn compounds(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !in_name(c) && !joins(c))
        .map(|run| run.trim_matches(joins))
        .filter(|run| !run.is_empty())
}

fn cut_compound(compound: &str, position: &mut usize, take: &mut impl Take) {
    let first = *position;
    let mut names = 0;
    for name in compound.split(joins).filter(|name| !name.is_empty()) {
        names += 1;
        cut_name(name, position, take);
    }
    if names > 1 && *position > first {
        give(take, compound, first, Size::Made);
    }
}

fn cut_name(name: &str, position: &mut usize, take: &mut impl Take) {
    let first = *position;
    let mut longest = 0;
    for part in name.split(NAME_PARTS).filter(|part| !part.is_empty()) {
        capitals(part, |word| {
            give(take, word, *position, Size::Smallest);
            *position += 1;
            longest = longest.max(word.len());
        });
    }
    if longest > 0 && longest < name.len() {
        give(take, name, first, Size::Made);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Size {
    Smallest,
    Made,
}

fn give(take: &mut impl Take, word: &str, position: usize, size: Size) {
    if word.len() <= MAX_WORD {
        take(word, position, size);
    }
}

fn push_lower(out: &mut String, text: &str) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        out[start..].make_ascii_lowercase();
    } else {
        out.push_str(&text.to_lowercase());
    }
}

/// Splits `orderItems` into `order`, `Items` and `HTTPServer` into `HTTP`, `Server`.
fn capitals(part: &str, mut take: impl FnMut(&str)) {
    if part.len() > MAX_CAMEL || !part.contains(char::is_uppercase) || !part.contains(char::is_lowercase) {
        take(part);
        return;
    }
    let chars: Vec<(usize, char)> = part.char_indices().collect();
    let mut start = 0;
    for index in 1..chars.len() {
        let (at, here) = chars[index];
        let before = chars[index - 1].1;
        let after = chars.get(index + 1).map(|(_, c)| *c);
        let rises = before.is_lowercase() && here.is_uppercase();
        let turns = before.is_uppercase() && here.is_uppercase() && after.is_some_and(char::is_lowercase);
        if rises || turns {
            take(&part[start..at]);
            start = at;
        }
    }
    take(&part[start..]);
}

/// Which cutting a field of the index uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// [`words`].
    Text,
    /// The whole value, lower-cased.
    Keyword,
    /// [`person`].
    Person,
    /// [`tails`].
    Tails,
    /// What [`push_values`] wrote, the words of each record at its position.
    Values,
}

impl Cut {
    pub(crate) const ALL: [Cut; 5] = [Cut::Text, Cut::Keyword, Cut::Person, Cut::Tails, Cut::Values];

    /// The name under which Tantivy knows it. Part of the index's format.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Cut::Text => "pgw_text",
            Cut::Keyword => "pgw_keyword",
            Cut::Person => "pgw_person",
            Cut::Tails => "pgw_tails",
            Cut::Values => "pgw_values",
        }
    }

    /// Cuts a value into `out`.
    fn cut(self, text: &str, out: &mut Pieces) {
        match self {
            Cut::Text => cut(text, &mut |word, position, _| out.push(word, position)),
            Cut::Keyword => out.push(text, 0),
            Cut::Person => person(text).iter().for_each(|form| out.push(form, 0)),
            Cut::Tails => tails(text).iter().for_each(|form| out.push(form, 0)),
            Cut::Values => {
                // Neither separator is a part of another character.
                let (mut position, mut start) = (0, 0);
                for (at, byte) in text.bytes().enumerate() {
                    if byte == NEXT_WORD as u8 {
                        out.push_as_is(text.get(start..at).unwrap_or_default(), position);
                        start = at + 1;
                    } else if byte == NEXT_RECORD as u8 {
                        position += 1;
                        start = at + 1;
                    }
                }
            }
        }
    }
}

/// A set of fields. Its text is one term of the index, which costs far less than one for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fields(u64);

const _: () = assert!(Field::ALL.len() <= u64::BITS as usize, "a set of fields is one number");

impl Fields {
    pub(crate) fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u64;
    }

    pub(crate) fn join(&mut self, other: Fields) {
        self.0 |= other.0;
    }

    /// The text in the index.
    pub(crate) fn text(self) -> String {
        format!("{:x}", self.0)
    }

    /// The set that a text in the index stands for.
    pub(crate) fn read(text: &str) -> Fields {
        Fields(u64::from_str_radix(text, 16).unwrap_or(0))
    }

    pub(crate) fn contains(self, field: Field) -> bool {
        self.0 >> field as u64 & 1 == 1
    }
}

/// The words of one value, one after the other.
#[derive(Clone, Default)]
struct Pieces {
    /// All of them, lower-case.
    text: String,
    /// Position, and where in `text` it ends.
    words: Vec<(usize, usize)>,
    token: Token,
}

impl Pieces {
    fn clear(&mut self) {
        if self.text.capacity() > PIECES_KEEP_MAX {
            *self = Pieces::default();
        }
        self.text.clear();
        self.words.clear();
    }

    fn push(&mut self, word: &str, position: usize) {
        push_lower(&mut self.text, word);
        self.words.push((position, self.text.len()));
    }

    fn push_as_is(&mut self, word: &str, position: usize) {
        self.text.push_str(word);
        self.words.push((position, self.text.len()));
    }
}

/// A [`Cut`] with its buffers, which are used again for each value.
#[derive(Clone)]
pub(crate) struct Cutter {
    cut: Cut,
    pieces: Pieces,
}

impl From<Cut> for Cutter {
    fn from(cut: Cut) -> Cutter {
        Cutter { cut, pieces: Pieces::default() }
    }
}

impl Tokenizer for Cutter {
    type TokenStream<'a> = Cuts<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Cuts<'a> {
        self.pieces.clear();
        self.cut.cut(text, &mut self.pieces);
        Cuts { pieces: &mut self.pieces, next: 0, start: 0 }
    }
}

/// The words of one value, as Tantivy takes them.
pub(crate) struct Cuts<'a> {
    pieces: &'a mut Pieces,
    next: usize,
    start: usize,
}

impl TokenStream for Cuts<'_> {
    fn advance(&mut self) -> bool {
        let Pieces { text, words, token } = &mut *self.pieces;
        let Some((position, end)) = words.get(self.next).copied() else {
            return false;
        };
        token.position = position;
        token.text.clear();
        token.text.push_str(text.get(self.start..end).unwrap_or_default());
        (self.next, self.start) = (self.next + 1, end);
        true
    }

    fn token(&self) -> &Token {
        &self.pieces.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.pieces.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> =
            words(text).into_iter().map(|word| format!("{}@{}", word.text, word.position)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_text_is_cut_at_three_depths() {
        check("", &[]);
        check("select 1;", &["select@0", "1@1"]);
        check(
            "public.order_items",
            &["public@0", "order@1", "items@2", "order_items@1", "public.order_items@0"],
        );
        check("orderItems", &["order@0", "items@1", "orderitems@0"]);
        check("HTTPServer2", &["http@0", "server2@1", "httpserver2@0"]);
        check("ann@x.org", &["ann@0", "x@1", "org@2", "ann@x.org@0"]);
        check("\"users\".(id)", &["users@0", "id@1"]);
        check("-- É=$1", &["é@0", "1@1", "$1@1"]);
        check("___ ... $", &[]);
    }

    #[test]
    fn long_words_stay_whole_up_to_the_limit() {
        let token = "a".repeat(MAX_WORD);
        check(&token, &[&format!("{token}@0")]);
        check(&"a".repeat(MAX_WORD + 1), &[]);
        let parts = vec!["a"; 3 * 1024].join("-");
        assert_eq!(words(&parts).last().map(|word| word.text.len()), Some(parts.len()));
    }

    #[test]
    fn a_huge_text_is_cut_up_to_the_limit_at_a_whole_character() {
        assert_eq!(words(&"é ".repeat(MAX_TEXT)).len(), MAX_TEXT / 3);
        assert_eq!(head("aé", 2), "a");
    }

    #[test]
    fn names_are_found_by_each_tail() {
        assert_eq!(tails("Public.Users.email"), ["3public.users.email", "2users.email", "1email"]);
        assert_eq!(tails("users"), ["1users"]);
        assert_eq!(person("Ann@X.org"), ["ann@x.org", "ann"]);
        assert_eq!(person("@x"), ["@x"]);
    }
}
