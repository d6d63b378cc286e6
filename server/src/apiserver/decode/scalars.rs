//! Scalars with a form of their own: checked and made canonical, as a round trip through Kubernetes would.
//!
//! `Ok(None)` is Go's zero value, which is written as null or left out. Errors are the sentences of Go's decoders.

use super::golang;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use longshore_api::quantity::Quantity;
use serde_json::{Number, Value};

type Scalar = Result<Option<Value>, String>;

/// How a number stood in the body, as near as can be told.
pub fn literal(number: &Number) -> String {
    number.to_string()
}

pub fn quantity(text: &str) -> Scalar {
    Quantity::parse(text.trim()).map(|q| Some(q.to_string().into())).map_err(Into::into)
}

pub fn int_or_string(number: &Number) -> Scalar {
    match number.as_i64().map(i32::try_from) {
        Some(Ok(n)) => Ok(Some(n.into())),
        _ => Err(format!("json: cannot unmarshal number {} into Go value of type int32", literal(number))),
    }
}

/// Whole seconds in UTC.
pub fn time(text: &str) -> Scalar {
    match parse(text).ok_or_else(|| golang::time_error(text, "2006-01-02T15:04:05Z07:00"))? {
        at if is_zero(at) => Ok(None),
        at => Ok(Some(seconds(at).into())),
    }
}

/// Six digits of a second, in UTC.
pub fn micro_time(text: &str) -> Scalar {
    match parse(text).ok_or_else(|| golang::time_error(text, "2006-01-02T15:04:05.000000Z07:00"))? {
        at if is_zero(at) => Ok(None),
        at => Ok(Some(micros(at).into())),
    }
}

pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Go's zero time, the start of year 1.
fn is_zero(at: Timestamp) -> bool {
    at.as_second() == -62_135_596_800
}

/// RFC 3339 as strictly as Go has it: a `T`, seconds, a zone.
fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = (20..=40).contains(&bytes.len())
        && bytes[..19].iter().zip(b"0000-00-00T00:00:00").all(|(is, should)| match should {
            b'0' => is.is_ascii_digit(),
            mark => is == mark,
        });
    let zone = bytes.last() == Some(&b'Z') || bytes.len() >= 25 && matches!(bytes[bytes.len() - 6], b'+' | b'-');
    if shaped && zone { text.parse().ok() } else { None }
}

/// Standard base64 with padding; line breaks are allowed.
pub fn base64(text: &str) -> Scalar {
    let stripped;
    let text = if text.contains(['\n', '\r']) {
        stripped = text.replace(['\n', '\r'], "");
        &stripped
    } else {
        text
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(Some(text.into())),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len() / 4 * 4,
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// Go's duration text: `1h30m`, `1.5s`, `0`. Printed as Go prints it.
pub fn duration(text: &str) -> Scalar {
    nanoseconds(text).map(|n| Some(duration_text(n).into())).ok_or_else(|| format!("time: invalid duration {text:?}"))
}

fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let unit_end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let scale = match &unit[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = &unit[unit_end..];
    }
    (total < i64::MAX as f64).then_some(if negative { -total } else { total } as i64)
}

pub fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let trimmed = |whole: u64, part: u64, width: usize| {
        let fraction = format!("{part:0width$}");
        match fraction.trim_end_matches('0') {
            "" => whole.to_string(),
            digits => format!("{whole}.{digits}"),
        }
    };
    match total {
        0 => "0s".into(),
        n if n < 1_000 => format!("{sign}{n}ns"),
        n if n < 1_000_000 => format!("{sign}{}µs", trimmed(n / 1_000, n % 1_000, 3)),
        n if n < 1_000_000_000 => format!("{sign}{}ms", trimmed(n / 1_000_000, n % 1_000_000, 6)),
        n => {
            let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = trimmed(rest / 1_000_000_000, rest % 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}
