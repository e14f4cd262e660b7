//! What a value means for the field it is asked of: keywords, names, words, numbers, durations,
//! times and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use super::field::{Field, Kind, nearest};
use super::query::{Leaf, QueryError, Text};
use super::words;
use crate::record::Timestamp;

/// Most words in a row.
const MAX_PHRASE: usize = 32;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A value as it was written, without its quotes and its trailing star.
pub(crate) struct Raw {
    pub(crate) text: String,
    pub(crate) prefix: bool,
    pub(crate) quoted: bool,
}

impl Raw {
    pub(crate) fn bare(text: &str) -> Raw {
        match text.strip_suffix('*') {
            Some("") | None => Raw { text: text.to_owned(), prefix: false, quoted: false },
            Some(head) => Raw { text: head.to_owned(), prefix: true, quoted: false },
        }
    }

    fn starts_with_star(&self) -> bool {
        self.text.starts_with('*') && self.text.len() > 1 && !self.quoted
    }
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Is,
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Compare {
    /// The comparison at the beginning of a text.
    pub(crate) fn leading(text: &str) -> Compare {
        match text.as_bytes() {
            [b'>', b'=', ..] => Compare::AtLeast,
            [b'>', ..] => Compare::Above,
            [b'<', b'=', ..] => Compare::AtMost,
            [b'<', ..] => Compare::Below,
            _ => Compare::Is,
        }
    }

    /// Its length in bytes.
    pub(crate) const fn len(self) -> usize {
        match self {
            Compare::Is => 0,
            Compare::Above | Compare::Below => 1,
            Compare::AtLeast | Compare::AtMost => 2,
        }
    }
}

/// Why a value does not fit its field.
#[derive(Debug)]
pub(crate) struct Fault {
    message: String,
    suggestion: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>) -> Fault {
        Fault { message: message.into(), suggestion: None }
    }

    pub(crate) fn at(self, span: Range<usize>) -> QueryError {
        QueryError { message: self.message, span, suggestion: self.suggestion }
    }
}

/// The condition that `name` compares to `raw`.
pub(crate) fn leaf(
    field: Field,
    name: &str,
    compare: Compare,
    raw: &Raw,
    now: Timestamp,
) -> Result<Leaf, Fault> {
    if raw.text == "*" && !raw.quoted && compare == Compare::Is {
        return Ok(Leaf::Exists(field));
    }
    let ordered = matches!(field.kind(), Kind::Count | Kind::Duration | Kind::Time);
    if compare != Compare::Is && !ordered {
        return Err(Fault::new(format!(
            "{name} has no order, so it cannot be compared by < or >. Use {name}:value"
        )));
    }
    if raw.prefix && (ordered || (field.kind() == Kind::Ip && raw.text.contains(':'))) {
        return Err(Fault::new(format!("{name} takes no *. Use a range such as {name}:a..b")));
    }
    match field.kind() {
        Kind::Keyword | Kind::Person => keyword(field, name, raw),
        Kind::Object => {
            object(&raw.text, raw.prefix).map(|(tail, prefix)| Leaf::Object { field, tail, prefix })
        }
        Kind::Text if raw.starts_with_star() => match field {
            Field::Sql => part(raw, &[Field::Sql]),
            Field::Params => part(raw, &[Field::Params]),
            _ => part(raw, &[Field::Error]),
        },
        Kind::Text => match text(raw)? {
            Some(text) => Ok(Leaf::Text { field, text }),
            None => Err(Fault::new("there is no letter or digit to search for")),
        },
        Kind::Count => number(field, compare, &raw.text, count),
        Kind::Duration if name.eq_ignore_ascii_case(Field::Duration.name()) => {
            number(field, compare, &raw.text, |text| duration(text).or_else(|_| count(text)))
        }
        Kind::Duration => number(field, compare, &raw.text, duration),
        Kind::Time => time(compare, &raw.text, now),
        Kind::Ip => ip(raw),
    }
}

/// The condition of a bare word or phrase; `None` if there is no letter or digit in it.
pub(crate) fn free(raw: &Raw) -> Result<Option<Leaf>, Fault> {
    if raw.starts_with_star() && raw.text.contains(char::is_alphanumeric) {
        return part(raw, &[Field::Sql, Field::Params, Field::Error]).map(Some);
    }
    let Some(text) = text(raw)? else {
        return Ok(None);
    };
    let parts = raw.text.split('.').count();
    let named = raw.text.split('.').all(|part| words::single_name(part).is_some());
    let object = match (2..=3).contains(&parts) && named {
        true => Some(object(&raw.text, raw.prefix)?),
        false => None,
    };
    Ok(Some(Leaf::Free { text, object }))
}

/// `*part*`: letters anywhere in a text.
fn part(raw: &Raw, fields: &'static [Field]) -> Result<Leaf, Fault> {
    let letters = raw.text.trim_start_matches('*');
    if !raw.prefix || letters.contains('*') {
        return Err(Fault::new("a * at the beginning needs one at the end, and none between: *part*"));
    }
    if !letters.contains(char::is_alphanumeric) {
        return Err(Fault::new("there is no letter or digit to search for"));
    }
    Ok(Leaf::Part { fields, letters: words::folded(letters) })
}

fn keyword(field: Field, name: &str, raw: &Raw) -> Result<Leaf, Fault> {
    let value = raw.text.to_lowercase();
    if !raw.quoted && value.contains('*') {
        return Err(Fault::new("a * can only stand at the end. Quote the value to mean the character"));
    }
    if let Some(known) = field.vocabulary()
        && !raw.prefix
        && !known.contains(&value.as_str())
    {
        let suggestion = nearest(&value, known.iter().copied()).map(str::to_owned);
        return Err(Fault { message: format!("{name} is one of {}", known.join(", ")), suggestion });
    }
    Ok(Leaf::Word { field, value, prefix: raw.prefix })
}

/// `*.ssn`, `users.email`, `public.users.*` as a tail and whether it may go on.
fn object(text: &str, prefix: bool) -> Result<(String, bool), Fault> {
    let mut name = text;
    while let Some(rest) = name.strip_prefix("*.") {
        name = rest;
    }
    if name.contains('*') {
        return Err(Fault::new("a * can only stand for the beginning (*.email) or at the end (users.*)"));
    }
    if name.is_empty() {
        return Err(Fault::new("a name is missing after *."));
    }
    let parts = name.matches('.').count() + 1;
    Ok((format!("{parts}{}", name.to_lowercase()), prefix))
}

fn text(raw: &Raw) -> Result<Option<Text>, Fault> {
    let ends_in_word = raw.text.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    let prefix = raw.prefix && ends_in_word;
    if let Some(whole) = words::single_name(&raw.text) {
        return Ok(Some(Text { whole: Some(whole), phrase: Vec::new(), prefix }));
    }
    let mut phrase = words::smallest(&raw.text);
    if phrase.is_empty() {
        return Ok(None);
    }
    let whole = words::compound(&raw.text);
    if phrase.len() > MAX_PHRASE {
        if whole.is_none() {
            return Err(Fault::new(format!("a phrase can have at most {MAX_PHRASE} words")));
        }
        phrase.clear();
    }
    Ok(Some(Text { whole, phrase, prefix }))
}

/// A value to be found as one word.
pub(crate) fn whole_word(value: &str) -> Option<Text> {
    text(&Raw { text: value.to_owned(), prefix: false, quoted: true }).ok().flatten()
}

fn number(
    field: Field,
    compare: Compare,
    text: &str,
    read: impl Fn(&str) -> Result<u64, Fault>,
) -> Result<Leaf, Fault> {
    let (min, max) = match (compare, text.split_once("..")) {
        (Compare::Is, Some((from, to))) => {
            let min = if from.is_empty() { 0 } else { read(from)? };
            let max = if to.is_empty() { u64::MAX } else { read(to)? };
            (min, max)
        }
        _ => {
            let value = read(text)?;
            match compare {
                Compare::Is => (value, value),
                Compare::Above => value.checked_add(1).map_or((1, 0), |min| (min, u64::MAX)),
                Compare::AtLeast => (value, u64::MAX),
                Compare::Below => value.checked_sub(1).map_or((1, 0), |max| (0, max)),
                Compare::AtMost => (0, value),
            }
        }
    };
    Ok(Leaf::Number { field, min, max })
}

/// A number and the letters after it.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// `digits * factor`, exact for whole numbers.
fn scaled(digits: &str, factor: u64) -> Option<u64> {
    let digits = digits.replace('_', "");
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = digits.split_once('.')?;
    if fraction.is_empty() || fraction.len() > 18 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let below =
        u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(factor)?.checked_add(u64::try_from(below).ok()?)
}

fn count(text: &str) -> Result<u64, Fault> {
    let (digits, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "t" | "tb" => Some(1_000_000_000_000),
        "ki" | "kib" => Some(1 << 10),
        "mi" | "mib" => Some(1 << 20),
        "gi" | "gib" => Some(1 << 30),
        "ti" | "tib" => Some(1 << 40),
        _ => None,
    };
    factor
        .and_then(|factor| scaled(digits, factor))
        .ok_or_else(|| Fault::new(format!("{text:?} is not a count. Write 500, 10k or 2MiB")))
}

fn duration(text: &str) -> Result<u64, Fault> {
    let (digits, unit) = split_unit(text);
    let factor = match unit.to_lowercase().as_str() {
        "us" | "µs" | "μs" => Some(1),
        "ms" => Some(1_000),
        "s" | "sec" => Some(1_000_000),
        "m" | "min" => Some(60_000_000),
        "h" => Some(3_600_000_000),
        "d" => Some(86_400_000_000),
        _ => None,
    };
    factor
        .and_then(|factor| scaled(digits, factor))
        .ok_or_else(|| Fault::new(format!("{text:?} is not a duration. Write 200ms, 1.5s or 2m")))
}

fn time(compare: Compare, text: &str, now: Timestamp) -> Result<Leaf, Fault> {
    if compare == Compare::Is
        && let Some((from, to)) = text.split_once("..")
    {
        let min = if from.is_empty() { i64::MIN } else { moment(from, now)?.first };
        let max = if to.is_empty() { i64::MAX } else { moment(to, now)?.last };
        return Ok(Leaf::Time { min, max });
    }
    let moment = moment(text, now)?;
    let (min, max) = match compare {
        Compare::Is if moment.relative => (moment.first, i64::MAX),
        Compare::Is => (moment.first, moment.last),
        Compare::Above => moment.last.checked_add(1).map_or((1, 0), |min| (min, i64::MAX)),
        Compare::AtLeast => (moment.first, i64::MAX),
        Compare::Below => moment.first.checked_sub(1).map_or((1, 0), |max| (i64::MIN, max)),
        Compare::AtMost => (i64::MIN, moment.last),
    };
    Ok(Leaf::Time { min, max })
}

/// The microseconds a written time covers: a day, a minute, an instant.
#[derive(Clone, Copy)]
struct Moment {
    first: i64,
    last: i64,
    relative: bool,
}

impl Moment {
    fn span(first: i64, length: i64) -> Moment {
        Moment { first, last: first.saturating_add(length - 1), relative: false }
    }
}

/// Understands `-15m`, `now-1h`, `today`, `2026-11-21` and RFC 3339 as one point in time: its first
/// microsecond.
pub fn parse_instant(text: &str, now: Timestamp) -> Option<Timestamp> {
    moment(text, now).ok().map(|moment| Timestamp(moment.first))
}

fn moment(text: &str, now: Timestamp) -> Result<Moment, Fault> {
    let fault = || {
        Fault::new(format!(
            "{text:?} is not a time. Write -15m, now-1h, today, 2026-11-21 or 2026-11-21T10:00:00Z"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let midnight = now.0 - now.0.rem_euclid(DAY);
    match lower.as_str() {
        "now" => return Ok(Moment::span(now.0, 1)),
        "today" => return Ok(Moment::span(midnight, DAY)),
        "yesterday" => return Ok(Moment::span(midnight - DAY, DAY)),
        _ => {}
    }
    let shift = lower.strip_prefix("now").unwrap_or(&lower);
    if let Some(sign) = shift.strip_prefix('-').map(|_| -1).or_else(|| shift.strip_prefix('+').map(|_| 1)) {
        let by = relative(&shift[1..]).ok_or_else(fault)?;
        let first = now.0.checked_add(sign * by).ok_or_else(fault)?;
        return Ok(Moment { first, last: first, relative: true });
    }
    absolute(&lower).ok_or_else(fault)
}

fn relative(text: &str) -> Option<i64> {
    let (digits, unit) = split_unit(text);
    let seconds: u64 = match unit {
        "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    scaled(digits, seconds * 1_000_000).and_then(|micros| i64::try_from(micros).ok())
}

/// `2026`, `2026-11`, `2026-11-21`, and with `T` or a blank an hour, minute, second or fraction, in
/// UTC or with an offset.
fn absolute(text: &str) -> Option<Moment> {
    let (day, clock) = match text.split_once(['t', ' ']) {
        Some((day, clock)) => (day, Some(clock)),
        None => (text.strip_suffix('z').unwrap_or(text), None),
    };
    let mut numbers = day.split('-');
    let year: i32 = fixed(numbers.next()?, 4)?;
    let month = numbers.next().map(|part| fixed::<u8>(part, 2).and_then(|month| Month::try_from(month).ok()));
    let date = numbers.next().map(|part| fixed::<u8>(part, 2));
    if numbers.next().is_some() {
        return None;
    }
    let begin = |month: Month, date: u8| Some(micros(Date::from_calendar_date(year, month, date).ok()?));
    match (month, date, clock) {
        (None, None, None) => {
            let next = micros(Date::from_calendar_date(year.checked_add(1)?, Month::January, 1).ok()?);
            let first = begin(Month::January, 1)?;
            Some(Moment::span(first, next - first))
        }
        (Some(month), None, None) => {
            let month = month?;
            Some(Moment::span(begin(month, 1)?, i64::from(month.length(year)) * DAY))
        }
        (Some(month), Some(date), None) => Some(Moment::span(begin(month?, date?)?, DAY)),
        (Some(month), Some(date), Some(clock)) => time_of_day(begin(month?, date?)?, clock),
        _ => None,
    }
}

fn time_of_day(midnight: i64, clock: &str) -> Option<Moment> {
    let (clock, offset) = match clock.find(['z', '+', '-']) {
        Some(at) => (&clock[..at], offset_of(&clock[at..])?),
        None => (clock, 0),
    };
    let mut parts = clock.split(':');
    let hour: u8 = fixed(parts.next()?, 2)?;
    let minute = parts.next();
    let second = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let minutes: u8 = minute.map_or(Some(0), |text| fixed(text, 2))?;
    let (seconds, fraction) = match second {
        None => (0, None),
        Some(text) => match text.split_once('.') {
            None => (fixed(text, 2)?, None),
            Some((whole, fraction)) => (fixed(whole, 2)?, Some(fraction)),
        },
    };
    let time = Time::from_hms(hour, minutes, seconds).ok()?;
    let mut first = midnight + i64::from(time.hour()) * 3_600 * SECOND - offset;
    first += (i64::from(time.minute()) * 60 + i64::from(time.second())) * SECOND;
    let length = match (minute, second, fraction) {
        (None, ..) => 3_600 * SECOND,
        (_, None, _) => 60 * SECOND,
        (_, _, None) => SECOND,
        (_, _, Some(fraction)) => {
            let digits = &fraction.get(..fraction.len().min(6))?;
            let unit = 10i64.pow(6 - u32::try_from(digits.len()).ok()?);
            first += fixed::<i64>(digits, digits.len())? * unit;
            unit
        }
    };
    Some(Moment::span(first, length))
}

fn offset_of(text: &str) -> Option<i64> {
    if text == "z" {
        return Some(0);
    }
    let sign: i8 = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = match text[1..].split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None => (&text[1..], "00"),
    };
    let hours: i8 = fixed(hours, 2)?;
    let minutes: i8 = fixed(minutes, 2)?;
    let offset = UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()?;
    Some(i64::from(offset.whole_seconds()) * SECOND)
}

/// A number of exactly so many digits.
fn fixed<T: std::str::FromStr>(text: &str, digits: usize) -> Option<T> {
    (!text.is_empty() && text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn micros(date: Date) -> i64 {
    OffsetDateTime::new_utc(date, Time::MIDNIGHT).unix_timestamp() * SECOND
}

fn ip(raw: &Raw) -> Result<Leaf, Fault> {
    let fault = || {
        Fault::new(format!(
            "{:?} is not an address. Write 10.1.2.3, 10.0.0.0/8, 10.1.* or fe80::/10",
            raw.text
        ))
    };
    let network = if raw.prefix { star(&raw.text) } else { network(&raw.text) };
    let (min, max) = network.ok_or_else(fault)?;
    Ok(Leaf::Ip { min, max })
}

/// `10.1.` of `10.1.*`.
fn star(head: &str) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let parts: Vec<u8> =
        head.strip_suffix('.')?.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    if parts.is_empty() || parts.len() > 3 {
        return None;
    }
    let mut low = [0; 4];
    let mut high = [255; 4];
    low[..parts.len()].copy_from_slice(&parts);
    high[..parts.len()].copy_from_slice(&parts);
    Some((Ipv4Addr::from(low).to_ipv6_mapped(), Ipv4Addr::from(high).to_ipv6_mapped()))
}

fn network(text: &str) -> Option<(Ipv6Addr, Ipv6Addr)> {
    if let Some((from, to)) = text.split_once("..") {
        return Some((address(from)?, address(to)?));
    }
    let Some((base, bits)) = text.split_once('/') else {
        let one = address(text)?;
        return Some((one, one));
    };
    let bits: u32 = bits.parse().ok()?;
    let host = match base.parse().ok()? {
        IpAddr::V4(_) => 32u32.checked_sub(bits)?,
        IpAddr::V6(_) => 128u32.checked_sub(bits)?,
    };
    let mask = 1u128.checked_shl(host).map_or(u128::MAX, |bit| bit - 1);
    let base = u128::from(address(base)?);
    Some((Ipv6Addr::from(base & !mask), Ipv6Addr::from(base | mask)))
}

/// An address as the index keeps it: IPv4 mapped into IPv6.
pub(crate) fn address(text: &str) -> Option<Ipv6Addr> {
    Some(match text.parse().ok()? {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    })
}
