//! Takes passwords out of statements before they are written down.
//!
//! What counts as one: a constant after the word PASSWORD (`ALTER ROLE … PASSWORD '…'`, options of
//! user mappings), `password=…` inside a constant (connection strings of dblink, subscriptions),
//! and the password of a URL inside a constant. It works on tokens, so it also works on statements
//! that PostgreSQL would refuse; in one about roles or user mappings, where the word itself may be what is
//! wrong (`ALTER ROLE … PASSWORT '…'`), every constant that is not known to be harmless. A literal compared with a column called password is data, and stays.

use super::lex::{Kind, Lexer, Token};

const WORD: &[u8] = b"password";
const STAND_IN: &[u8] = b"[redacted]";

/// Words before a constant that is no password, in a statement about a role or user mapping.
const HARMLESS: &[&[u8]] = &[b"until", b"to", b"user", b"username"];

/// Constants within constants (DO bodies) are followed this deep; what is deeper is replaced whole.
const DEPTH: usize = 4;

/// The text without its passwords; `None` if it holds none.
#[must_use]
pub fn redact(text: &[u8], standard_conforming_strings: bool) -> Option<Vec<u8>> {
    if find(text, WORD).is_none() && find(text, b"://").is_none() && !is_about_a_role(text) {
        return None;
    }
    redact_within(text, standard_conforming_strings, DEPTH)
}

/// Whether a statement begins as one that may set a password. Cheap for all that do not.
fn is_about_a_role(text: &[u8]) -> bool {
    // A comment may come first.
    if !matches!(text.trim_ascii_start().first(), Some(b'a' | b'A' | b'c' | b'C' | b'/' | b'-')) {
        return false;
    }
    let mut words = Lexer::new(text, true).map(|token| text.get(token.range()).unwrap_or_default());
    let mut next_is = |known: &[&[u8]]| {
        words.next().is_some_and(|own| known.iter().any(|word| own.eq_ignore_ascii_case(word)))
    };
    next_is(&[b"create", b"alter"]) && next_is(&[b"role", b"user", b"group"])
}

/// The text without its constants and comments: `?` stands for each constant.
#[must_use]
pub fn without_constants(text: &[u8], standard_conforming_strings: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut end = 0;
    for token in Lexer::new(text, standard_conforming_strings) {
        let gap = text.get(end..token.start).unwrap_or_default();
        // Between tokens there are blanks and comments; comments may hold anything.
        let comment = gap.iter().any(|byte| !byte.is_ascii_whitespace());
        out.extend_from_slice(if comment { b" " } else { gap });
        if token.kind.is_string() || token.kind == Kind::Number {
            out.push(b'?');
        } else {
            out.extend_from_slice(text.get(token.range()).unwrap_or_default());
        }
        end = token.end;
    }
    out
}

fn redact_within(text: &[u8], strings_standard: bool, depth: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let about_a_role = is_about_a_role(text);
    let (mut copied, mut after_word, mut sets) = (0, false, false);
    for token in Lexer::new(text, strings_standard) {
        let own = text.get(token.range()).unwrap_or_default();
        if token.kind.is_string() {
            let instead = if after_word {
                Some([b"'", STAND_IN, b"'"].concat())
            } else {
                redact_constant(own, token, strings_standard, depth)
            };
            if let Some(instead) = instead {
                out.extend_from_slice(text.get(copied..token.start).unwrap_or_default());
                out.extend_from_slice(&instead);
                copied = token.end;
            }
        }
        after_word = match token.kind {
            Kind::Word => own.eq_ignore_ascii_case(WORD),
            Kind::Quoted => own.eq_ignore_ascii_case(b"\"password\""),
            _ => false,
        };
        if about_a_role {
            sets |= own.eq_ignore_ascii_case(b"set");
            after_word |= match token.kind {
                Kind::Word => !HARMLESS.iter().any(|word| own.eq_ignore_ascii_case(word)),
                // The value of a setting: SET search_path = 'a', 'b'.
                Kind::Op | Kind::Punct(b',') => !sets,
                _ => true,
            };
        }
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    Some(out)
}

fn redact_constant(own: &[u8], token: Token, strings_standard: bool, depth: usize) -> Option<Vec<u8>> {
    if find(own, WORD).is_none() && find(own, b"://").is_none() {
        return None;
    }
    let inner = if token.kind == Kind::Dollar {
        let tag = own.iter().skip(1).position(|byte| *byte == b'$').map_or(0, |at| at + 2);
        let body = own.get(tag..own.len().saturating_sub(tag)).unwrap_or_default();
        match depth.checked_sub(1) {
            None => return Some([b"'", STAND_IN, b"'"].concat()),
            Some(depth) => redact_within(body, strings_standard, depth).map(|body| {
                [own.get(..tag).unwrap_or_default(), &body, own.get(own.len() - tag..).unwrap_or_default()]
                    .concat()
            }),
        }
    } else {
        None
    };
    let settings = redact_settings(inner.as_deref().unwrap_or(own));
    settings.or(inner)
}

/// `password=VALUE` and `scheme://user:PASSWORD@` inside a constant.
fn redact_settings(own: &[u8]) -> Option<Vec<u8>> {
    let mut out = own.to_vec();
    let mut changed = false;
    let mut from = 0;
    while let Some(at) = find(out.get(from..).unwrap_or_default(), WORD).map(|at| at + from) {
        from = at + WORD.len();
        let rest = out.get(from..).unwrap_or_default();
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if rest.get(blanks) != Some(&b'=') {
            continue;
        }
        let gap = rest.get(blanks + 1..).unwrap_or_default();
        let start = from + blanks + 1 + gap.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let value = out.get(start..).unwrap_or_default();
        let length = setting_length(value);
        out.splice(start..start + length, STAND_IN.iter().copied());
        (changed, from) = (true, start + STAND_IN.len());
    }
    from = 0;
    while let Some(at) = find(out.get(from..).unwrap_or_default(), b"://").map(|at| at + from) {
        from = at + 3;
        let authority = out.get(from..).unwrap_or_default();
        let end =
            authority.iter().position(|b| matches!(b, b'/' | b'?' | b'\'' | b' ')).unwrap_or(authority.len());
        let authority = authority.get(..end).unwrap_or_default();
        let colon = authority.iter().position(|byte| *byte == b':');
        let sign = authority.iter().rposition(|byte| *byte == b'@');
        if let (Some(colon), Some(sign)) = (colon, sign)
            && colon < sign
        {
            out.splice(from + colon + 1..from + sign, STAND_IN.iter().copied());
            changed = true;
        }
    }
    changed.then_some(out)
}

/// Length of a value in a connection string: quoted (the quotes are doubled inside a constant), or
/// up to a blank or the constant's end.
fn setting_length(value: &[u8]) -> usize {
    if value.starts_with(b"''") {
        let body = value.get(2..).unwrap_or_default();
        return body
            .windows(2)
            .position(|pair| pair == b"''")
            .map_or(value.len().saturating_sub(1), |at| at + 4);
    }
    value
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'\'' | b'&' | b'$'))
        .unwrap_or(value.len())
}

/// Where `needle` (lower case) begins in `text`, whatever the case of its letters.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = memchr::memchr2(first, first.to_ascii_uppercase(), text.get(from..)?) {
        let start = from + at;
        let candidate = text.get(start..start + needle.len())?;
        if candidate.eq_ignore_ascii_case(needle) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let redacted = redact(text.as_bytes(), true).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(redacted.as_deref(), expected);
    }

    #[test]
    fn passwords_of_roles_and_mappings_are_taken_out() {
        check(
            "ALTER ROLE a PASSWORD 'x''y' VALID UNTIL 'z'",
            Some("ALTER ROLE a PASSWORD '[redacted]' VALID UNTIL 'z'"),
        );
        check(
            "create user a encrypted password E'x\\'y'",
            Some("create user a encrypted password '[redacted]'"),
        );
        check(
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password 'x')",
            Some("CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password '[redacted]')"),
        );
        check("ALTER ROLE a PASSWORD $t$x$t$", Some("ALTER ROLE a PASSWORD '[redacted]'"));
    }

    #[test]
    fn a_statement_that_would_fail_is_no_exception() {
        check("ALTER ROL a PASSWORD 'x' garbage ((", Some("ALTER ROL a PASSWORD '[redacted]' garbage (("));
        check("ALTER ROLE a PASSWORD 'never closed", Some("ALTER ROLE a PASSWORD '[redacted]'"));
    }

    #[test]
    fn a_misspelt_word_gives_no_password_away() {
        check("alter role a passwort 'x'", Some("alter role a passwort '[redacted]'"));
        check(
            "/* ann */ CREATE USER a PASSWRD = 'x'",
            Some("/* ann */ CREATE USER a PASSWRD = '[redacted]'"),
        );
        check(
            "ALTER USER MAPPING FOR a SERVER s OPTIONS (user 'u', SET pasword 'x')",
            Some("ALTER USER MAPPING FOR a SERVER s OPTIONS (user 'u', SET pasword '[redacted]')"),
        );
        check("alter role a 'x' ('y')", Some("alter role a '[redacted]' ('[redacted]')"));
        check("ALTER ROLE a VALID UNTIL '2027-01-01'", None);
        check("ALTER ROLE a SET search_path = 'x', 'y'", None);
        check("ALTER ROLE a IN DATABASE d SET role TO 'b'", None);
        check("ALTER TABLE a ALTER b SET DEFAULT 'x'", None);
        check("COMMENT ON ROLE a IS 'x'", None);
    }

    #[test]
    fn passwords_in_connection_strings_are_taken_out() {
        check(
            "SELECT dblink('host=h password=x dbname=d', 'SELECT 1')",
            Some("SELECT dblink('host=h password=[redacted] dbname=d', 'SELECT 1')"),
        );
        check(
            "CREATE SUBSCRIPTION s CONNECTION 'host=h PASSWORD = ''a b'' x=y' PUBLICATION p",
            Some("CREATE SUBSCRIPTION s CONNECTION 'host=h PASSWORD = [redacted] x=y' PUBLICATION p"),
        );
        check(
            "SELECT dblink_connect('postgres://u:x@h/d?a=b')",
            Some("SELECT dblink_connect('postgres://u:[redacted]@h/d?a=b')"),
        );
    }

    #[test]
    fn constants_and_comments_are_left_out_and_names_stay() {
        let without = |text: &str| String::from_utf8(without_constants(text.as_bytes(), true)).unwrap();
        assert_eq!(
            without("SELECT a1, \"it's\"  FROM t /* ann */ WHERE b = 'x''y' AND c IN (1, -2.5e3) -- 'z'"),
            "SELECT a1, \"it's\"  FROM t WHERE b = ? AND c IN (?, -?)"
        );
        assert_eq!(without("DO $body$ SELECT 'secret' $body$"), "DO ?");
        assert_eq!(without("SELECT E'a\\'b', U&'x', b'01', $1, N'n'"), "SELECT ?, ?, ?, $1, ?");
        assert_eq!(without("SELECT 'never closed"), "SELECT ?");
    }

    #[test]
    fn passwords_within_do_bodies_are_taken_out() {
        check(
            "DO $$ BEGIN ALTER ROLE a PASSWORD 'x'; END $$",
            Some("DO $$ BEGIN ALTER ROLE a PASSWORD '[redacted]'; END $$"),
        );
    }

    #[test]
    fn data_stays() {
        check("SELECT * FROM users WHERE password = 'x'", None);
        check("SELECT password FROM users", None);
        check("ALTER ROLE a PASSWORD NULL", None);
        check("SELECT 'https://example.com/x'", None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z'$ =:/@]{0,30}(password|PASSWORD|://)[a-z'$ =:/@]{0,30}") {
            let _ = redact(text.as_bytes(), true);
            let _ = redact(text.as_bytes(), false);
        }
    }
}
