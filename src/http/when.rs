//! Moments as people write them in `from` and `to`: RFC 3339, a date, or relative to now. Pure: now
//! is an argument. Days begin at midnight UTC.

use pgwitness_index::record::Timestamp;
use pgwitness_index::view::parse_time;
use time::Date;
use time::macros::format_description;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// Reads a moment: `2026-11-21T08:00:00Z`, `2026-11-21`, `today`, `yesterday`, `now`, `now-1h`, `-15m`.
pub fn read(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let text = text.trim();
    let midnight = now.0.div_euclid(DAY_US) * DAY_US;
    match text {
        "now" => return Ok(now),
        "today" => return Ok(Timestamp(midnight)),
        "yesterday" => return Ok(Timestamp(midnight - DAY_US)),
        _ => {}
    }
    if let Some(ago) = text.strip_prefix("now-").or_else(|| text.strip_prefix('-')) {
        let ago_us = span_us(ago).ok_or_else(|| not_a_time(text))?;
        return Ok(Timestamp(now.0.saturating_sub(ago_us)));
    }
    absolute(text).ok_or_else(|| not_a_time(text))
}

/// A length of time such as `90s`, `15m`, `24h`, `7d`, `2w`, in microseconds.
pub fn span_us(text: &str) -> Option<i64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (digits, unit) = text.split_at(unit_at);
    let unit_us = match unit {
        "ms" => 1_000,
        "s" => SECOND_US,
        "m" | "min" => 60 * SECOND_US,
        "h" => 3_600 * SECOND_US,
        "d" => DAY_US,
        "w" => 7 * DAY_US,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(unit_us);
    }
    let amount: f64 = digits.parse().ok()?;
    let us = amount * unit_us as f64;
    (us.is_finite() && us < i64::MAX as f64).then_some(us as i64)
}

/// The wall clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

fn absolute(text: &str) -> Option<Timestamp> {
    if let Some(time) = parse_time(text) {
        return Some(time);
    }
    let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    date.midnight().assume_utc().unix_timestamp().checked_mul(SECOND_US).map(Timestamp)
}

fn not_a_time(text: &str) -> String {
    format!("{text:?} is not a time. Write 2026-11-21T08:00:00Z, 2026-11-21, today, now-1h or -15m")
}

#[cfg(test)]
mod tests {
    use pgwitness_index::view::format_time;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_251_600_000_000); // 2026-11-21T09:00:00Z

    #[test]
    fn relative_and_absolute_moments_are_read() {
        for (text, expected) in [
            ("now", "2026-11-21T09:00:00.000000Z"),
            ("-15m", "2026-11-21T08:45:00.000000Z"),
            ("now-1.5h", "2026-11-21T07:30:00.000000Z"),
            ("today", "2026-11-21T00:00:00.000000Z"),
            ("yesterday", "2026-11-20T00:00:00.000000Z"),
            ("2026-11-21", "2026-11-21T00:00:00.000000Z"),
            ("2026-11-21T10:00:00.5+01:00", "2026-11-21T09:00:00.500000Z"),
        ] {
            assert_eq!(read(text, NOW).map(format_time), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_never_overflows() {
        for text in ["", "-", "-5", "-5y", "tomorrow", "2026-13-01", "-99999999999999999999d", "-1e400d", "-.d"] {
            assert!(read(text, NOW).is_err(), "{text}");
        }
        assert!(span_us("9223372036854775807w").is_none());
    }
}
