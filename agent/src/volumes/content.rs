//! What the files of configMap, secret, downwardAPI and projected volumes hold. Pure, given the objects.

use super::writer::{File, Payload};
use crate::pods::environment::{self, Facts, Lookup};
use crate::pods::references::{Key, Kind};
use crate::pods::spec;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume,
};
use std::collections::{BTreeMap, BTreeSet};

/// All that a pod refers to: in variables, volumes and for pulling.
pub fn references(pod: &Pod) -> BTreeSet<Key> {
    let namespace = spec::namespace(pod);
    let key = |kind, name: &str| Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let mut keys = BTreeSet::new();
    for (container, _) in spec::containers(pod) {
        for source in container.env_from.iter().flatten() {
            keys.extend(source.config_map_ref.as_ref().map(|r| key(Kind::ConfigMap, &r.name)));
            keys.extend(source.secret_ref.as_ref().map(|r| key(Kind::Secret, &r.name)));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            keys.extend(source.config_map_key_ref.as_ref().map(|r| key(Kind::ConfigMap, &r.name)));
            keys.extend(source.secret_key_ref.as_ref().map(|r| key(Kind::Secret, &r.name)));
        }
    }
    let Some(pod_spec) = &pod.spec else { return keys };
    for secret in pod_spec.image_pull_secrets.iter().flatten() {
        keys.insert(key(Kind::Secret, &secret.name));
    }
    for volume in pod_spec.volumes.iter().flatten() {
        keys.extend(volume.config_map.as_ref().map(|c| key(Kind::ConfigMap, &c.name)));
        keys.extend(volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()).map(|n| key(Kind::Secret, n)));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            keys.extend(source.config_map.as_ref().map(|c| key(Kind::ConfigMap, &c.name)));
            keys.extend(source.secret.as_ref().map(|s| key(Kind::Secret, &s.name)));
        }
    }
    keys.retain(|k| !k.name.is_empty());
    keys
}

/// The service account tokens that a pod's volumes ask for.
pub fn tokens(pod: &Pod) -> Vec<&ServiceAccountTokenProjection> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let sources = volumes.flat_map(|v| v.projected.iter()).flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref()).collect()
}

/// Tokens as they were issued: by audience and lifetime asked for.
pub type Tokens = BTreeMap<(String, i64), String>;

pub fn token_key(projection: &ServiceAccountTokenProjection) -> (String, i64) {
    (projection.audience.clone().unwrap_or_default(), projection.expiration_seconds.unwrap_or(3600))
}

/// The files of one volume, or `None` when it isn't made of objects.
pub fn payload(
    pod: &Pod,
    volume: &Volume,
    facts: &Facts,
    lookup: &dyn Lookup,
    tokens: &Tokens,
) -> Option<Result<Payload, String>> {
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(0o644);
        return Some(config_map(&source.name, source.items.as_deref(), mode, source.optional, pod, lookup));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        return Some(secret(
            name,
            source.items.as_deref(),
            source.default_mode.unwrap_or(0o644),
            source.optional,
            pod,
            lookup,
        ));
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(0o644);
        return Some(downward(pod, source.items.as_deref().unwrap_or_default(), mode, facts));
    }
    let projected = volume.projected.as_ref()?;
    let mode = projected.default_mode.unwrap_or(0o644);
    let mut all = Payload::new();
    for source in projected.sources.iter().flatten() {
        let part = if let Some(s) = &source.config_map {
            config_map(&s.name, s.items.as_deref(), mode, s.optional, pod, lookup)
        } else if let Some(s) = &source.secret {
            secret(&s.name, s.items.as_deref(), mode, s.optional, pod, lookup)
        } else if let Some(s) = &source.downward_api {
            downward(pod, s.items.as_deref().unwrap_or_default(), mode, facts)
        } else if let Some(s) = &source.service_account_token {
            match tokens.get(&token_key(s)) {
                Some(token) => Ok(Payload::from([(s.path.clone(), file(token.clone().into_bytes(), None, mode))])),
                None => Err("failed to fetch token: not issued yet".to_owned()),
            }
        } else {
            Err("this kind of projection isn't supported on this node".to_owned())
        };
        match part {
            Ok(files) => all.extend(files),
            Err(message) => return Some(Err(message)),
        }
    }
    Some(Ok(all))
}

fn file(content: Vec<u8>, mode: Option<i32>, default: i32) -> File {
    File { content, mode: u32::try_from(mode.unwrap_or(default)).unwrap_or(0o644) }
}

fn config_map(
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    pod: &Pod,
    lookup: &dyn Lookup,
) -> Result<Payload, String> {
    let Some(map): Option<ConfigMap> = lookup.config_map(name)? else {
        return if optional == Some(true) {
            Ok(Payload::new())
        } else {
            Err(format!("configmap \"{name}\" not found"))
        };
    };
    let mut entries: BTreeMap<String, Vec<u8>> =
        map.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect();
    entries.extend(map.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)));
    pick(entries, items, mode, optional, || format!("{}/{name}", spec::namespace(pod)))
}

fn secret(
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    pod: &Pod,
    lookup: &dyn Lookup,
) -> Result<Payload, String> {
    let Some(secret): Option<Secret> = lookup.secret(name)? else {
        return if optional == Some(true) { Ok(Payload::new()) } else { Err(format!("secret \"{name}\" not found")) };
    };
    let entries = secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    pick(entries, items, mode, optional, || format!("{}/{name}", spec::namespace(pod)))
}

fn pick(
    entries: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    of: impl Fn() -> String,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(entries.into_iter().map(|(key, content)| (key, file(content, None, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match entries.get(&item.key) {
            Some(content) => {
                payload.insert(item.path.clone(), file(content.clone(), item.mode, mode));
            }
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent config key: {} in {}", item.key, of())),
        }
    }
    Ok(payload)
}

fn downward(pod: &Pod, items: &[DownwardAPIVolumeFile], mode: i32, facts: &Facts) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            environment::field(pod, &reference.field_path, facts)?
        } else if let Some(reference) = &item.resource_field_ref {
            let name = reference.container_name.as_deref().unwrap_or_default();
            let container: Option<&Container> = spec::containers(pod).map(|(c, _)| c).find(|c| c.name == name);
            environment::resource(container.ok_or_else(|| format!("container {name} not found"))?, reference, facts)?
        } else {
            continue;
        };
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode, mode));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct One(ConfigMap);

    impl Lookup for One {
        fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, String> {
            Ok((self.0.metadata.name.as_deref() == Some(name)).then(|| self.0.clone()))
        }
        fn secret(&self, _: &str) -> Result<Option<Secret>, String> {
            Ok(None)
        }
    }

    fn files(volume: serde_json::Value) -> Result<Vec<(String, String, u32)>, String> {
        let map = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let tokens = Tokens::from([(("".into(), 3607), "jwt".into())]);
        let lookup = One(serde_json::from_value(map).unwrap());
        let payload = payload(&pod, &volume, &Facts::default(), &lookup, &tokens).unwrap()?;
        Ok(payload.into_iter().map(|(p, f)| (p, String::from_utf8_lossy(&f.content).into_owned(), f.mode)).collect())
    }

    #[test]
    fn items_pick_and_rename_and_set_modes() {
        let all = files(json!({"name": "v", "configMap": {"name": "m"}})).unwrap();
        assert_eq!(all.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let picked = files(
            json!({"name": "v", "configMap": {"name": "m", "defaultMode": 256, "items": [{"key": "b", "path": "x/y"}]}}),
        );
        assert_eq!(picked.unwrap(), [("x/y".into(), "2".into(), 0o400)]);
        let missing = files(json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "z", "path": "z"}]}}));
        assert_eq!(missing.unwrap_err(), "references non-existent config key: z in ns/m");
    }

    #[test]
    fn the_usual_token_volume_is_whole() {
        let volume = json!({"name": "v", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        let got = files(volume).unwrap();
        assert_eq!(
            got.iter().map(|(p, c, _)| (p.as_str(), c.as_str())).collect::<Vec<_>>(),
            [("ca.crt", "1"), ("namespace", "ns"), ("token", "jwt")]
        );
    }

    #[test]
    fn optional_objects_may_be_missing() {
        assert_eq!(files(json!({"name": "v", "secret": {"secretName": "s"}})).unwrap_err(), "secret \"s\" not found");
        assert_eq!(files(json!({"name": "v", "secret": {"secretName": "s", "optional": true}})).unwrap(), []);
    }
}
