//! Times in words. The page's clock is the server's: `now` comes from the caller, in milliseconds since 1970.

use crate::words::{Word, plural, t};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970 of an RFC 3339 time; `None` where it can't be read.
pub fn parse(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.unix_timestamp() * 1000 + i64::from(time.millisecond()))
}

/// How long, in one unit, rounded down: `4 minutes`, `3 hours`, `12 days`.
pub fn span(milliseconds: i64) -> String {
    let seconds = (milliseconds / 1000).max(0);
    let (word, count) = match seconds {
        0..60 => (Word::Seconds, seconds),
        60..3600 => (Word::Minutes, seconds / 60),
        3600..172_800 => (Word::Hours, seconds / 3600),
        _ => (Word::Days, seconds / 86_400),
    };
    plural(word, count)
}

/// `just now`, `4 minutes ago`; a time in the future (clocks differ) is `just now`.
pub fn ago(time: i64, now: i64) -> String {
    if now - time < 5_000 { t(Word::JustNow).into() } else { Word::Ago.with(&[("span", &span(now - time))]) }
}

/// The same of an RFC 3339 text; an unreadable or missing time is `unknown`, never a wrong number.
pub fn ago_text(time: &str, now: i64) -> String {
    parse(time).map_or_else(|| t(Word::Unknown).into(), |time| ago(time, now))
}

/// How long it is until an RFC 3339 time; nothing when it has passed.
pub fn until(time: &str, now: i64) -> String {
    span(parse(time).unwrap_or(now) - now)
}

/// Short, as tables have it: `45s`, `12m`, `5h`, `3d`, `2y`.
pub fn short(milliseconds: i64) -> String {
    let seconds = (milliseconds / 1000).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        172_800..63_072_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_writes() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(1000));
        assert_eq!(parse("1970-01-01T00:00:01.250000Z"), Some(1250));
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse(""), None);
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn says_how_long_ago() {
        for (seconds, expected) in [
            (0, "just now"),
            (4, "just now"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (61 * 60, "1 hour ago"),
            (47 * 3600, "47 hours ago"),
            (49 * 3600, "2 days ago"),
        ] {
            assert_eq!(ago(0, seconds * 1000), expected);
        }
        assert_eq!(ago(60_000, 0), "just now", "a clock that is ahead is no reason for a negative age");
        assert_eq!(ago_text("?", 0), "unknown");
    }

    #[test]
    fn short_ages_keep_their_width() {
        let shown: Vec<_> = [5, 119, 120, 7_199, 7_200, 172_800, 63_072_000].map(|s| short(s * 1000)).into();
        assert_eq!(shown, ["5s", "119s", "2m", "119m", "2h", "2d", "2y"]);
    }
}
