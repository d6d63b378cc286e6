//! The table.

use crate::figures::Figures;
use crate::rows::{Goal, ROWS};

/// A figure as it is printed: three significant digits, thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    match value.abs() {
        v if v >= 100.0 => thousands(value.round() as i64),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.abs().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
}

/// What is wanted, and whether it is so.
fn judge(goal: Goal, ours: Option<f64>, ratio: Option<f64>) -> (String, &'static str) {
    let met = |is: Option<bool>| is.map_or("", |is| if is { "yes" } else { "no" });
    let aiming = |aim: Option<f64>| aim.map_or(String::new(), |aim| format!(" (aim {aim}×)"));
    match goal {
        Goal::Times { least, aim } => (format!("≥ {least}×{}", aiming(aim)), met(ratio.map(|r| r >= least))),
        Goal::Part { most, aim } => (format!("≤ {most}×{}", aiming(aim)), met(ratio.map(|r| r <= most))),
        Goal::AtMost(most) => (format!("≤ {}", number(most)), met(ours.map(|v| v <= most))),
        Goal::AtLeast(least) => (format!("≥ {}", number(least)), met(ours.map(|v| v >= least))),
        Goal::None => (String::new(), ""),
    }
}

pub fn print(figures: &Figures) {
    let machine = &figures.machine;
    println!("\n{} × {}, {} GB, Linux {}", machine.cores, machine.processor, machine.memory_gigabytes, machine.kernel);
    for (side, version) in &figures.versions {
        println!("{side}: {version}");
    }
    println!(
        "\n{:<46} {:>11} {:>11} {:>7}  {:<18} {:<4} {:>8}",
        "", "longshore", "peer", "ratio", "target", "met", "ceiling"
    );
    for row in ROWS {
        let ours = figures.median("longshore", row.id);
        let Some(value) = ours else { continue };
        let peer = figures.median("peer", row.id);
        let ratio = peer.map(|peer| value / peer);
        let (target, met) = judge(row.goal, ours, ratio);
        let ceiling = figures.median("null", row.id).filter(|_| row.ceiling).map(|null| match row.unit {
            "/s" => format!("{:.0} %", 100.0 * value / null),
            unit => format!("{} {unit}", number(null)),
        });
        println!(
            "{:<46} {:>11} {:>11} {:>7}  {:<18} {:<4} {:>8}",
            row.title,
            format!("{} {}", number(value), row.unit),
            peer.map_or("-".into(), |peer| format!("{} {}", number(peer), row.unit)),
            ratio.map_or("-".into(), |ratio| format!("{ratio:.2}×")),
            target,
            met,
            ceiling.unwrap_or_default(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        let printed: Vec<String> = [0.123, 12.34, 123.4, 12345.6, 1234567.0, f64::NAN].map(number).into();
        assert_eq!(printed, ["0.12", "12.3", "123", "12,346", "1,234,567", "-"]);
    }

    #[test]
    fn goals_are_judged() {
        let goal = Goal::Times { least: 4.0, aim: Some(8.0) };
        assert_eq!(judge(goal, Some(1.0), Some(4.5)), ("≥ 4× (aim 8×)".into(), "yes"));
        assert_eq!(judge(goal, Some(1.0), None).1, "");
        assert_eq!(judge(Goal::Part { most: 0.5, aim: None }, Some(1.0), Some(0.6)).1, "no");
        assert_eq!(judge(Goal::AtMost(60.0), Some(61.0), None).1, "no");
    }
}
