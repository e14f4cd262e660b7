//! The text that the parser is given: the same statement in the plainest spelling.
//!
//! The parser's own lexer is not PostgreSQL's. So strings are decoded here and written as plain `'…'`, comments and
//! dollar quotes go, Unicode identifiers are decoded, and a few clauses the parser does not know, which add nothing to
//! what a statement touches (row lock strengths, frame exclusion, `ONLY`), are left out or spelled as their equal.

use super::lex::{Kind, Lexer, Token};

/// Operators that the parser reads as they are. Every other one has `||`'s precedence and takes its place.
const KNOWN_OPERATORS: &[&str] = &[
    "+", "-", "*", "/", "%", "^", "<", ">", "=", "<=", ">=", "<>", "!=", "||", "->", "->>", "#>", "#>>",
    "@>", "<@", "?", "?|", "?&", "&&", "@@", "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*", "&", "|",
    "#", "<<", ">>", "::", "=>", ":=", "@", "|/", "||/", "!!", "@?", "#-", "^@", "..", "&<", "&>",
];

/// How `ROWS FROM (f(), g())` is spelled for the parser: a call of this, with the functions as its arguments.
pub(crate) const ROWS_FROM: &str = "*rows from*";
/// How `(value).*` is spelled for the parser: a call of this.
pub(crate) const ALL_FIELDS: &str = "*all fields*";

/// A statement's tokens with the names and strings decoded.
pub(crate) struct Words<'a> {
    text: &'a str,
    standard: bool,
    pub(crate) tokens: Vec<Token>,
}

impl<'a> Words<'a> {
    /// All tokens of `text`, or none when there are more than `most`.
    pub(crate) fn read(text: &'a str, standard: bool, most: usize) -> Option<Self> {
        let mut tokens = Vec::with_capacity((text.len() / 4).min(most) + 1);
        for token in Lexer::new(text.as_bytes(), standard) {
            if tokens.len() == most {
                return None;
            }
            tokens.push(token);
        }
        while tokens.last().is_some_and(|last| last.kind == Kind::Punct(b';')) {
            tokens.pop();
        }
        Some(Self { text, standard, tokens })
    }

    /// The text from one token to before another, as it was sent.
    pub(crate) fn between(&self, from: usize, to: usize) -> &'a str {
        let start = self.token(from).map_or(0, |token| token.start);
        let end = to.checked_sub(1).and_then(|last| self.token(last)).map_or(start, |token| token.end);
        self.text.get(start..end).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn token(&self, at: usize) -> Option<Token> {
        self.tokens.get(at).copied()
    }

    /// The token as written.
    pub(crate) fn raw(&self, at: usize) -> &'a str {
        self.token(at).and_then(|token| self.text.get(token.range())).unwrap_or_default()
    }

    /// Whether the token is that unquoted word.
    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        self.token(at).is_some_and(|token| token.kind == Kind::Word)
            && self.raw(at).eq_ignore_ascii_case(word)
    }

    /// Whether the token is one of those unquoted words.
    pub(crate) fn is_any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// Whether the token is that punctuation or operator.
    pub(crate) fn mark(&self, at: usize, mark: &str) -> bool {
        self.token(at).is_some_and(|token| matches!(token.kind, Kind::Punct(_) | Kind::Op))
            && self.raw(at) == mark
    }

    /// An identifier as PostgreSQL stores it.
    pub(crate) fn name(&self, at: usize) -> Option<String> {
        let raw = self.raw(at);
        match self.token(at)?.kind {
            Kind::Word => Some(cut_name(raw.to_ascii_lowercase())),
            Kind::Quoted => Some(cut_name(unquote(raw, 1, '"'))),
            Kind::UnicodeQuoted => {
                Some(cut_name(unicode(&unquote(raw, 3, '"'), self.escape_after(at)).unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// A string constant's value, when it is one.
    pub(crate) fn string(&self, at: usize) -> Option<String> {
        let raw = self.raw(at);
        match self.token(at)?.kind {
            Kind::Text => {
                let skip = if raw.starts_with('\'') { 1 } else { 2 };
                Some(pieces(raw.get(skip..).unwrap_or_default(), !self.standard))
            }
            Kind::Escaped => Some(pieces(raw.get(2..).unwrap_or_default(), true)),
            Kind::UnicodeText => {
                let value = pieces(raw.get(3..).unwrap_or_default(), false);
                unicode(&value, self.escape_after(at))
            }
            Kind::Dollar => {
                let tag = raw.get(1..)?.find('$')? + 2;
                raw.get(tag..raw.len().checked_sub(tag)?).map(str::to_owned)
            }
            _ => None,
        }
    }

    fn escape_after(&self, at: usize) -> char {
        if !self.is(at + 1, "uescape") {
            return '\\';
        }
        self.raw(at + 2).chars().nth(1).unwrap_or('\\')
    }

    /// The part of the statement from one token to before another, in the parser's spelling.
    pub(crate) fn reworded(&self, from: usize, to: usize) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        let mut at = from;
        while at < to.min(self.len()) {
            at = self.reword(at, from, &mut out);
        }
        out
    }

    /// Writes the token at `at` and says where to go on.
    fn reword(&self, at: usize, from: usize, out: &mut String) -> usize {
        let Some(token) = self.token(at) else { return at + 1 };
        out.push(' ');
        match token.kind {
            Kind::Word => return self.reword_word(at, from, out),
            Kind::UnicodeQuoted => {
                push_quoted(out, '"', &self.name(at).unwrap_or_default());
                return if self.is(at + 1, "uescape") { at + 3 } else { at + 1 };
            }
            Kind::Punct(b'[') if self.plain_subscript(at).is_some() => {
                out.pop();
                return self.plain_subscript(at).unwrap_or(at + 1);
            }
            Kind::Punct(b'(') if self.groups_value(at) && self.fields_follow(at) => {
                push_quoted(out, '"', ALL_FIELDS);
                out.push('(');
            }
            Kind::Punct(b')') if self.closes_fields(at, from) => {
                out.push(')');
                return at + 3;
            }
            Kind::Bits => out.push_str("''"),
            kind if kind.is_string() => {
                push_quoted(out, '\'', &self.string(at).unwrap_or_default());
                return if self.is(at + 1, "uescape") { at + 3 } else { at + 1 };
            }
            Kind::Number if !self.raw(at).bytes().all(|byte| byte.is_ascii_digit()) => out.push_str("0.1"),
            Kind::Op if !KNOWN_OPERATORS.contains(&self.raw(at)) => out.push_str("||"),
            _ => out.push_str(self.raw(at)),
        }
        at + 1
    }

    /// `name[1]` touches what `name` touches; the parser does not take subscripts everywhere. Says where it ends.
    fn plain_subscript(&self, at: usize) -> Option<usize> {
        let before = self.token(at.checked_sub(1)?)?;
        let named = matches!(before.kind, Kind::Word | Kind::Quoted) && !self.is(at - 1, "array");
        let plain = |kind| matches!(kind, Kind::Number | Kind::Param | Kind::Punct(b':'));
        let mut end = at + 1;
        while self.token(end).is_some_and(|token| plain(token.kind)) {
            end += 1;
        }
        (named && end > at + 1 && self.mark(end, "]")).then_some(end + 1)
    }

    /// Words that say nothing of what is touched, or say it in a spelling the parser does not know.
    fn respelled(&self, at: usize, out: &mut String) -> Option<usize> {
        let after_value =
            at > 0 && !self.mark(at - 1, ",") && !self.mark(at - 1, "(") && !self.mark(at - 1, ".");
        if self.is(at, "overriding") && self.is_any(at + 1, &["user", "system"]) && self.is(at + 2, "value") {
            return Some(at + 3);
        }
        if self.is(at, "insert") && self.is(at + 1, "default") && at > 0 && self.is(at - 1, "then") {
            out.push_str("DO NOTHING");
            return Some(at + 3);
        }
        if self.is(at, "rows") && self.is(at + 1, "from") && self.mark(at + 2, "(") {
            push_quoted(out, '"', ROWS_FROM);
            return Some(at + 2);
        }
        if after_value && self.is_any(at, &["isnull", "notnull"]) {
            out.push_str(if self.is(at, "isnull") { "IS NULL" } else { "IS NOT NULL" });
            return Some(at + 1);
        }
        None
    }

    /// Whether the group that opens at `at` is followed by `.*`.
    fn fields_follow(&self, at: usize) -> bool {
        let close = self.close_of(at);
        self.mark(close + 1, ".") && self.mark(close + 2, "*")
    }

    /// Whether the `)` at `at` closes a group that was written as a call of [`ALL_FIELDS`].
    fn closes_fields(&self, at: usize, from: usize) -> bool {
        if !(self.mark(at + 1, ".") && self.mark(at + 2, "*")) {
            return false;
        }
        let mut depth = 0usize;
        for here in (from..=at).rev() {
            depth += usize::from(self.mark(here, ")"));
            if self.mark(here, "(") {
                depth -= 1;
                if depth == 0 {
                    return self.groups_value(here);
                }
            }
        }
        false
    }

    /// A `(` that opens a value, not the arguments of a call.
    fn groups_value(&self, at: usize) -> bool {
        let Some(before) = at.checked_sub(1) else { return true };
        self.mark(before, ",")
            || self.mark(before, "(")
            || self.is_any(before, &["select", "distinct", "all", "returning"])
    }

    fn close_of(&self, at: usize) -> usize {
        let mut depth = 0usize;
        for here in at..self.len() {
            depth += usize::from(self.mark(here, "("));
            if self.mark(here, ")") {
                depth -= 1;
                if depth == 0 {
                    return here;
                }
            }
        }
        self.len()
    }

    fn reword_word(&self, at: usize, from: usize, out: &mut String) -> usize {
        if let Some(next) = self.respelled(at, out) {
            return next;
        }
        let before = |word: &str| at > from && self.is(at - 1, word);
        let followed_by_name = self
            .token(at + 1)
            .is_some_and(|next| matches!(next.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted));
        if self.is(at, "only") && (followed_by_name || self.mark(at + 1, "(")) && self.only_here(at, from) {
            return self.only(at + 1, out);
        }
        if self.is(at, "table")
            && followed_by_name
            && !before("into")
            && !(at > from && self.mark(at - 1, "."))
        {
            out.push_str("SELECT * FROM");
            return if self.is(at + 1, "only") { at + 2 } else { at + 1 };
        }
        if before("for") && self.is(at, "no") && self.is(at + 1, "key") && self.is(at + 2, "update") {
            return at + 2;
        }
        if before("for") && self.is(at, "key") && self.is(at + 1, "share") {
            return at + 1;
        }
        if self.is(at, "of") && (before("update") || before("share")) && self.lock_before(at) {
            return self.after_names(at + 1);
        }
        if before("where") && self.is(at, "current") && self.is(at + 1, "of") {
            out.push_str("TRUE");
            return at + 3;
        }
        if self.is(at, "exclude") {
            if self.is_any(at + 1, &["ties", "group"]) {
                return at + 2;
            }
            if (self.is(at + 1, "current") && self.is(at + 2, "row"))
                || (self.is(at + 1, "no") && self.is(at + 2, "others"))
            {
                return at + 3;
            }
        }
        out.push_str(self.raw(at));
        at + 1
    }

    /// Behind ONLY: `(name)` loses its parentheses.
    fn only(&self, at: usize, out: &mut String) -> usize {
        if !self.mark(at, "(") {
            return at;
        }
        let mut close = at + 1;
        while self.name_or_dot(close) {
            close += 1;
        }
        if !self.mark(close, ")") {
            return at;
        }
        let mut name = at + 1;
        while name < close {
            name = self.reword(name, at, out);
        }
        close + 1
    }

    fn name_or_dot(&self, at: usize) -> bool {
        let name = |token: Token| matches!(token.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted);
        self.mark(at, ".") || self.token(at).is_some_and(name)
    }

    fn only_here(&self, at: usize, from: usize) -> bool {
        let Some(before) = at.checked_sub(1).filter(|before| *before >= from) else { return false };
        self.is_any(before, &["from", "join", "update", "into", "using"]) || self.mark(before, ",")
    }

    fn lock_before(&self, at: usize) -> bool {
        (2..=4).any(|back| at >= back && self.is(at - back, "for"))
    }

    fn after_names(&self, mut at: usize) -> usize {
        loop {
            at += 1;
            if self.mark(at, ",") || self.mark(at, ".") {
                at += 1;
            } else {
                return at;
            }
        }
    }
}

fn push_quoted(out: &mut String, quote: char, text: &str) {
    out.push(quote);
    for letter in text.chars() {
        if letter == quote {
            out.push(quote);
        }
        out.push(letter);
    }
    out.push(quote);
}

/// PostgreSQL keeps 63 bytes of a name.
pub(crate) fn cut_name(mut name: String) -> String {
    const NAME_MAX: usize = 63;
    if name.len() > NAME_MAX {
        let cut = (0..=NAME_MAX).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(cut);
    }
    name
}

fn unquote(raw: &str, skip: usize, quote: char) -> String {
    let inner = raw.get(skip..).unwrap_or_default();
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    inner.replace("\"\"", "\"")
}

/// The value of a string from behind its first quote, over all its continuation lines.
fn pieces(mut rest: &str, backslashes: bool) -> String {
    let mut out = String::with_capacity(rest.len());
    loop {
        let mut letters = rest.char_indices().peekable();
        let mut end = rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\'' if letters.peek().is_some_and(|(_, next)| *next == '\'') => {
                    out.push('\'');
                    letters.next();
                }
                '\'' => {
                    end = at + 1;
                    break;
                }
                '\\' if backslashes => escape(&mut letters, &mut out),
                _ => out.push(letter),
            }
        }
        let after = rest.get(end..).unwrap_or_default();
        // What follows the quote inside one token is blanks and comments, then the next piece.
        match next_piece(after) {
            Some(next) => rest = next,
            None => return out,
        }
    }
}

fn next_piece(mut after: &str) -> Option<&str> {
    loop {
        after = after.trim_start();
        if let Some(comment) = after.strip_prefix("--") {
            after = comment.split_once(['\n', '\r'])?.1;
        } else {
            return after.strip_prefix('\'');
        }
    }
}

type Letters<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// One escape of an `E'…'` string, from behind the backslash.
fn escape(letters: &mut Letters<'_>, out: &mut String) {
    let Some((_, letter)) = letters.next() else { return };
    let code = match letter {
        'n' => Some(0x0a),
        't' => Some(0x09),
        'r' => Some(0x0d),
        'b' => Some(0x08),
        'f' => Some(0x0c),
        'x' => number(letters, 0, 2, 16),
        'u' => number(letters, 0, 4, 16),
        'U' => number(letters, 0, 8, 16),
        '0'..='7' => number(letters, letter.to_digit(8).unwrap_or(0), 2, 8),
        _ => None,
    };
    out.push(code.and_then(char::from_u32).unwrap_or(letter));
}

fn number(letters: &mut Letters<'_>, start: u32, most: usize, radix: u32) -> Option<u32> {
    let mut sum = start;
    for _ in 0..most {
        let Some(digit) = letters.peek().and_then(|(_, letter)| letter.to_digit(radix)) else { break };
        sum = sum.checked_mul(radix)?.checked_add(digit)?;
        letters.next();
    }
    Some(sum)
}

/// Decodes `\0061` and `\+000061`; none when an escape is wrong (the server refuses the statement then).
fn unicode(text: &str, escape: char) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut high: Option<u32> = None;
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = rest.get(letter.len_utf8()..)?;
        if letter != escape {
            out.push(letter);
            continue;
        }
        if let Some(after) = rest.strip_prefix(escape) {
            out.push(escape);
            rest = after;
            continue;
        }
        let (digits, skip) = if rest.starts_with('+') { (rest.get(1..7)?, 7) } else { (rest.get(..4)?, 4) };
        let code = u32::from_str_radix(digits, 16).ok()?;
        rest = rest.get(skip..)?;
        match (high.take(), code) {
            (None, 0xd800..0xdc00) => high = Some(code),
            (Some(first), 0xdc00..0xe000) => {
                out.push(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00))?);
            }
            _ => out.push(char::from_u32(code)?),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reword(text: &str, standard: bool) -> String {
        let words = Words::read(text, standard, 1000).unwrap();
        words.reworded(0, words.len())
    }

    #[test]
    fn strings_of_every_spelling_become_plain_ones() {
        assert_eq!(reword(r"select E'a\'b\x41\101\u0041'", true), " select 'a''bAAA'");
        assert_eq!(reword(r"select 'a\'b'", false), " select 'a''b'");
        assert_eq!(reword(r"select $x$a'b$x$, U&'d!0061' uescape '!'", true), " select 'a''b' , 'da'");
        assert_eq!(reword("select 'a' -- c\n 'b''c'", true), " select 'ab''c'");
    }

    #[test]
    fn names_are_folded_decoded_and_cut_to_63_bytes() {
        let long = "X".repeat(70);
        let words = Words::read(&long, true, 9).unwrap();
        assert_eq!(words.name(0).unwrap(), "x".repeat(63));
        let words = Words::read("U&\"d\\0061t\\+000061\" \"A\"\"b\" ÄB", true, 9).unwrap();
        assert_eq!(words.name(0).as_deref(), Some("data"));
        assert_eq!(words.name(1).as_deref(), Some("A\"b"));
        assert_eq!(words.name(2).as_deref(), Some("Äb"));
    }

    #[test]
    fn clauses_without_names_are_spelled_plainly() {
        assert_eq!(
            reword("select 1 from only t for no key update of t, u nowait", true),
            " select 1 from  t for  update  nowait"
        );
        assert_eq!(reword("table only t", true), " SELECT * FROM t");
        assert_eq!(reword("delete from t where current of c", true), " delete from t where TRUE");
    }
}
