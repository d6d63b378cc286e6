//! A log on the page: the last lines, cut from a stream of text.

use std::collections::VecDeque;

/// What a page keeps of a log. Older lines go.
pub const MAX_LINES: usize = 5_000;
/// A line longer than this is cut: a program that never ends its line must not eat the page.
const MAX_LINE: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counts from the start of the log, never reused: what the page knows a line by.
    pub number: u64,
    /// The time the container's runtime took it at, where timestamps were asked for.
    pub time: String,
    pub text: String,
}

/// The last lines, and the unfinished one.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub lines: VecDeque<Line>,
    rest: String,
    next: u64,
    /// How many were dropped at the front.
    pub dropped: u64,
}

impl Lines {
    /// Takes text as it came; answers how many lines it completed.
    pub fn push(&mut self, text: &str) -> usize {
        let mut added = 0;
        for piece in text.split_inclusive('\n') {
            self.rest.push_str(piece);
            if piece.ends_with('\n') || self.rest.len() > MAX_LINE {
                self.finish();
                added += 1;
            }
        }
        added
    }

    /// What is left without a line end becomes a line: the log is over.
    pub fn end(&mut self) {
        if !self.rest.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let raw = std::mem::take(&mut self.rest);
        let raw = raw.trim_end_matches(['\n', '\r']);
        let (time, text) = match raw.split_once(' ') {
            Some((time, text)) if is_time(time) => (time, text),
            _ if is_time(raw) => (raw, ""),
            _ => ("", raw),
        };
        self.lines.push_back(Line { number: self.next, time: time.into(), text: plain(cut(text)) });
        self.next += 1;
        if self.lines.len() > MAX_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
    }

    /// All lines as text, for download.
    pub fn text(&self) -> String {
        self.lines.iter().fold(String::new(), |mut all, line| {
            if !line.time.is_empty() {
                all.push_str(&line.time);
                all.push(' ');
            }
            all.push_str(&line.text);
            all.push('\n');
            all
        })
    }
}

/// At most [`MAX_LINE`] bytes of it.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LINE)]
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.as_bytes()[4] == b'-' && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

/// Without the escape sequences that colour terminals, and without other control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_lines_wherever_the_text_was_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.push("2026-01-01T00:00:00.5Z one\n2026-01-01T00:00:01Z t"), 1);
        assert_eq!(lines.push("wo\r\nno time\n"), 2);
        let shown: Vec<_> = lines.lines.iter().map(|l| (l.time.as_str(), l.text.as_str())).collect();
        assert_eq!(shown, [("2026-01-01T00:00:00.5Z", "one"), ("2026-01-01T00:00:01Z", "two"), ("", "no time")]);
        lines.push("rest");
        lines.end();
        assert_eq!(lines.lines.back().unwrap().text, "rest");
    }

    #[test]
    fn escapes_are_left_out() {
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\tx\u{7}"), "red    x");
        assert_eq!(plain("\u{1b}"), "");
    }

    #[test]
    fn memory_is_bounded() {
        let mut lines = Lines::default();
        for n in 0..MAX_LINES + 10 {
            lines.push(&format!("{n}\n"));
        }
        assert_eq!((lines.lines.len(), lines.dropped, lines.lines[0].number), (MAX_LINES, 10, 10));
        lines.push(&"x".repeat(100_000));
        assert!(lines.rest.len() <= MAX_LINE + 100_000 && lines.lines.len() == MAX_LINES);
    }

    proptest! {
        #[test]
        fn never_panics(parts in prop::collection::vec("[\u{1b}\\[m0-9\nTZ:.é -]{0,40}", 0..8)) {
            let mut lines = Lines::default();
            parts.iter().for_each(|part| { lines.push(part); });
            lines.end();
        }
    }
}
