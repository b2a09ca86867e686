//! Times, durations and sizes as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last moment that RFC 3339 can name: the end of the year 9999.
const LAST_US: u64 = 253_402_300_799_999_999;

/// Unix milliseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(ms.min(LAST_US / 1000));
    humantime::format_rfc3339_millis(time).to_string()
}

/// Unix microseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339_micros(us: u64) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(us.min(LAST_US))).to_string()
}

/// How long ago something was, in the fewest units that tell people enough.
pub(crate) fn age(then_ms: u64, now_ms: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3_600;
    const DAY: u64 = 86_400;
    if then_ms == 0 {
        return "-".into();
    }
    // A clock that is a little behind makes no negative ages.
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(seconds, MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(seconds, HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(seconds, DAY, "d", HOUR, "h"),
        _ => format!("{}d", seconds / DAY),
    }
}

fn pair(seconds: u64, big: u64, big_name: &str, small: u64, small_name: &str) -> String {
    match seconds % big / small {
        0 => format!("{}{big_name}", seconds / big),
        rest => format!("{}{big_name}{rest}{small_name}", seconds / big),
    }
}

/// A size in the largest binary unit that leaves at least one, with one place
/// if it is below ten: `512`, `1.5Ki`, `64Mi`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let Some((name, unit)) = UNITS.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return bytes.to_string();
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, rest @ 1..) => format!("{whole}.{rest}{name}"),
        (whole, _) => format!("{whole}{name}"),
    }
}

/// Microseconds as people read them: `850 us`, `12.3 ms`, `312 ms`, `4.21 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        100_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// Milliseconds as people read them.
pub(crate) fn millis(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { micros(ms.saturating_mul(1_000)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let day = 86_400;
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (3_700, "61m"),
            (11_000, "3h3m"),
            (day, "24h"),
            (3 * day + 3_600, "3d1h"),
            (400 * day, "400d"),
        ] {
            assert_eq!(age(1, seconds * 1000 + 1), text);
        }
        assert_eq!((age(5_000, 1_000), age(0, 1_000)), ("0s".into(), "-".into()));
    }

    #[test]
    fn sizes() {
        for (n, text) in [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (64 << 20, "64Mi"), (19 << 30, "19Gi")] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn durations() {
        for (us, text) in [
            (7, "7 us"),
            (1_250, "1.2 ms"),
            (312_400, "312 ms"),
            (4_215_000, "4.21 s"),
            (61_000_000, "61.00 s"),
        ] {
            assert_eq!(micros(us), text);
        }
        assert_eq!((millis(12), millis(2_500)), ("12 ms".into(), "2.50 s".into()));
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
