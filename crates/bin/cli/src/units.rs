//! Bytes, times and shares as people read them.

use bulkhead_model::Timestamp;

/// `512 B`, `1.4 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `42 s`, `3 min 7 s`, `2 h 5 min`, `9 d 1 h`.
pub fn seconds(count: u64) -> String {
    let (days, hours, minutes, seconds) = (count / 86_400, count / 3_600 % 24, count / 60 % 60, count % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `2026-11-23 21:10:56`, UTC.
pub fn date_time(time: Timestamp) -> String {
    time.to_string().split('.').next().unwrap_or_default().replace('T', " ")
}

/// `21:10:56`, UTC.
pub fn time_of_day(time: Timestamp) -> String {
    date_time(time).split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Rounded down, so that 100 % is said of nothing less.
pub fn percent(share: f64) -> String {
    let floored = (share * 100.0).floor() / 100.0;
    if floored >= 100.0 { "100 %".to_owned() } else { format!("{floored:.2} %") }
}

/// `1 rule`, `2 rules`.
pub fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_turn_over_where_they_should() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(60), "1 min 0 s");
        assert_eq!(seconds(3_600 * 24 * 9 + 3_600), "9 d 1 h");
    }

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!(percent(100.0), "100 %");
        assert_eq!(percent(99.999_999), "99.99 %");
        assert_eq!(percent(0.0), "0.00 %");
    }
}
