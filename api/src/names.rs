//! The rules for names: `k8s.io/apimachinery/pkg/util/validation`, messages included.
//! Each function answers with what is wrong, in Kubernetes's words; an empty list means valid.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && is_lower_alnum(b[0])
        && is_lower_alnum(b[b.len() - 1])
        && b.iter().all(|&c| is_lower_alnum(c) || c == b'-')
}

/// RFC 1123 label: namespaces, container names, hostnames.
pub fn dns1123_label(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 63 {
        wrong.push(too_long(63));
    }
    if !is_label(s) {
        wrong.push(if s.split('.').all(is_label) && !s.is_empty() {
            "must not contain dots".to_string()
        } else {
            LABEL.to_string()
        });
    }
    wrong
}

/// RFC 1123 subdomain: the name of most objects.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 253 {
        wrong.push(too_long(253));
    }
    if !s.split('.').all(is_label) {
        wrong.push(SUBDOMAIN.to_string());
    }
    wrong
}

/// RFC 1035 label: services.
pub fn dns1035_label(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 63 {
        wrong.push(too_long(63));
    }
    if !is_label(s) || !s.as_bytes()[0].is_ascii_lowercase() {
        wrong.push(LABEL_1035.to_string());
    }
    wrong
}

/// The last segment of a path: what RBAC kinds and some others allow as a name.
pub fn path_segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn is_qualified_name(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A label or annotation key: `name` or `prefix/name`.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match s.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_string());
            } else {
                wrong.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            wrong.push(format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_name(name) {
        wrong.push(format!("name part {QUALIFIED}"));
    }
    wrong
}

pub fn label_value(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 63 {
        wrong.push(too_long(63));
    }
    if !s.is_empty() && !is_qualified_name(s) {
        wrong.push(LABEL_VALUE.to_string());
    }
    wrong
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 253 {
        wrong.push(too_long(253));
    }
    if s.is_empty() || !s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        wrong.push(CONFIG_KEY.to_string());
    }
    match s {
        "." => wrong.push("must not be '.'".to_string()),
        ".." => wrong.push("must not be '..'".to_string()),
        s if s.starts_with("..") => wrong.push("must not start with '..'".to_string()),
        _ => {}
    }
    wrong
}

/// A port's name (IANA service name).
pub fn port_name(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if s.len() > 15 {
        wrong.push(too_long(15).replace("bytes", "characters"));
    }
    if !s.bytes().all(|c| is_lower_alnum(c) || c == b'-') || s.is_empty() {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !s.bytes().any(|c| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_string());
    }
    if s.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_string());
    }
    if s.starts_with('-') || s.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_string());
    }
    wrong
}

pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { vec![] } else { vec!["must be between 1 and 65535, inclusive".to_string()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_names_as_kubernetes_does() {
        assert!(dns1123_label("a-1").is_empty());
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(!dns1123_subdomain("A").is_empty());
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert!(!dns1035_label("1a").is_empty());
        assert!(qualified_name("example.com/Name_1").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(label_value("").is_empty());
        assert!(!label_value("-a").is_empty());
        assert!(!config_map_key("..x").is_empty());
        assert!(port_name("http").is_empty());
        assert!(!port_name("80").is_empty());
    }
}
