//! How text becomes words: the same cutting for what is indexed and for what is asked.
//!
//! A text is cut at three depths, all lower-cased. `select from public.orderItems_2` gives the
//! words `select`, `from`, `public`, `order`, `items`, `2`, each at its own position; the name
//! `orderitems_2` at the position of its first word; and the compound `public.orderitems_2` at the
//! position of its first word. So an e-mail address, a UUID or a token is found whole, in part, and
//! by its beginning. Nothing is dropped for being long, up to [`MAX_WORD`].

use std::collections::BTreeSet;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Longest word kept, in bytes; longer ones are found by their parts only.
pub(crate) const MAX_WORD: usize = 8 * 1024;
/// Longest text cut into words, in bytes; the rest of it is not searchable.
pub(crate) const MAX_TEXT: usize = 1024 * 1024;
/// Names longer than this are not split at capitals: they are tokens, not words.
const MAX_CAMEL: usize = 128;

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
    let text = head(text, MAX_TEXT);
    let mut out = Vec::with_capacity(text.len() / 5);
    let mut position = 0;
    for compound in compounds(text) {
        cut_compound(compound, &mut position, &mut out);
    }
    out
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

fn cut_compound(compound: &str, position: &mut usize, out: &mut Vec<Word>) {
    let first = *position;
    let mut names = 0;
    for name in compound.split(joins).filter(|name| !name.is_empty()) {
        names += 1;
        cut_name(name, position, out);
    }
    if names > 1 && *position > first {
        push(out, compound, first, Size::Made);
    }
}

fn cut_name(name: &str, position: &mut usize, out: &mut Vec<Word>) {
    let first = *position;
    let mut longest = 0;
    for part in name.split(['_', '$']).filter(|part| !part.is_empty()) {
        for word in capitals(part) {
            push(out, word, *position, Size::Smallest);
            *position += 1;
            longest = longest.max(word.len());
        }
    }
    if longest > 0 && longest < name.len() {
        push(out, name, first, Size::Made);
    }
}

#[derive(PartialEq)]
enum Size {
    Smallest,
    Made,
}

fn push(out: &mut Vec<Word>, text: &str, position: usize, size: Size) {
    if text.len() <= MAX_WORD {
        let text = if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() };
        out.push(Word { text, position, smallest: size == Size::Smallest });
    }
}

/// Splits `orderItems` into `order`, `Items` and `HTTPServer` into `HTTP`, `Server`.
fn capitals(part: &str) -> Vec<&str> {
    if part.len() > MAX_CAMEL || !part.contains(char::is_uppercase) || !part.contains(char::is_lowercase) {
        return vec![part];
    }
    let chars: Vec<(usize, char)> = part.char_indices().collect();
    let mut out = Vec::new();
    let mut start = 0;
    for index in 1..chars.len() {
        let (at, here) = chars[index];
        let before = chars[index - 1].1;
        let after = chars.get(index + 1).map(|(_, c)| *c);
        let rises = before.is_lowercase() && here.is_uppercase();
        let turns = before.is_uppercase() && here.is_uppercase() && after.is_some_and(char::is_lowercase);
        if rises || turns {
            out.push(&part[start..at]);
            start = at;
        }
    }
    out.push(&part[start..]);
    out
}

/// Which cutting a field of the index uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// [`words`].
    Text,
    /// [`name_words`] of one name.
    Names,
    /// The whole value, lower-cased.
    Keyword,
    /// [`person`].
    Person,
    /// [`tails`].
    Tails,
}

impl Cut {
    pub(crate) const ALL: [Cut; 5] = [Cut::Text, Cut::Names, Cut::Keyword, Cut::Person, Cut::Tails];

    /// The name under which Tantivy knows it. Part of the index's format.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Cut::Text => "pgw_text",
            Cut::Names => "pgw_names",
            Cut::Keyword => "pgw_keyword",
            Cut::Person => "pgw_person",
            Cut::Tails => "pgw_tails",
        }
    }

    fn tokens(self, text: &str) -> Vec<(usize, String)> {
        let flat = |texts: Vec<String>| texts.into_iter().map(|text| (0, text)).collect();
        match self {
            Cut::Text => words(text).into_iter().map(|word| (word.position, word.text)).collect(),
            Cut::Names => flat(name_words(std::iter::once(text)).into_iter().collect()),
            Cut::Keyword => flat(vec![text.to_lowercase()]),
            Cut::Person => flat(person(text)),
            Cut::Tails => flat(tails(text)),
        }
    }
}

impl Tokenizer for Cut {
    type TokenStream<'a> = Cuts;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Cuts {
        Cuts { rest: self.tokens(text).into_iter(), token: Token::default() }
    }
}

/// The words of one value, as Tantivy takes them.
pub(crate) struct Cuts {
    rest: std::vec::IntoIter<(usize, String)>,
    token: Token,
}

impl TokenStream for Cuts {
    fn advance(&mut self) -> bool {
        let Some((position, text)) = self.rest.next() else {
            return false;
        };
        self.token.position = position;
        self.token.text = text;
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
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
