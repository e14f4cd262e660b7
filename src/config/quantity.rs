//! Durations and sizes as people write them.

use std::time::Duration;

/// `500ms`, `90s`, `3m`, `12h`, `90d`, `7y` (of 365 days).
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 365 * 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// `512`, `64KiB`, `1MiB`, `2GiB`; `kB`, `MB`, `GB` count in thousands.
pub(crate) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes).and_then(|bytes| usize::try_from(bytes).ok())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units_and_nothing_else() {
        assert_eq!(duration("3m"), Some(Duration::from_secs(180)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("3"), None);
        assert_eq!(duration("m"), None);
        assert_eq!(size("1MiB"), Some(1 << 20));
        assert_eq!(size("64"), Some(64));
        assert_eq!(size("1 XiB"), None);
        assert_eq!(duration("99999999999999999999d"), None);
    }
}
