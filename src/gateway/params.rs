//! Bound values as people read them: text as it is, binary of the common types decoded.
//!
//! A value that is not decoded is kept as bytes; nothing is guessed.
//!
//! Source: the `…send` functions in `src/backend/utils/adt`; OIDs from `pg_type.dat`.

use std::fmt::Write;

use pgwitness_index::record::Param;
use pgwitness_protocol::frontend::{Format, Value};

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const CHAR: u32 = 18;
const NAME: u32 = 19;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const JSON: u32 = 114;
const XML: u32 = 142;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const UNKNOWN: u32 = 705;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// Microseconds from 1970 to PostgreSQL's epoch, 2000-01-01.
const POSTGRES_EPOCH_US: i128 = 946_684_800_000_000;

/// A value's bytes as its text form has them: what a keyed hash is made of.
pub(crate) fn bytes(value: &Param) -> Vec<u8> {
    match value {
        Param::Null => Vec::new(),
        Param::Bool(value) => value.to_string().into_bytes(),
        Param::Int(value) => value.to_string().into_bytes(),
        Param::Float(value) => value.to_string().into_bytes(),
        Param::Text(text) => text.clone().into_bytes(),
        Param::Bytes(bytes) => bytes.clone(),
    }
}

/// One bound value, by the type the client or the server named (0: not known).
pub(crate) fn decode(value: Value<'_>, type_oid: u32) -> Param {
    match (value.bytes, value.format) {
        (None, _) => Param::Null,
        (Some(bytes), Format::Text) => text(bytes, type_oid),
        (Some(bytes), Format::Binary) => {
            binary(bytes, type_oid).unwrap_or_else(|| Param::Bytes(bytes.to_vec()))
        }
    }
}

fn text(bytes: &[u8], type_oid: u32) -> Param {
    let Ok(text) = std::str::from_utf8(bytes) else { return Param::Bytes(bytes.to_vec()) };
    let typed = match type_oid {
        INT2 | INT4 | INT8 | OID => text.parse().ok().map(Param::Int),
        FLOAT4 | FLOAT8 => text.parse().ok().filter(|f: &f64| f.is_finite()).map(Param::Float),
        BOOL => match text {
            "t" | "true" => Some(Param::Bool(true)),
            "f" | "false" => Some(Param::Bool(false)),
            _ => None,
        },
        _ => None,
    };
    typed.unwrap_or_else(|| Param::Text(text.to_owned()))
}

fn binary(bytes: &[u8], type_oid: u32) -> Option<Param> {
    Some(match type_oid {
        BOOL => Param::Bool(matches!(bytes, [1])),
        INT2 => Param::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        INT4 => Param::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        INT8 => Param::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        OID => Param::Int(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        FLOAT4 => float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        FLOAT8 => float(f64::from_be_bytes(bytes.try_into().ok()?)),
        CHAR | NAME | TEXT | JSON | XML | UNKNOWN | BPCHAR | VARCHAR => {
            Param::Text(std::str::from_utf8(bytes).ok()?.to_owned())
        }
        JSONB => Param::Text(std::str::from_utf8(bytes.strip_prefix(&[1])?).ok()?.to_owned()),
        BYTEA => Param::Bytes(bytes.to_vec()),
        UUID => Param::Text(uuid::Uuid::from_slice(bytes).ok()?.to_string()),
        DATE => moment(i128::from(i32::from_be_bytes(bytes.try_into().ok()?)) * 86_400_000_000, "date")?,
        TIMESTAMP => moment(i64::from_be_bytes(bytes.try_into().ok()?).into(), "timestamp")?,
        TIMESTAMPTZ => moment(i64::from_be_bytes(bytes.try_into().ok()?).into(), "timestamptz")?,
        NUMERIC => Param::Text(numeric(bytes)?),
        _ => return None,
    })
}

fn float(value: f64) -> Param {
    if value.is_finite() { Param::Float(value) } else { Param::Text(value.to_string()) }
}

/// Microseconds since PostgreSQL's epoch, in its own text form. Infinity and far years stay bytes.
fn moment(us: i128, form: &str) -> Option<Param> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos((us + POSTGRES_EPOCH_US) * 1000).ok()?;
    let (date, time) = (at.date(), at.time());
    let mut out = date.to_string();
    if form != "date" {
        let _ = write!(out, " {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
        if time.microsecond() != 0 {
            let fraction = format!(".{:06}", time.microsecond());
            out.push_str(fraction.trim_end_matches('0'));
        }
        out.push_str(if form == "timestamptz" { "+00" } else { "" });
    }
    Some(Param::Text(out))
}

/// `numeric_send`: groups of four decimal digits.
fn numeric(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()? as i16, words.next()?, words.next()?);
    let mut out = match sign {
        0x0000 => String::new(),
        0x4000 => "-".to_owned(),
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    };
    let groups: Vec<u16> = words.collect();
    if groups.len() != usize::from(count) || groups.iter().any(|group| *group > 9999) {
        return None;
    }
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    if weight < 0 {
        out.push('0');
    }
    for at in 0..=weight {
        let _ = if at == 0 { write!(out, "{}", group(at)) } else { write!(out, "{:04}", group(at)) };
    }
    if scale > 0 {
        let mut fraction = String::new();
        for at in (weight + 1)..(weight + 1 + i32::from(scale.div_ceil(4))) {
            let _ = write!(fraction, "{:04}", group(at));
        }
        fraction.truncate(usize::from(scale));
        let _ = write!(out, ".{fraction}");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(type_oid: u32, bytes: &[u8], expected: Param) {
        let value = Value { format: Format::Binary, bytes: Some(bytes) };
        assert_eq!(decode(value, type_oid), expected);
    }

    fn text(expected: &str) -> Param {
        Param::Text(expected.into())
    }

    #[test]
    fn common_binary_types_are_decoded() {
        check(INT4, &(-7i32).to_be_bytes(), Param::Int(-7));
        check(BOOL, &[1], Param::Bool(true));
        check(DATE, &0i32.to_be_bytes(), text("2000-01-01"));
        check(TIMESTAMPTZ, &1_500_000i64.to_be_bytes(), text("2000-01-01 00:00:01.5+00"));
        check(UUID, &[0; 16], text("00000000-0000-0000-0000-000000000000"));
        check(JSONB, b"\x01{}", text("{}"));
    }

    #[test]
    fn numeric_reads_as_postgresql_writes_it() {
        let send = |weight: i16, sign: u16, scale: u16, groups: &[u16]| {
            let head = [groups.len() as u16, weight as u16, sign, scale];
            head.iter().chain(groups).flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>()
        };
        check(NUMERIC, &send(0, 0, 2, &[12, 3400]), text("12.34"));
        check(NUMERIC, &send(1, 0x4000, 0, &[1, 2]), text("-10002"));
        check(NUMERIC, &send(-1, 0, 4, &[5]), text("0.0005"));
        check(NUMERIC, &send(-2, 0, 8, &[1]), text("0.00000001"));
        check(NUMERIC, &send(0, 0, 0, &[]), text("0"));
        check(NUMERIC, &send(1, 0, 0, &[3]), text("30000"));
    }

    #[test]
    fn what_is_not_known_stays_bytes_and_nothing_panics() {
        check(600, b"\x01\x02", Param::Bytes(vec![1, 2]));
        for type_oid in [BOOL, INT2, INT4, INT8, OID, FLOAT4, FLOAT8, JSONB, UUID, DATE, TIMESTAMP, NUMERIC] {
            for length in 0..20 {
                let bytes = vec![0xff; length];
                decode(Value { format: Format::Binary, bytes: Some(&bytes) }, type_oid);
            }
        }
    }

    #[test]
    fn null_the_empty_string_and_untyped_text_are_told_apart() {
        let value = |bytes| Value { format: Format::Text, bytes };
        assert_eq!(decode(value(None), 0), Param::Null);
        assert_eq!(decode(value(Some(b"")), 0), text(""));
        assert_eq!(decode(value(Some(b"7")), 0), text("7"));
        assert_eq!(decode(value(Some(b"7")), INT4), Param::Int(7));
        assert_eq!(decode(value(Some(b"\xff")), TEXT), Param::Bytes(vec![0xff]));
    }
}
