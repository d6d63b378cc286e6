//! A container's environment, command and arguments. Pure, given the objects that are referred to.
//!
//! Order matters and is Kubernetes's: service variables first, then `envFrom`, then `env` one by one, where each may use
//! `$(NAME)` of what stands before it; later names win. Command and arguments use the result.

use super::spec;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret, Service,
};
use longshore_api::quantity::Quantity;
use std::collections::BTreeMap;

/// Looks up what variables and volumes refer to. `Ok(None)`: there is no such object.
pub trait Lookup {
    fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, String>;
    fn secret(&self, name: &str) -> Result<Option<Secret>, String>;
}

/// What a downward reference may name beside the object itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub node_name: String,
    pub host_ip: String,
    pub host_ips: String,
    pub pod_ip: String,
    pub pod_ips: String,
    /// The node's allocatable amounts: what a missing limit means.
    pub cpu_milli: i64,
    pub memory: i64,
}

/// `$(NAME)` by its value, `$$(NAME)` by `$(NAME)`; what isn't known stays as it is.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + 3 + name.len()]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Variables in the order in which they were first named, later values winning, as `NAME=value`. `Err`: the message of
/// a `CreateContainerConfigError`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    services: &[Service],
    lookup: &dyn Lookup,
) -> Result<Environment, String> {
    let mut environment = Environment::default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let in_service = service_variables(services, spec::namespace(pod), links);

    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let entries: BTreeMap<String, String> = if let Some(reference) = &source.config_map_ref {
            match lookup.config_map(&reference.name)? {
                Some(map) => map.data.unwrap_or_default(),
                None if reference.optional == Some(true) => BTreeMap::new(),
                None => return Err(format!("configmap \"{}\" not found", reference.name)),
            }
        } else if let Some(reference) = &source.secret_ref {
            match lookup.secret(&reference.name)? {
                Some(secret) => texts(secret),
                None if reference.optional == Some(true) => BTreeMap::new(),
                None => return Err(format!("secret \"{}\" not found", reference.name)),
            }
        } else {
            BTreeMap::new()
        };
        for (key, value) in entries {
            let name = format!("{prefix}{key}");
            // The rule of today for names: printable, without `=`.
            if !name.is_empty() && name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
                environment.set(name, value);
            }
        }
    }

    let mut known = in_service.clone();
    known.extend(environment.values.clone());
    for variable in container.env.iter().flatten() {
        let Some(value) = value(pod, container, variable, facts, lookup, &known)? else { continue };
        known.insert(variable.name.clone(), value.clone());
        environment.set(variable.name.clone(), value);
    }
    for (name, value) in in_service {
        if !environment.values.contains_key(&name) {
            environment.set(name, value);
        }
    }
    Ok(environment)
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    order: Vec<String>,
    pub values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    pub fn pairs(&self) -> Vec<String> {
        self.order.iter().map(|name| format!("{name}={}", self.values[name])).collect()
    }
}

fn texts(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(k, v)| (k, String::from_utf8_lossy(&v.0).into_owned())).collect()
}

fn value(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    facts: &Facts,
    lookup: &dyn Lookup,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), known)));
    };
    from_source(pod, container, source, facts, lookup)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    facts: &Facts,
    lookup: &dyn Lookup,
) -> Result<Option<String>, String> {
    let namespace = spec::namespace(pod);
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, facts).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let name = reference.container_name.as_deref().filter(|n| !n.is_empty());
        let of = match name {
            Some(name) => spec::containers(pod).map(|(c, _)| c).find(|c| c.name == name),
            None => Some(container),
        };
        let of = of.ok_or_else(|| format!("container {} not found", name.unwrap_or_default()))?;
        return resource(of, reference, facts).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = lookup.config_map(&reference.name)?;
        return match map {
            None if reference.optional == Some(true) => Ok(None),
            None => Err(format!("configmap \"{}\" not found", reference.name)),
            Some(map) => match map.data.and_then(|mut d| d.remove(&reference.key)) {
                Some(value) => Ok(Some(value)),
                None if reference.optional == Some(true) => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name)),
            },
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = lookup.secret(&reference.name)?;
        return match secret {
            None if reference.optional == Some(true) => Ok(None),
            None => Err(format!("secret \"{}\" not found", reference.name)),
            Some(secret) => match texts(secret).remove(&reference.key) {
                Some(value) => Ok(Some(value)),
                None if reference.optional == Some(true) => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name)),
            },
        };
    }
    Err("this source of a variable isn't supported".into())
}

/// A downward reference: `metadata.labels['app']`, `status.podIP`, …
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let pod_spec = pod.spec.as_ref();
    let own = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => own(&meta.name),
        "metadata.namespace" => own(&meta.namespace),
        "metadata.uid" => own(&meta.uid),
        "metadata.labels" => map_lines(meta.labels.as_ref()),
        "metadata.annotations" => map_lines(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod_spec.map(|s| own(&s.service_account_name)).unwrap_or_default(),
        "status.hostIP" => facts.host_ip.clone(),
        "status.hostIPs" => facts.host_ips.clone(),
        "status.podIP" => facts.pod_ip.clone(),
        "status.podIPs" => facts.pod_ips.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines, sorted, values quoted as Go quotes them.
fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", go_quote(v))).collect();
    lines.join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `limits.cpu` and its kin, divided and rounded up; a missing limit is what the node can give.
pub fn resource(container: &Container, reference: &ResourceFieldSelector, facts: &Facts) -> Result<String, String> {
    let resources = container.resources.clone().unwrap_or_default();
    let path = reference.resource.as_str();
    let (kind, name) = path.split_once('.').ok_or_else(|| format!("unsupported container resource : {path}"))?;
    let list = match kind {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(format!("unsupported container resource : {path}")),
    };
    let amount = list.as_ref().and_then(|l| l.get(name)).and_then(|q| Quantity::parse(&q.0).ok());
    let divisor = reference.divisor.as_ref().and_then(|d| Quantity::parse(&d.0).ok()).filter(|d| !d.is_zero());
    let ceil = |amount: i64, divisor: i64| (amount + divisor - 1) / divisor.max(1);
    Ok(match name {
        "cpu" => {
            let missing = if kind == "limits" { facts.cpu_milli } else { 0 };
            let milli = amount.map_or(missing, |a| a.milli_value());
            ceil(milli, divisor.map_or(1000, |d| d.milli_value())).to_string()
        }
        _ if matches!(name, "memory" | "ephemeral-storage") || name.starts_with("hugepages-") => {
            let missing = if (kind, name) == ("limits", "memory") { facts.memory } else { 0 };
            ceil(amount.map_or(missing, |a| a.value()), divisor.map_or(1, |d| d.value())).to_string()
        }
        _ => return Err(format!("unsupported container resource : {path}")),
    })
}

/// Variables that tell of services: those of the pod's namespace (with `enableServiceLinks`) and `kubernetes` always.
fn service_variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let at = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = (at, name) == ("default", "kubernetes");
        let own = links && at == namespace;
        if !(master || own) {
            continue;
        }
        let Some(service_spec) = &service.spec else { continue };
        let ip = service_spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = service_spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else { continue };
        let prefix = name.to_ascii_uppercase().replace('-', "_");
        out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                out.insert(
                    format!("{prefix}_SERVICE_PORT_{}", name.to_ascii_uppercase().replace('-', "_")),
                    port.port.to_string(),
                );
            }
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_ascii_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            let each = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
            out.insert(each.clone(), url);
            out.insert(format!("{each}_PROTO"), lower);
            out.insert(format!("{each}_PORT"), port.port.to_string());
            out.insert(format!("{each}_ADDR"), ip.to_owned());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Objects(Vec<ConfigMap>, Vec<Secret>);

    impl Lookup for Objects {
        fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, String> {
            Ok(self.0.iter().find(|m| m.metadata.name.as_deref() == Some(name)).cloned())
        }
        fn secret(&self, name: &str) -> Result<Option<Secret>, String> {
            Ok(self.1.iter().find(|m| m.metadata.name.as_deref() == Some(name)).cloned())
        }
    }

    fn pod(container: serde_json::Value) -> (Pod, Container) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web", "b": "say \"hi\""}},
            "spec": {"containers": [container]},
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        (pod, container)
    }

    fn env(container: serde_json::Value, objects: &Objects) -> Result<Vec<String>, String> {
        let (pod, container) = pod(container);
        let facts = Facts { pod_ip: "10.1.0.5".into(), cpu_milli: 2000, memory: 1 << 30, ..Default::default() };
        environment(&pod, &container, &facts, &[], objects).map(|e| e.pairs())
    }

    #[test]
    fn expansion_follows_kubernetes_to_the_dollar() {
        let vars = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())]);
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("x$(A)$(A)y", "x11y"),
            ("$(E)", ""),
            ("$()", "$()"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, &vars), want, "{text}");
        }
    }

    #[test]
    fn variables_see_what_stands_before_them_and_later_ones_win() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"A": "map", "bad=name": "x"}})).unwrap();
        let secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"key": "czNjcmV0"}})).unwrap();
        let got = env(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
                "env": [{"name": "X", "value": "$(P_A)-$(LATER)"}, {"name": "P_A", "value": "own"},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                    {"name": "LATER", "value": "l"}]}),
            &Objects(vec![map], vec![secret]),
        );
        assert_eq!(got.unwrap(), ["P_A=own", "X=map-$(LATER)", "S=s3cret", "IP=10.1.0.5", "CPU=2", "LATER=l"]);
    }

    #[test]
    fn a_missing_reference_says_what_is_missing() {
        let none = Objects(vec![], vec![]);
        let of =
            |source: serde_json::Value| env(json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]}), &none);
        assert_eq!(of(json!({"configMapKeyRef": {"name": "m", "key": "k"}})).unwrap_err(), "configmap \"m\" not found");
        assert_eq!(of(json!({"secretKeyRef": {"name": "s", "key": "k"}})).unwrap_err(), "secret \"s\" not found");
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
        let got = env(
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}),
            &Objects(vec![map], vec![]),
        );
        assert_eq!(got.unwrap_err(), "couldn't find key k in ConfigMap ns/m");
    }

    #[test]
    fn services_are_told_as_docker_links_once_were() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "my-db", "namespace": "ns"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432}]}}))
        .unwrap();
        let headless: Service = serde_json::from_value(json!({"metadata": {"name": "h", "namespace": "ns"},
            "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}))
        .unwrap();
        let vars = service_variables(&[service, headless], "ns", true);
        assert_eq!(vars["MY_DB_SERVICE_HOST"], "10.96.0.9");
        assert_eq!(vars["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(vars["MY_DB_PORT"], "tcp://10.96.0.9:5432");
        assert_eq!(vars["MY_DB_PORT_5432_TCP_ADDR"], "10.96.0.9");
        assert_eq!(vars.len(), 8);
    }

    #[test]
    fn labels_as_a_file_are_quoted_lines() {
        let (pod, _) = pod(json!({"name": "c"}));
        assert_eq!(field(&pod, "metadata.labels", &Facts::default()).unwrap(), "app=\"web\"\nb=\"say \\\"hi\\\"\"");
        assert_eq!(field(&pod, "metadata.labels['app']", &Facts::default()).unwrap(), "web");
        assert!(field(&pod, "status.phase", &Facts::default()).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let (_, container) = pod(json!({"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}}}));
        let of = |resource: &str, divisor: &str| {
            let reference: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            resource_(&container, &reference)
        };
        fn resource_(c: &Container, r: &ResourceFieldSelector) -> String {
            resource(c, r, &Facts { memory: 7, ..Default::default() }).unwrap()
        }
        assert_eq!(of("limits.cpu", "0"), "2");
        assert_eq!(of("limits.cpu", "1m"), "1500");
        assert_eq!(of("limits.memory", "1Mi"), "100");
        assert_eq!(of("requests.memory", "1"), "0");
    }
}
