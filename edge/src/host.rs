//! Host names: as routes have them, and as requests bring them.

use std::fmt;

/// Which hosts a route is for. Sorted from the most particular to the least: an exact name, `*.` before one label, any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Lower case.
    Exact(String),
    /// What stands after `*.`, lower case: `*.example.com` is for `a.example.com`, not for `example.com` or `a.b.example.com`.
    Wildcard(String),
    Any,
}

impl Host {
    /// As Ingress writes them; the empty name is any. None where it could never match.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text == "*" {
            return Some(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(rest) => is_name(rest).then(|| Self::Wildcard(rest.to_string())),
            None => is_name(&text).then_some(Self::Exact(text)),
        }
    }

    /// Whether who has it may show a certificate for `other`.
    pub fn may_show(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            other => self == other || *self == Self::Any,
        }
    }

    /// Whether it is for this host, which is in lower case and without a port.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(rest) => parent(host) == Some(rest),
            Self::Any => true,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(rest) => write!(f, "*.{rest}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// What follows the first label.
pub fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest)
}

fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A request's `Host` or `:authority`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Lower case, without a port and a last dot.
    pub host: String,
    pub port: Option<u16>,
}

impl Authority {
    /// None for what no client sends in good faith: no name or address, a user, a port that is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (format!("[{address}]"), rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                let host = host.strip_suffix('.').unwrap_or(host);
                if !is_name(host) {
                    return None;
                }
                (host.to_string(), port)
            }
        };
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = if port.is_empty() { None } else { Some(port.parse().ok().filter(|_| digits)?) };
        Some(Self { host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_for_exactly_one_label() {
        let wildcard = Host::parse("*.Foo.com").unwrap();
        assert_eq!(wildcard.to_string(), "*.foo.com");
        for (host, expected) in
            [("bar.foo.com", true), ("baz.bar.foo.com", false), ("foo.com", false), (".foo.com", false)]
        {
            assert_eq!(wildcard.matches(host), expected, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_never_matches() {
        for text in ["*", ""] {
            assert_eq!(Host::parse(text), Some(Host::Any));
        }
        for text in ["a..b", "*.*.com", "a b", "-a.com", "*com", "a/b"] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_requests_host_loses_its_port_and_case() {
        let parsed = |text| Authority::parse(text).map(|a| (a.host, a.port));
        assert_eq!(parsed("A.Example.com:8443"), Some(("a.example.com".into(), Some(8443))));
        assert_eq!(parsed("a.example.com."), Some(("a.example.com".into(), None)));
        assert_eq!(parsed("[::1]:80"), Some(("[::1]".into(), Some(80))));
        assert_eq!(parsed("10.0.0.1"), Some(("10.0.0.1".into(), None)));
        for text in
            ["", "user@a.com", "a.com:x", "a.com:+1", "a.com:99999", "a.com/b", "[::1", "[::1]x", "a,b", "a.com:80:80"]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
