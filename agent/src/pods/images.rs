//! Images: names, pull policies, who may pull. What is decided here is pure; pulling itself is the runtime's.

use crate::runtime::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Container, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;

/// An image's name with its default tag; `Err`: the message of `InvalidImageName`.
pub fn normalize(image: &str) -> Result<String, String> {
    if !is_reference(image) {
        return Err(format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        ));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    Ok(if image.contains('@') || last.contains(':') { image.to_owned() } else { format!("{image}:latest") })
}

/// `[domain[:port]/]path[:tag][@digest]` as Docker's grammar has it.
fn is_reference(image: &str) -> bool {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let digest_fits = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty()
                && hex.len() >= 32
                && hex.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        })
    });
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    let tag_fits = tag.is_none_or(|tag| {
        let start = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        start && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    });
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && is_domain(parts[0]) {
        parts.remove(0);
    }
    digest_fits && tag_fits && name.len() <= 255 && !parts.is_empty() && parts.iter().all(|p| is_component(p))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&end)) = (bytes.first(), bytes.last()) else { return false };
    let separators = part.split(|c: char| alphanumeric(c as u8) && c.is_ascii());
    alphanumeric(first)
        && alphanumeric(end)
        && separators.filter(|s| !s.is_empty()).all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_domain(part: &str) -> bool {
    let (host, port) = part.split_once(':').map_or((part, None), |(h, p)| (h, Some(p)));
    let looks =
        part.contains('.') || part.contains(':') || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase());
    looks
        && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// The registry that a name is pulled from.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((domain, _)) if is_domain(domain) => domain,
        _ => "docker.io",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy that holds; without one it depends on the tag.
pub fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => match normalize(container.image.as_deref().unwrap_or_default()) {
            Ok(name) if name.ends_with(":latest") => Policy::Always,
            _ => Policy::IfNotPresent,
        },
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// What the pull secrets offer for an image, the most fitting first. Unreadable secrets offer nothing.
pub fn credentials(image: &str, secrets: &[Secret]) -> Vec<Credentials> {
    let mut offers: Vec<(usize, Credentials)> = Vec::new();
    for secret in secrets {
        for (server, auth) in auths(secret) {
            if let Some(length) = fits(&server, image) {
                offers.push((length, auth));
            }
        }
    }
    // Stable: among equals the order of the pod's list counts.
    offers.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    offers.into_iter().map(|(_, c)| c).collect()
}

fn auths(secret: &Secret) -> Vec<(String, Credentials)> {
    let Some(data) = &secret.data else { return Vec::new() };
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data
            .get(".dockerconfigjson")
            .and_then(|b| serde_json::from_slice::<DockerConfig>(&b.0).ok())
            .map(|c| c.auths),
        Some("kubernetes.io/dockercfg") => data.get(".dockercfg").and_then(|b| serde_json::from_slice(&b.0).ok()),
        _ => None,
    };
    let auths = auths.unwrap_or_default().into_iter();
    auths
        .map(|(server, auth)| {
            let decoded = STANDARD.decode(&auth.auth).ok().and_then(|b| String::from_utf8(b).ok());
            let pair = decoded.as_deref().and_then(|t| t.split_once(':'));
            let (username, password) =
                pair.map_or((auth.username, auth.password), |(u, p)| (u.to_owned(), p.to_owned()));
            let credentials =
                Credentials { username, password, server: server.clone(), identity_token: auth.identity_token };
            (server, credentials)
        })
        .collect()
}

/// How specifically a server entry (`https://index.docker.io/v1/`, `registry:5000/team`, `*.example.com`) names an image.
fn fits(server: &str, image: &str) -> Option<usize> {
    let server = server.strip_prefix("https://").or(server.strip_prefix("http://")).unwrap_or(server);
    let server = server.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let hub = |host: &str| {
        if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { "" }.to_owned()
    };
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let host = Some(hub(host)).filter(|h| !h.is_empty()).unwrap_or_else(|| host.to_owned());
    let target = registry(image);
    let same_host = host == target
        || (host.contains('*')
            && host.split('.').count() == target.split('.').count()
            && host.split('.').zip(target.split('.')).all(|(pattern, label)| match pattern.split_once('*') {
                Some((before, after)) => {
                    label.len() >= before.len() + after.len() && label.starts_with(before) && label.ends_with(after)
                }
                None => pattern == label,
            }));
    let rest = image.strip_prefix(target).map_or(image, |r| r.trim_start_matches('/'));
    let below =
        path.is_empty() || rest == path || rest.strip_prefix(path).is_some_and(|r| r.starts_with(['/', ':', '@']));
    (same_host && below).then_some(server.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_get_their_tag_and_nonsense_is_refused() {
        for (image, want) in [
            ("busybox", "busybox:latest"),
            ("longshore/hello:1", "longshore/hello:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("Registry.Example.com/x", "Registry.Example.com/x:latest"),
        ] {
            assert_eq!(normalize(image).as_deref(), Ok(want));
        }
        let digest = format!("busybox@sha256:{}", "0".repeat(64));
        assert_eq!(normalize(&digest).as_deref(), Ok(digest.as_str()));
        for image in ["", "UPPER", "a b", "x:", "x:-", "a//b", "x@sha256:1", "-a", "a_-b", "https://x/y", "x/", "ü"] {
            assert!(normalize(image).unwrap_err().ends_with("invalid reference format"), "{image}");
        }
    }

    #[test]
    fn latest_is_always_pulled_unless_told_otherwise() {
        let of = |v: serde_json::Value| policy(&serde_json::from_value(v).unwrap());
        assert_eq!(of(json!({"name": "c", "image": "a"})), Policy::Always);
        assert_eq!(of(json!({"name": "c", "image": "a:1"})), Policy::IfNotPresent);
        assert_eq!(of(json!({"name": "c", "image": "a", "imagePullPolicy": "Never"})), Policy::Never);
    }

    #[test]
    fn the_most_specific_pull_secret_comes_first() {
        let config = json!({"auths": {
            "registry:5000": {"username": "all", "password": "1"},
            "https://registry:5000/team": {"auth": STANDARD.encode("team:pass:word")},
            "https://index.docker.io/v1/": {"username": "hub", "password": "2"},
            "*.example.com": {"username": "star", "password": "3"},
        }});
        let secret: Secret = serde_json::from_value(json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}}))
        .unwrap();
        let users = |image: &str| {
            let found = credentials(image, std::slice::from_ref(&secret));
            found.into_iter().map(|c| (c.username, c.password)).collect::<Vec<_>>()
        };
        let pair = |u: &str, p: &str| (u.to_owned(), p.to_owned());
        assert_eq!(users("registry:5000/team/app:1"), [pair("team", "pass:word"), pair("all", "1")]);
        assert_eq!(users("registry:5000/teams/app"), [pair("all", "1")]);
        assert_eq!(users("busybox"), [pair("hub", "2")]);
        assert_eq!(users("eu.example.com/a"), [pair("star", "3")]);
        assert_eq!(users("a.eu.example.com/a"), []);
    }

    #[test]
    fn credentials_never_show_their_password() {
        let credentials = Credentials { username: "u".into(), password: "hidden".into(), ..Default::default() };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
