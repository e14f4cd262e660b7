//! PostgreSQL's lexer, as far as cutting text into tokens goes (`scan.l`), over bytes.
//!
//! It decides where strings, comments, dollar quotes and identifiers end, so that everything built on it
//! (statement cutting, fingerprints, utility statements, the text handed to the parser) agrees with the
//! server. It never fails and never allocates: an unterminated token simply reaches the end of the text.

use std::ops::Range;

/// What a token is. Whitespace and comments are skipped and never returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An unquoted identifier or keyword.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`.
    UnicodeQuoted,
    /// `'…'` (or `N'…'`), read with or without backslash escapes as the session says.
    Text,
    /// `E'…'`.
    Escaped,
    /// `U&'…'`.
    UnicodeText,
    /// `B'…'` or `X'…'`.
    Bits,
    /// `$tag$…$tag$`.
    Dollar,
    /// A numeric constant.
    Number,
    /// `$1`.
    Param,
    /// An operator, `::`, `:=`, `=>` or `..`.
    Op,
    /// One of `, ( ) [ ] . ; :` alone.
    Punct(u8),
}

impl Kind {
    /// Whether the token is a string constant of any spelling.
    pub(crate) fn is_string(self) -> bool {
        matches!(self, Self::Text | Self::Escaped | Self::UnicodeText | Self::Bits | Self::Dollar)
    }
}

/// One token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Token {
    /// The bytes of the token in the text it was cut from.
    pub(crate) fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// Cuts one text into tokens.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    standard_strings: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `text`; `standard_strings` is the session's `standard_conforming_strings`.
    pub(crate) fn new(text: &'a [u8], standard_strings: bool) -> Self {
        Self { text, at: 0, standard_strings }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => self.skip_line_comment(),
                b'/' if self.peek(1) == b'*' => self.skip_block_comment(),
                _ => return,
            }
        }
    }

    fn skip_line_comment(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
    }

    /// From behind the opening quote to behind the closing one; a string goes on after blanks with a newline.
    fn string(&mut self, backslashes: bool) {
        loop {
            self.until_quote(b'\'', backslashes);
            if !self.continues() {
                return;
            }
        }
    }

    fn until_quote(&mut self, quote: u8, backslashes: bool) {
        // Without escapes a backslash is a byte like any other: looking for the quote twice is harmless.
        let escape = if backslashes { b'\\' } else { quote };
        while let Some(found) = memchr::memchr2(quote, escape, self.text.get(self.at..).unwrap_or_default()) {
            self.at += found;
            if self.peek(0) == quote && self.peek(1) != quote {
                self.at += 1;
                return;
            }
            // An escape and what it escapes, or a doubled quote.
            self.at += 2;
        }
        self.at = self.text.len();
    }

    /// After a closing quote: blanks (and line comments) holding a newline, then another quote.
    fn continues(&mut self) -> bool {
        let back = self.at;
        let mut newline = false;
        loop {
            match self.peek(0) {
                b'\n' | b'\r' => {
                    newline = true;
                    self.at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' && newline => self.skip_line_comment(),
                b'-' if self.peek(1) == b'-' => {
                    self.skip_line_comment();
                    newline = self.at < self.text.len();
                }
                b'\'' if newline => {
                    self.at += 1;
                    return true;
                }
                _ => {
                    self.at = back;
                    return false;
                }
            }
        }
    }

    /// At `$`: a parameter, a dollar quote, or a stray byte.
    fn dollar(&mut self) -> Kind {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_ascii_digit() {
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            return Kind::Param;
        }
        if is_tag_start(self.peek(0)) {
            while is_tag_start(self.peek(0)) || self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        if self.peek(0) != b'$' {
            self.at = start + 1;
            return Kind::Op;
        }
        self.at += 1;
        let tag = self.text.get(start..self.at).unwrap_or_default();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let close = memchr::memmem::find(rest, tag).map_or(rest.len(), |found| found + tag.len());
        self.at += close;
        Kind::Dollar
    }

    fn word(&mut self) -> Kind {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
        Kind::Word
    }

    /// A letter that may open a prefixed string, else a word.
    fn word_or_prefixed(&mut self, first: u8) -> Kind {
        let (next, third) = (self.peek(1), self.peek(2));
        match (first.to_ascii_lowercase(), next) {
            (b'e', b'\'') => {
                self.at += 2;
                self.string(true);
                Kind::Escaped
            }
            (b'b' | b'x', b'\'') => {
                self.at += 2;
                self.string(false);
                Kind::Bits
            }
            (b'n', b'\'') => {
                self.at += 2;
                self.string(!self.standard_strings);
                Kind::Text
            }
            (b'u', b'&') if third == b'\'' => {
                self.at += 3;
                self.string(false);
                Kind::UnicodeText
            }
            (b'u', b'&') if third == b'"' => {
                self.at += 3;
                self.until_quote(b'"', false);
                Kind::UnicodeQuoted
            }
            _ => self.word(),
        }
    }

    fn number(&mut self) -> Kind {
        if self.peek(0) == b'0'
            && matches!(self.peek(1) | 0x20, b'x' | b'o' | b'b')
            && self.peek(2).is_ascii_hexdigit()
        {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() || self.peek(0) == b'_' {
                self.at += 1;
            }
            return Kind::Number;
        }
        self.digits();
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            self.at += 1;
            self.digits();
        }
        let signed = usize::from(matches!(self.peek(1), b'+' | b'-'));
        if self.peek(0) | 0x20 == b'e' && self.peek(1 + signed).is_ascii_digit() {
            self.at += 1 + signed;
            self.digits();
        }
        Kind::Number
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() || (self.peek(0) == b'_' && self.peek(1).is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// The longest operator, cut before a comment; a trailing `+` or `-` stays only behind an unusual sign.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        while is_op(self.peek(0)) {
            let comment = matches!((self.peek(0), self.peek(1)), (b'/', b'*') | (b'-', b'-'));
            if comment && self.at > start {
                break;
            }
            self.at += 1;
        }
        let found = self.text.get(start..self.at).unwrap_or_default();
        if !found.iter().any(|byte| is_unusual_op(*byte)) {
            while self.at > start + 1 && matches!(self.text.get(self.at - 1), Some(b'+' | b'-')) {
                self.at -= 1;
            }
        }
        Kind::Op
    }

    fn colon_or_dot(&mut self, first: u8) -> Kind {
        let double = matches!((first, self.peek(1)), (b':', b':' | b'=') | (b'.', b'.'));
        self.at += if double { 2 } else { 1 };
        if double { Kind::Op } else { Kind::Punct(first) }
    }

    fn token(&mut self, first: u8) -> Kind {
        match first {
            b'\'' => {
                self.at += 1;
                self.string(!self.standard_strings);
                Kind::Text
            }
            b'"' => {
                self.at += 1;
                self.until_quote(b'"', false);
                Kind::Quoted
            }
            b'$' => self.dollar(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            b':' | b'.' => self.colon_or_dot(first),
            b',' | b'(' | b')' | b'[' | b']' | b';' => {
                self.at += 1;
                Kind::Punct(first)
            }
            _ if first.is_ascii_digit() => self.number(),
            _ if is_tag_start(first) => self.word_or_prefixed(first),
            _ if is_op(first) => self.operator(),
            _ => {
                self.at += 1;
                Kind::Op
            }
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let first = *self.text.get(start)?;
        let kind = self.token(first);
        self.at = self.at.min(self.text.len());
        Some(Token { kind, start, end: self.at })
    }
}

fn is_tag_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Which bytes continue a word.
const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

/// Signs behind which an operator may end in `+` or `-`.
fn is_unusual_op(byte: u8) -> bool {
    matches!(byte, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%')
}

fn is_op(byte: u8) -> bool {
    is_unusual_op(byte) || matches!(byte, b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, standard: bool) -> Vec<&str> {
        Lexer::new(text.as_bytes(), standard).map(|token| &text[token.range()]).collect()
    }

    #[test]
    fn strings_end_where_the_session_says() {
        assert_eq!(cut(r"'a\'' b", true), [r"'a\'' b"]);
        assert_eq!(cut(r"'a\'' b", false), [r"'a\''", "b"]);
        assert_eq!(cut(r"E'a\'' b", true), [r"E'a\''", "b"]);
        assert_eq!(cut("'a' -- x\n 'b' c", true), ["'a' -- x\n 'b'", "c"]);
        assert_eq!(cut("'a' 'b'", true), ["'a'", "'b'"]);
    }

    #[test]
    fn comments_nest_and_operators_stop_before_them() {
        assert_eq!(cut("a /* x /* y */ ; */ b", true), ["a", "b"]);
        assert_eq!(cut("1+/*;*/2", true), ["1", "+", "2"]);
        assert_eq!(cut("a@>-1", true), ["a", "@>-", "1"]);
        assert_eq!(cut("a=-1", true), ["a", "=", "-", "1"]);
    }

    #[test]
    fn dollar_quotes_identifiers_and_parameters_are_told_apart() {
        assert_eq!(cut("$a$;$b$;$a$ x$1 $1", true), ["$a$;$b$;$a$", "x$1", "$1"]);
        assert_eq!(cut("u&\"d!0061\" uescape '!'", true), ["u&\"d!0061\"", "uescape", "'!'"]);
        assert_eq!(cut("1.5e-3 1..2 a.b::c", true), ["1.5e-3", "1", "..", "2", "a", ".", "b", "::", "c"]);
    }
}
