//! Secret.

use super::age::age;
use super::findings::Findings;
use super::tree::{child_of, fill_zero, map_at, str_at};
use super::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use longshore_api::field::Path;
use longshore_api::names;

const MAX_SIZE: usize = 1 << 20;
const REDACTED: &str = "<secret contents redacted>";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub static RESOURCE: Resource = Resource {
    group: "",
    kind: "Secret",
    list_kind: "SecretList",
    plural: "secrets",
    singular: "secret",
    type_name: "io.k8s.api.core.v1.Secret",
    sealed: true,
    columns: &[
        Column::new(
            "Type",
            "string",
            "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
        ),
        Column::new(
            "Data",
            "string",
            "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
        ),
        Column::AGE,
    ],
    cells: |tree, now| vec![str_at(tree, "/type").into(), map_at(tree, "/data").count().into(), age(tree, now)],
    default,
    validate,
    validate_update,
    fields: |tree| BTreeMap::from([("type", str_at(tree, "/type").to_string())]),
    ..BASE
};

fn default(tree: &mut Value) {
    let Some(map) = tree.as_object_mut() else { return };
    fill_zero(map, "type", "Opaque");
    // `stringData` is only written: what it says goes into `data`, over what is there.
    if let Some(Value::Object(plain)) = map.remove("stringData") {
        if plain.is_empty() {
            return;
        }
        let Some(data) = child_of(map, "data") else { return };
        for (key, value) in plain {
            data.insert(key, BASE64_STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }
}

fn validate(tree: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let path = Path::new("data");
    let Some(data) = found.part::<BTreeMap<String, ByteString>>(tree, "data") else { return found.into_errors() };
    for key in data.keys() {
        found.each(&path.key(key), key, names::config_map_key(key));
    }
    if data.values().map(|value| value.0.len()).sum::<usize>() > MAX_SIZE {
        found.too_long(&path, MAX_SIZE);
    }
    of_type(tree, &data, &path, &mut found);
    found.into_errors()
}

/// Each of Kubernetes's own types has keys that must be there.
fn of_type(tree: &Value, data: &BTreeMap<String, ByteString>, path: &Path, found: &mut Findings) {
    let mut require = |keys: &[&str]| {
        for key in keys {
            if !data.contains_key(*key) {
                found.required(&path.key(key), "");
            }
        }
    };
    match str_at(tree, "/type") {
        "kubernetes.io/service-account-token" => {
            let account = tree["metadata"]["annotations"][ACCOUNT_NAME].as_str().unwrap_or_default();
            if account.is_empty() {
                found.required(&Path::new("metadata").child("annotations").key(ACCOUNT_NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(data, ".dockercfg", path, found),
        "kubernetes.io/dockerconfigjson" => docker_config(data, ".dockerconfigjson", path, found),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            found.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn docker_config(data: &BTreeMap<String, ByteString>, key: &str, path: &Path, found: &mut Findings) {
    match data.get(key) {
        None => found.required(&path.key(key), ""),
        Some(config) => {
            if let Err(why) = serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(&config.0) {
                found.invalid(&path.key(key), REDACTED, why.to_string());
            }
        }
    }
}

fn validate_update(tree: &Value, old: &Value) -> Vec<field::Error> {
    let mut found = Findings::default();
    let (new, was) = (str_at(tree, "/type"), str_at(old, "/type"));
    found.immutable(&Path::new("type"), &new, &was, new);
    found.into_errors().into_iter().chain(config_map::frozen(tree, old, &["data"])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(tree: Value) -> Vec<String> {
        validate(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn string_data_goes_into_data() {
        let mut secret = json!({"stringData": {"a": "hi", "b": "x"}, "data": {"a": "b2xk", "c": "eA=="}});
        default(&mut secret);
        let expected = json!({"type": "Opaque", "data": {"a": "aGk=", "b": "eA==", "c": "eA=="}});
        assert_eq!(secret, expected);
        default(&mut secret);
        assert_eq!(secret, expected);
    }

    #[test]
    fn each_type_has_its_keys() {
        assert_eq!(wrong(json!({"type": "Opaque", "data": {"a": "eA=="}})), [""; 0]);
        assert_eq!(wrong(json!({"type": "example.com/own"})), [""; 0]);
        let tls = wrong(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}));
        assert_eq!(tls, ["data[tls.key]: Required value"]);
        let basic = wrong(json!({"type": "kubernetes.io/basic-auth"}));
        assert_eq!(basic, ["data[username]: Required value", "data[password]: Required value"]);
        let docker = wrong(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}));
        assert!(docker[0].starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": "));
        let token = wrong(json!({"type": "kubernetes.io/service-account-token"}));
        assert_eq!(token, ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]);
    }

    #[test]
    fn the_type_never_changes() {
        let errors = validate_update(&json!({"type": "kubernetes.io/tls"}), &json!({"type": "Opaque"}));
        assert_eq!(errors[0].to_string(), "type: Invalid value: \"kubernetes.io/tls\": field is immutable");
    }
}
