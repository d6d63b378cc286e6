//! What an Ingress says by annotations: `longshore.dev/NAME`, or the same name as ingress-nginx has it, with its meaning.

use crate::model::{Limits, Policy, Protocol, Rate};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

const OURS: &str = "longshore.dev/";
const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// Those that keep somebody out, and that this edge doesn't know: an Ingress that has one isn't served at all, for serving
/// it would open what was meant to be closed.
const GUARDS: [&str; 12] = [
    "auth-secret",
    "auth-signin",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-type",
    "auth-url",
    "configuration-snippet",
    "enable-global-auth",
    "enable-modsecurity",
    "modsecurity-snippet",
    "satisfy",
    "server-snippet",
];

/// What a client may ask at one moment, as a multiple of its rate.
const BURST: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// The annotations of one Ingress, read. What couldn't be read is in `problems`, and as if it weren't there.
#[derive(Debug, Default)]
pub struct Annotations {
    /// None: where there is a certificate.
    pub ssl_redirect: Option<bool>,
    pub force_ssl_redirect: bool,
    pub redirect: Option<(String, u16)>,
    pub rewrite: Option<String>,
    pub rewrite_prefix: Option<String>,
    pub use_regex: bool,
    pub host: Option<String>,
    pub acme: bool,
    pub policy: Policy,
    pub canary: Option<Canary>,
    pub problems: Vec<String>,
    /// Why it must not be served.
    pub refused: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Canary {
    pub weight: u32,
    /// What the weight is a part of.
    pub total: u32,
    pub header: Option<String>,
    /// None: `always` and `never`.
    pub header_value: Option<String>,
    pub cookie: Option<String>,
}

struct Reader<'a> {
    all: &'a BTreeMap<String, String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        let of = |prefix: &str| self.all.get(&format!("{prefix}{name}")).map(|v| v.trim());
        of(OURS).or_else(|| of(NGINX))
    }

    /// Read, or a problem.
    fn read<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text);
        if value.is_none() {
            self.problems.push(format!("annotation {name}: {text:?} is no {what}; it is ignored"));
        }
        value
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.read(name, "\"true\" or \"false\"", |text| text.parse().ok())
    }

    fn seconds(&mut self, name: &str) -> Option<Duration> {
        let read = |text: &str| {
            let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok().filter(|s| (1..=86_400).contains(s))?;
            Some(Duration::from_secs(seconds))
        };
        self.read(name, "number of seconds from 1 to 86400", read)
    }

    /// Read; what can't be is a reason not to serve, since it was to keep somebody out.
    fn guard<T>(&self, name: &str, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || format!("annotation {name}: {text:?} is no {what}; it is not served");
        read(text).map(Some).ok_or_else(wrong)
    }

    /// The first of these names that is there.
    fn either<'n>(&self, names: [&'n str; 2]) -> &'n str {
        names.into_iter().find(|name| self.text(name).is_some()).unwrap_or(names[0])
    }
}

const RANGES: &str = "list of address ranges";

fn ranges(text: &str) -> Option<Vec<IpNet>> {
    let range = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    text.split(',').map(|part| range(part.trim())).collect()
}

/// Some(None) is no limit.
fn limit(text: &str) -> Option<Option<NonZeroU32>> {
    text.parse().ok().filter(|number| *number <= 1_000_000).map(NonZeroU32::new)
}

/// A size as nginx writes it: `8m`, `512k`, `0` for no limit. Some(None) is no limit.
fn size(text: &str) -> Option<Option<u64>> {
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (&lower[..], 1),
    };
    let number: u64 = digits.parse().ok()?;
    let bytes = number.checked_mul(factor)?;
    Some((bytes > 0).then_some(bytes))
}

fn protocol(text: &str) -> Option<Protocol> {
    Some(match text.to_ascii_uppercase().as_str() {
        "HTTP" | "AUTO_HTTP" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "GRPC" | "H2C" => Protocol::H2c,
        "GRPCS" | "H2" => Protocol::H2,
        _ => return None,
    })
}

fn token(text: &str) -> Option<String> {
    http::HeaderName::try_from(text).ok().map(|name| name.as_str().to_string())
}

fn location(text: &str) -> Option<String> {
    let absolute = text.starts_with("http://") || text.starts_with("https://");
    let fit = (absolute || text.starts_with('/')) && http::HeaderValue::try_from(text).is_ok();
    (fit && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_string())
}

impl Annotations {
    pub fn read(all: &BTreeMap<String, String>) -> Self {
        let mut from = Reader { all, problems: Vec::new() };
        let mut read = Self::default();
        read.refused = GUARDS
            .iter()
            .find(|name| from.text(name).is_some_and(|v| v != "false"))
            .map(|name| format!("annotation {name} protects in a way that this edge doesn't know; it is not served"));
        read.ssl_redirect = from.flag("ssl-redirect");
        read.force_ssl_redirect = from.flag("force-ssl-redirect").unwrap_or_default();
        read.redirect = redirect(&mut from);
        read.rewrite = from.read("rewrite-target", "path", |t| t.starts_with('/').then(|| t.to_string()));
        read.rewrite_prefix = from.read("rewrite-prefix", "path", |t| t.starts_with('/').then(|| t.to_string()));
        let captures = read.rewrite.as_ref().is_some_and(|target| target.contains('$'));
        read.use_regex = from.flag("use-regex").unwrap_or(captures);
        read.host = from.read("upstream-vhost", "host", |t| crate::host::Authority::parse(t).map(|_| t.to_string()));
        let old_acme = all.get("kubernetes.io/tls-acme").is_some_and(|v| v == "true");
        read.acme = from.flag("acme").unwrap_or(old_acme);
        read.read_policy(&mut from);
        if from.flag("canary") == Some(true) {
            read.canary = Some(canary(&mut from));
        }
        read.problems = from.problems;
        read
    }

    fn read_policy(&mut self, from: &mut Reader<'_>) {
        let policy = &mut self.policy;
        policy.connect = from.seconds("proxy-connect-timeout").unwrap_or(policy.connect);
        policy.read = from.seconds("proxy-read-timeout").unwrap_or(policy.read);
        policy.send = from.seconds("proxy-send-timeout").unwrap_or(policy.send);
        policy.body_limit = from.read("proxy-body-size", "size such as 8m", size).unwrap_or(policy.body_limit);
        let wanted = "one of HTTP, HTTPS, GRPC, GRPCS, H2C";
        policy.protocol = from.read("backend-protocol", wanted, protocol).unwrap_or_default();
        let mut refused = None;
        for (names, ranges) in [
            (["allowlist-source-range", "whitelist-source-range"], &mut policy.allow),
            (["denylist-source-range", "blacklist-source-range"], &mut policy.deny),
        ] {
            match from.guard(from.either(names), RANGES, self::ranges) {
                Ok(read) => *ranges = read.unwrap_or_default(),
                Err(why) => refused = Some(why),
            }
        }
        match limits(from) {
            Ok(read) => policy.limits = read,
            Err(why) => refused = Some(why),
        }
        self.refused = self.refused.take().or(refused);
    }
}

/// Without a burst or a list of the free that can be read, more is refused, not less: these are said and ignored.
fn limits(from: &mut Reader<'_>) -> Result<Limits, String> {
    let [per_second, per_minute, at_once] =
        ["limit-rps", "limit-rpm", "limit-connections"].map(|name| from.guard(name, "number up to 1000000", limit));
    let times = |text: &str| text.parse().ok().filter(|times: &NonZeroU32| times.get() <= 1000);
    let times = from.read("limit-burst-multiplier", "number from 1 to 1000", times).unwrap_or(BURST);
    let rate = |requests: NonZeroU32| Rate { requests, burst: requests.saturating_mul(times) };
    Ok(Limits {
        per_second: per_second?.flatten().map(rate),
        per_minute: per_minute?.flatten().map(rate),
        at_once: at_once?.flatten().and_then(|number| usize::try_from(number.get()).ok()),
        free: from.read(from.either(["limit-allowlist", "limit-whitelist"]), RANGES, ranges).unwrap_or_default(),
    })
}

fn redirect(from: &mut Reader<'_>) -> Option<(String, u16)> {
    for (name, code_name, usual) in
        [("temporal-redirect", "temporal-redirect-code", 302), ("permanent-redirect", "permanent-redirect-code", 301)]
    {
        if let Some(to) = from.read(name, "address that starts with http://, https:// or /", location) {
            let code = |text: &str| text.parse().ok().filter(|code| (300..=308).contains(code));
            let code = from.read(code_name, "number from 300 to 308", code);
            return Some((to, code.unwrap_or(usual)));
        }
    }
    None
}

fn canary(from: &mut Reader<'_>) -> Canary {
    let number = |text: &str| text.parse().ok().filter(|n| *n <= 1_000_000);
    let total = from.read("canary-weight-total", "number from 1 to 1000000", number).filter(|n| *n > 0).unwrap_or(100);
    let part = |text: &str| text.parse().ok().filter(|n| *n <= total);
    Canary {
        weight: from.read("canary-weight", "number up to its total", part).unwrap_or(0),
        total,
        header: from.read("canary-by-header", "header's name", token),
        header_value: from.text("canary-by-header-value").map(String::from),
        cookie: from.read("canary-by-cookie", "cookie's name", token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Annotations {
        Annotations::read(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn ours_wins_over_the_same_of_nginx() {
        let read = read(&[
            ("nginx.ingress.kubernetes.io/proxy-body-size", "1k"),
            ("longshore.dev/proxy-body-size", "8m"),
            ("nginx.ingress.kubernetes.io/backend-protocol", "grpc"),
            ("nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
        ]);
        assert_eq!(read.policy.body_limit, Some(8 << 20));
        assert_eq!(read.policy.protocol, Protocol::H2c);
        assert_eq!(read.policy.read, Duration::from_secs(3600));
        assert_eq!(read.problems, [""; 0]);
    }

    #[test]
    fn what_cant_be_read_is_said_and_ignored() {
        let read = read(&[
            ("longshore.dev/proxy-read-timeout", "soon"),
            ("longshore.dev/permanent-redirect", "javascript:alert(1)"),
            ("longshore.dev/canary", "true"),
            ("longshore.dev/canary-weight", "101"),
        ]);
        assert_eq!(read.policy, Policy::default());
        assert_eq!(read.redirect, None);
        assert_eq!(read.canary.unwrap().weight, 0);
        assert_eq!(
            read.problems,
            [
                "annotation permanent-redirect: \"javascript:alert(1)\" is no address that starts with http://, https:// or /; it is ignored",
                "annotation proxy-read-timeout: \"soon\" is no number of seconds from 1 to 86400; it is ignored",
                "annotation canary-weight: \"101\" is no number up to its total; it is ignored",
            ]
        );
    }

    #[test]
    fn what_would_protect_and_isnt_known_refuses_the_whole() {
        let guarded = read(&[("nginx.ingress.kubernetes.io/auth-url", "https://sso/")]);
        assert!(guarded.refused.unwrap().contains("auth-url"));
        assert!(read(&[("longshore.dev/allowlist-source-range", "10.0.0.0/33")]).refused.is_some());
        let allowed = read(&[("nginx.ingress.kubernetes.io/whitelist-source-range", "10.0.0.0/8, 192.0.2.7")]);
        assert_eq!(allowed.refused, None);
        assert_eq!(allowed.policy.allow.len(), 2);
    }

    #[test]
    fn what_a_client_may_ask() {
        let rate = |requests, burst| {
            Some(Rate { requests: NonZeroU32::new(requests).unwrap(), burst: NonZeroU32::new(burst).unwrap() })
        };
        let limited = read(&[
            ("nginx.ingress.kubernetes.io/limit-rps", "2"),
            ("longshore.dev/limit-rpm", "90"),
            ("longshore.dev/limit-connections", "3"),
            ("nginx.ingress.kubernetes.io/limit-whitelist", "10.0.0.0/8, 2001:db8::1"),
        ]);
        let limits = limited.policy.limits;
        assert_eq!((limits.per_second, limits.per_minute, limits.at_once), (rate(2, 10), rate(90, 450), Some(3)));
        assert_eq!(limits.free, ["10.0.0.0/8".parse().unwrap(), "2001:db8::1/128".parse::<IpNet>().unwrap()]);
        assert_eq!((limited.refused, limited.problems), (None, Vec::new()));
        let steady = read(&[("longshore.dev/limit-rps", "1000000"), ("longshore.dev/limit-burst-multiplier", "1")]);
        assert_eq!(steady.policy.limits, Limits { per_second: rate(1_000_000, 1_000_000), ..Limits::default() });
        let none = read(&[("longshore.dev/limit-rps", "0"), ("longshore.dev/limit-whitelist", "10.0.0.0/8")]);
        assert!(!none.policy.limits.any());
    }

    #[test]
    fn a_limit_that_cant_be_read_refuses_the_whole_and_what_softens_it_is_ignored() {
        for (name, text) in [("limit-rps", "ten"), ("limit-rpm", "-1"), ("limit-connections", "1000001")] {
            let why = format!("annotation {name}: {text:?} is no number up to 1000000; it is not served");
            assert_eq!(read(&[(&format!("longshore.dev/{name}"), text)]).refused, Some(why));
        }
        let soft = read(&[
            ("longshore.dev/limit-rps", "1"),
            ("longshore.dev/limit-burst-multiplier", "0"),
            ("longshore.dev/limit-allowlist", "10.0.0.0/33"),
        ]);
        assert_eq!(soft.policy.limits.per_second.map(|rate| rate.burst.get()), Some(5));
        assert_eq!(soft.policy.limits.free, []);
        assert_eq!(soft.refused, None);
        assert_eq!(
            soft.problems,
            [
                "annotation limit-burst-multiplier: \"0\" is no number from 1 to 1000; it is ignored",
                "annotation limit-allowlist: \"10.0.0.0/33\" is no list of address ranges; it is ignored",
            ]
        );
    }
}
