//! Where an answer of a pod sends its client: never out of the proxy's path.
//!
//! Pure. A pod knows itself as `/`; its client knows it as `…/proxy/`. What a pod says is resolved as a browser would resolve
//! it at the pod, and then put below the proxy's path. Browsers forgive much (backslashes for slashes, tabs inside, dots as
//! `%2e`), so all of that is taken as they take it.

/// The place that `location` means, for the client: `base` is the proxy's path (`/clusters/…/proxy`), `at` the path at the
/// pod that was asked for, and `hosts` the names under which the client or the cluster know the pod. None: it leads
/// elsewhere.
pub fn rewritten(location: &str, base: &str, at: &str, hosts: &[&str]) -> Option<String> {
    // What browsers drop before they read: controls and blanks at both ends, line ends and tabs anywhere.
    let location: String = location.trim_matches(|c: char| c <= ' ').replace(['\t', '\r', '\n'], "");
    let (reference, fragment) = cut(&location, '#');
    let (reference, query) = cut(reference, '?');
    let reference = reference.replace('\\', "/");
    let path = match scheme(&reference) {
        Some(("http" | "https", rest)) => below_host(rest.strip_prefix("//")?, hosts)?,
        Some(_) => return None,
        None => match reference.strip_prefix("//") {
            Some(rest) => below_host(rest, hosts)?,
            None => &reference,
        },
    };
    let path = match path {
        "" if scheme(&reference).is_none() && !reference.starts_with("//") => at.to_owned(),
        absolute if absolute.starts_with('/') || absolute.is_empty() => absolute.to_owned(),
        relative => format!("{}/{relative}", at.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let path = without_dots(&path);
    // A pod that was told its place (`X-Forwarded-Uri`) names the whole of it.
    let told = path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    Some(format!("{}{path}{query}{fragment}", if told { "" } else { base }))
}

/// Before `mark`, and from it on.
fn cut(text: &str, mark: char) -> (&str, &str) {
    text.split_at(text.find(mark).unwrap_or(text.len()))
}

/// A reference's scheme in lower case, as far as one matters, and the rest.
fn scheme(reference: &str) -> Option<(&'static str, &str)> {
    let (name, rest) = reference.split_once(':')?;
    let letters = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(letters) {
        return None;
    }
    let known = ["http", "https"].into_iter().find(|known| name.eq_ignore_ascii_case(known));
    Some((known.unwrap_or("other"), rest))
}

/// The path behind one of `hosts`.
fn below_host<'a>(rest: &'a str, hosts: &[&str]) -> Option<&'a str> {
    let (host, path) = cut(rest, '/');
    hosts.iter().any(|known| !known.is_empty() && known.eq_ignore_ascii_case(host)).then_some(path)
}

/// An absolute path without `.` and `..`, also where they are escaped. A slash at its end stays.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (i, segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "/clusters/c/api/v1/namespaces/d/pods/p/proxy";
    const HOSTS: [&str; 3] = ["127.0.0.1:8001", "10.1.2.3:80", "10.1.2.3"];

    fn to(location: &str) -> Option<String> {
        rewritten(location, BASE, "/shop/cart", &HOSTS)
    }

    #[test]
    fn what_the_pod_means_is_found_below_the_proxy() {
        for (said, meant) in [
            ("/login", "/login"),
            ("/login/?next=/a#b", "/login/?next=/a#b"),
            ("http://10.1.2.3/x", "/x"),
            ("HTTPS://127.0.0.1:8001/x", "/x"),
            ("//10.1.2.3:80", "/"),
            ("items", "/shop/items"),
            ("../x/./y/..", "/x/"),
            ("?page=2", "/shop/cart?page=2"),
            ("", "/shop/cart"),
            ("a:b/c:d", ""),
            ("./a:b", "/shop/a:b"),
            ("/a//b/", "/a//b/"),
        ] {
            let want = (said != "a:b/c:d").then(|| format!("{BASE}{meant}"));
            assert_eq!(to(said), want, "{said}");
        }
        assert_eq!(to(&format!("{BASE}/login")), Some(format!("{BASE}/login")));
        assert_eq!(to(&format!("{BASE}ish")), Some(format!("{BASE}{BASE}ish")));
    }

    #[test]
    fn nothing_leads_out() {
        for said in [
            "http://evil.example/",
            "//evil.example/x",
            "\\\\evil.example",
            "/\\evil.example/../..",
            "ht\ttp://evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "http:evil.example",
            "https:/evil.example",
            " //evil.example",
            "http://10.1.2.3@evil.example/",
            "http://10.1.2.3.evil.example/",
            "http:///etc",
        ] {
            let led = to(said);
            assert!(led.as_ref().is_none_or(|l| l.starts_with(&format!("{BASE}/"))), "{said:?} leads to {led:?}");
        }
        for said in
            ["/../../../../secrets", "../../../../../../secrets", "/%2e%2E/%2e./.%2e/secrets", "..\\..\\..\\secrets"]
        {
            assert_eq!(to(said), Some(format!("{BASE}/secrets")), "{said}");
        }
        // Names the proxy's path and climbs out of it.
        assert_eq!(to(&format!("{BASE}/../../secrets")).unwrap().matches(BASE).count(), 1);
        assert!(to(&format!("{BASE}/../../secrets")).unwrap().starts_with(&format!("{BASE}/")));
    }

    proptest! {
        #[test]
        fn every_place_lies_below_the_proxy(said in "[/\\\\.:?#%2eE\\t a-cHhtps@]{0,24}", at in "(/[a-z.]{0,4}){1,4}") {
            if let Some(led) = rewritten(&said, BASE, &at, &HOSTS) {
                prop_assert!(led == BASE || led.starts_with(&format!("{BASE}/")), "{led}");
                let path = &led[..led.find(['?', '#']).unwrap_or(led.len())];
                let climbs = |s: &str| s.to_ascii_lowercase().replace("%2e", ".") == "..";
                prop_assert!(!path.split(['/', '\\']).any(climbs), "{led}");
            }
        }
    }
}
