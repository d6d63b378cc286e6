//! Kubernetes quantities: `100m`, `1.5Gi`, `2e3`. Kept exact as nano-units in an `i128`.

use serde::{Deserialize, Deserializer};
use std::fmt;

/// An amount, exact to 10⁻⁹ (finer is rounded up, as in Kubernetes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    #[default]
    DecimalSI,
    BinarySI,
    DecimalExponent,
}

const NANO: i128 = 1_000_000_000;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// The largest amount Kubernetes keeps; what is larger is capped.
const MAX: i128 = (i64::MAX as i128) * NANO;

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSI };

    /// The error is Kubernetes's sentence for validation messages.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str =
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        let (sign, body) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 40 {
            return Err(WRONG);
        }
        let digits: i128 = format!("{whole}{fraction}").parse().map_err(|_| WRONG)?;
        let (format, binary, exponent) = scale(suffix).ok_or("unable to parse quantity's suffix")?;
        let shift = exponent + 9 - fraction.len() as i32;
        let scaled = digits.checked_mul(1i128.checked_shl(10 * binary).unwrap_or(i128::MAX)).unwrap_or(MAX);
        let nanos = match shift {
            s if s >= 0 => 10i128.checked_pow(s as u32).and_then(|p| scaled.checked_mul(p)).unwrap_or(MAX),
            s => match 10i128.checked_pow(-s as u32) {
                Some(p) => scaled / p + i128::from(scaled % p != 0),
                None => i128::from(scaled != 0),
            },
        };
        Ok(Self { nanos: sign * nanos.min(MAX), format })
    }

    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSI }
    }
    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::BinarySI }
    }
    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        ceil(self.nanos, NANO)
    }
    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        ceil(self.nanos, NANO / 1000)
    }
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// Compares amounts, however they were written (`Ord` tells `1` from `1e0`, to be a total order).
    pub fn cmp_amount(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
    pub fn saturating_add(self, other: Self) -> Self {
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format: self.format }
    }
    pub fn saturating_sub(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX, MAX), format: self.format }
    }
}

fn ceil(nanos: i128, unit: i128) -> i64 {
    let up = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn scale(suffix: &str) -> Option<(Format, u32, i32)> {
    if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
        return Some((Format::BinarySI, i as u32 + 1, 0));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some((Format::DecimalSI, 0, *exponent));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    (-60..=60).contains(&exponent).then_some((Format::DecimalExponent, 0, exponent))
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySI && self.nanos % NANO == 0 {
            let units = self.nanos / NANO;
            if units.abs() >= 1024 {
                let power = (1..=6).rev().find(|p| units % (1i128 << (10 * p)) == 0);
                return match power {
                    Some(p) => write!(f, "{}{}", units >> (10 * p), BINARY[p as usize - 1]),
                    None => write!(f, "{units}"),
                };
            }
            return write!(f, "{units}");
        }
        let (mut digits, mut exponent) = (self.nanos, -9);
        while digits % 1000 == 0 && exponent < 18 {
            digits /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{digits}") } else { write!(f, "{digits}e{exponent}") };
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
        write!(f, "{digits}{suffix}")
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Quantity, E> {
                Quantity::parse(s).map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Quantity, E> {
                self.visit_str(&n.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_prints_canonically() {
        for (text, canonical, milli) in [
            ("100m", "100m", 100),
            ("0.1", "100m", 100),
            ("1500m", "1500m", 1500),
            ("1Gi", "1Gi", 1 << 30),
            ("1.5Gi", "1536Mi", 3 << 29),
            ("1024Ki", "1Mi", 1 << 20),
            ("2k", "2k", 2000),
            ("2000", "2k", 2000),
            ("1e3", "1e3", 1000),
            ("0", "0", 0),
            ("-5", "-5", -5),
        ] {
            let q = Quantity::parse(text).unwrap();
            assert_eq!(q.to_string(), canonical, "{text}");
            let expected = if text == "100m" || text == "0.1" || text == "1500m" { milli } else { milli * 1000 };
            assert_eq!(q.milli_value(), expected, "{text}");
        }
        for bad in ["", "a", "1.2.3", "1Kib", "--1", "1 Gi"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Quantity::parse("1n").unwrap().value(), 1);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,45}[a-zA-Z]{0,3}[0-9]{0,12}") {
            if let Ok(q) = Quantity::parse(&text) {
                let again = Quantity::parse(&q.to_string()).unwrap();
                prop_assert_eq!(again.milli_value(), q.milli_value());
            }
        }
    }
}
