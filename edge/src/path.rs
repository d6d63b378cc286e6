//! Paths: how a request's is made plain before anything judges it, and what of a rule matches it.

use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Element by element, without its last slash; `` is every path.
    Prefix(String),
    /// From the beginning of the path, without regard of case, as nginx does it.
    Regex(Regex),
}

/// A compiled expression may take this many bytes: one that explodes is refused rather than kept.
const REGEX_SIZE: usize = 1 << 20;

impl PathMatch {
    pub fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_string())
    }

    pub fn regex(pattern: &str) -> Result<Self, regex::Error> {
        let pattern = format!("^{pattern}");
        let built = RegexBuilder::new(&pattern).case_insensitive(true).size_limit(REGEX_SIZE).build();
        Ok(Self::Regex(built?))
    }

    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Regex(regex) => regex.as_str(),
        }
    }

    /// `Less` is the more particular one: exact ones, then the longest.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let exact = |m: &Self| matches!(m, Self::Exact(_));
        let size = |m: &Self| m.text().len();
        exact(other)
            .cmp(&exact(self))
            .then_with(|| size(other).cmp(&size(self)))
            .then_with(|| self.text().cmp(other.text()))
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.text() == other.text()
    }
}

/// A request's path as it is judged and passed on: escapes of letters, digits, `-._~` resolved, the others with upper-case
/// digits, no `.` and `..` left. So a rule for `/admin` can't be passed by `/%61dmin` or `/x/../admin`, and a backend sees what
/// was judged. None for a path that isn't one (no slash first, a broken escape, one that leads above the root).
pub fn normalize(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        return None;
    }
    if !path.contains('%') && !path.contains("/.") {
        return Some(Cow::Borrowed(path));
    }
    let path = resolve_escapes(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let elements: Vec<&str> = path[1..].split('/').collect();
    for (i, element) in elements.iter().enumerate() {
        let last = i + 1 == elements.len();
        match *element {
            "." => {}
            ".." => {
                kept.pop()?;
            }
            other => {
                kept.push(other);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    Some(Cow::Owned(format!("/{}", kept.join("/"))))
}

fn resolve_escapes(path: &str) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let digits = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match byte {
            0 => return None,
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => plain.push(b.into()),
            _ => {
                plain.push('%');
                plain.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &after[2..];
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table in Kubernetes's documentation of Ingress, row by row.
    #[test]
    fn prefixes_match_as_in_kubernetes_own_table() {
        for (prefix, path, expected) in [
            ("/", "/any/path", true),
            ("/", "/", true),
            ("/foo", "/foo", true),
            ("/foo", "/foo/", true),
            ("/foo/", "/foo", true),
            ("/foo/", "/foo/", true),
            ("/aaa/bb", "/aaa/bbb", false),
            ("/aaa/bbb", "/aaa/bbb", true),
            ("/aaa/bbb/", "/aaa/bbb", true),
            ("/aaa/bbb", "/aaa/bbb/", true),
            ("/aaa/bbb", "/aaa/bbb/ccc", true),
            ("/aaa/bbb", "/aaa/bbbxyz", false),
            ("/aaa", "/AAA", false),
        ] {
            assert_eq!(PathMatch::prefix(prefix).matches(path), expected, "{prefix} {path}");
        }
        for (exact, path, expected) in
            [("/foo", "/foo", true), ("/foo", "/bar", false), ("/foo", "/foo/", false), ("/foo/", "/foo", false)]
        {
            assert_eq!(PathMatch::Exact(exact.into()).matches(path), expected, "{exact} {path}");
        }
    }

    #[test]
    fn paths_are_made_plain() {
        for (raw, plain) in [
            ("/a/b", Some("/a/b")),
            ("/a/./b/../c", Some("/a/c")),
            ("/%61dmin", Some("/admin")),
            ("/x/%2e%2e/admin", Some("/admin")),
            ("/a%2fb", Some("/a%2Fb")),
            ("/a/..", Some("/")),
            ("/a/b/.", Some("/a/b/")),
            ("/.well-known/x", Some("/.well-known/x")),
            ("//a", Some("//a")),
            ("/..", None),
            ("/a/../../b", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%00", None),
            ("a", None),
            ("*", None),
        ] {
            assert_eq!(normalize(raw).as_deref(), plain, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_stays_and_has_no_dots_to_resolve(path in "(/(\\.|\\.\\.|a|%2[eEfF]|%61|b.c|)){1,6}") {
            if let Some(plain) = normalize(&path) {
                let again = normalize(&plain);
                prop_assert_eq!(again.as_deref(), Some(&*plain));
                prop_assert!(plain.split('/').all(|e| e != "." && e != ".."));
            }
        }

        #[test]
        fn the_more_particular_of_two_that_match_comes_first(a in "(/[ab]{1,2}){0,3}/?", b in "(/[ab]{1,2}){0,3}/?", path in "(/[ab]{1,2}){1,3}") {
            let (exact, prefix) = (PathMatch::Exact(a.clone()), PathMatch::prefix(&a));
            let other = PathMatch::prefix(&b);
            if exact.matches(&path) && other.matches(&path) {
                prop_assert_eq!(exact.precedence(&other), Ordering::Less);
            }
            if prefix.matches(&path) && other.matches(&path) && prefix != other {
                let elements = |t: &str| t.trim_end_matches('/').split('/').count();
                prop_assert_eq!(prefix.precedence(&other), elements(&b).cmp(&elements(&a)));
            }
        }
    }
}
