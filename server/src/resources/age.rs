//! Times as people read them in tables: `k8s.io/apimachinery/pkg/util/duration`.

use super::tree::at;
use jiff::Timestamp;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

/// Two or three significant figures of a span in whole seconds: `42s`, `3m20s`, `5h`, `3d4h`, `2y12d`.
/// Clocks that differ by a second are forgiven, more is `<invalid>`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / MINUTE, seconds / HOUR);
    let two = |big: i64, unit: &str, small: i64, smaller: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{smaller}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_string(),
        () if seconds < 0 => "0s".to_string(),
        () if seconds < 2 * MINUTE => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 3 * 60 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", (hours / 24) % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// The time at `pointer`, if there is one.
pub fn time_at(tree: &Value, pointer: &str) -> Option<Timestamp> {
    at(tree, pointer).as_str()?.parse().ok()
}

/// How long ago `time` was, `<unknown>` for a time that isn't there.
pub fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    // Truncated towards zero as Go's durations are: half a second in the future is now.
    time.map_or_else(|| "<unknown>".to_string(), |t| human(now.duration_since(t).as_secs()))
}

/// The cell of the column Age.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(time_at(object, "/metadata/creationTimestamp"), now).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_kubernetes_does() {
        let (day, year) = (24 * HOUR, 365 * 24 * HOUR);
        for (seconds, shown) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 61, "3h1m"),
            (8 * HOUR + 60, "8h"),
            (47 * HOUR, "47h"),
            (2 * day, "2d"),
            (2 * day + HOUR, "2d1h"),
            (8 * day + HOUR, "8d"),
            (400 * day, "400d"),
            (2 * year, "2y"),
            (2 * year + 12 * day, "2y12d"),
            (9 * year + day, "9y"),
        ] {
            assert_eq!(human(seconds), shown, "{seconds}");
        }
    }
}
