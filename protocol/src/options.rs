//! The `options` of a startup message: command-line words of the server, read as it reads them.
//!
//! Only what sets parameters is understood (`-c name=value`, `--name=value`, also behind other
//! flags in one word); everything else is passed over, and nothing is ever rewritten but by taking
//! out whole words.
//!
//! Source: `pg_split_opts` in `src/backend/utils/init/postinit.c`; `process_postgres_switches` in
//! `src/backend/tcop/postgres.c`; `ParseLongOption` in `src/backend/utils/misc/guc.c`.

use std::ops::Range;

/// Flags that take an argument (any version from 12 on).
const WITH_ARGUMENT: &[u8] = b"BCcDdfhkNprStvW-";

/// One parameter that the options set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, dashes made underscores, as the server does.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The words that set it, where they hold nothing else.
    whole: Option<Range<usize>>,
}

struct Word {
    place: Range<usize>,
    text: Vec<u8>,
}

/// The parameters that options set, in order.
pub fn settings(options: &[u8]) -> Vec<Setting> {
    let words = words(options);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let Some(flags) = word.text.strip_prefix(b"-").filter(|flags| !flags.is_empty()) else {
            break;
        };
        if flags == b"-" {
            break;
        }
        at += 1;
        let Some(index) = flags.iter().position(|flag| WITH_ARGUMENT.contains(flag)) else { continue };
        let rest = flags.get(index + 1..).unwrap_or_default();
        let (argument, end) = match (rest, words.get(at)) {
            ([], Some(next)) => {
                at += 1;
                (next.text.as_slice(), next.place.end)
            }
            ([], None) => break,
            (rest, _) => (rest, word.place.end),
        };
        let sets = matches!(flags.get(index), Some(b'c' | b'-'));
        let Some(equals) = memchr::memchr(b'=', argument).filter(|_| sets) else { continue };
        let (name, value) = argument.split_at(equals);
        found.push(Setting {
            name: name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect(),
            value: value.get(1..).unwrap_or_default().to_vec(),
            whole: (index == 0).then_some(word.place.start..end),
        });
    }
    found
}

/// The options without the words that set a parameter; everything else byte for byte.
pub fn without(options: &[u8], name: &str) -> Vec<u8> {
    let mut kept = options.to_vec();
    for setting in settings(options).into_iter().rev() {
        if let Some(range) = setting.whole.filter(|_| setting.name.eq_ignore_ascii_case(name.as_bytes())) {
            kept.drain(range);
        }
    }
    kept
}

/// White space separates words; a backslash takes the next byte as it is.
fn words(options: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = options.get(at) {
        if is_space(*byte) {
            at += 1;
            continue;
        }
        let (start, mut text) = (at, Vec::new());
        while let Some(byte) = options.get(at).filter(|byte| !is_space(**byte)) {
            at += 1;
            if *byte != b'\\' {
                text.push(*byte);
            } else if let Some(escaped) = options.get(at) {
                text.push(*escaped);
                at += 1;
            }
        }
        words.push(Word { place: start..at, text });
    }
    words
}

/// `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &str, expected: &[(&str, &str)]) {
        let found = settings(options.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found: Vec<_> = found.iter().map(|s| (text(&s.name), text(&s.value))).collect();
        let expected: Vec<_> = expected.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(found, expected, "{options}");
    }

    #[test]
    fn settings_are_read_as_postgresql_reads_them() {
        check(
            r"-c search_path=evil\ place -crole=x --work-mem=1MB -c a",
            &[("search_path", "evil place"), ("role", "x"), ("work_mem", "1MB")],
        );
        check("-e -sc role=x -d 3 -c b=c", &[("role", "x"), ("b", "c")]);
        check("-S 100 -c a=b=c", &[("a", "b=c")]);
        check("-c", &[]);
        check("- -c a=b", &[]);
        check("word -c a=b", &[]);
        check("-- -c a=b", &[]);
        check("\t\x0b-c\x0ca=b\\", &[("a", "b")]);
        check("", &[]);
    }

    #[test]
    fn a_setting_is_taken_out_and_the_rest_stays_byte_for_byte() {
        for (options, kept) in [
            ("-c pgwitness.login=password", ""),
            ("-c a=b  -c pgwitness.login=password -c c=d", "-c a=b   -c c=d"),
            ("--pgwitness.login=password\t-cx=y", "\t-cx=y"),
            (r"-c a=\  -cPGWITNESS.login=password", r"-c a=\  "),
            ("-ec pgwitness.login=password", "-ec pgwitness.login=password"),
            ("-c b=pgwitness.login=password", "-c b=pgwitness.login=password"),
        ] {
            assert_eq!(without(options.as_bytes(), "pgwitness.login"), kept.as_bytes(), "{options}");
        }
    }
}
