//! The rules for pods and pod templates as wholes: `pkg/apis/core/validation/validation.go`. The parts have files of their
//! own beside this one.

use super::containers::{self, Around};
use super::{environment, resources, scheduling, security, volumes};
use crate::resources::addresses;
use crate::resources::findings::{Findings, all, text};
use crate::resources::labels::{annotations, labels};
use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use longshore_api::field::{Error, Path};
use longshore_api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A whole pod, its metadata excepted.
pub fn pod(tree: &Value) -> Vec<Error> {
    let mut found = Findings::default();
    let meta = found.part::<ObjectMeta>(tree, "metadata").unwrap_or_default();
    let Some(spec) = found.part::<PodSpec>(tree, "spec") else { return found.into_errors() };
    let path = Path::new("spec");
    pod_annotations(meta.annotations.as_ref(), &spec, &Path::new("metadata").child("annotations"), &mut found);
    pod_spec(&spec, true, &path, &mut found);
    if text(&spec.service_account_name).is_empty() {
        tokens_without_account(&spec, &path, &mut found);
    }
    containers::unpadded_images(&spec.containers, &path.child("containers"), &mut found);
    containers::unpadded_images(all(&spec.init_containers), &path.child("initContainers"), &mut found);
    if !all(&spec.ephemeral_containers).is_empty() {
        found.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(&spec.node_name).is_empty() && !all(&spec.scheduling_gates).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        found.forbidden(&path.child("nodeName"), why);
    }
    found.into_errors()
}

/// The template of a controller.
pub fn template(template: &PodTemplateSpec, path: &Path, found: &mut Findings) {
    let none = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&none);
    let meta = template.metadata.as_ref();
    labels(meta.and_then(|m| m.labels.as_ref()), &path.child("labels"), found);
    let notes = meta.and_then(|m| m.annotations.as_ref());
    annotations(notes, &path.child("annotations"), found);
    pod_annotations(notes, spec, &path.child("annotations"), found);
    pod_spec(spec, false, &path.child("spec"), found);
    if !all(&spec.ephemeral_containers).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        found.forbidden(&path.child("spec").child("ephemeralContainers"), why);
    }
}

fn pod_annotations(annotations: Option<&BTreeMap<String, String>>, spec: &PodSpec, path: &Path, found: &mut Findings) {
    let value = |key: &str| annotations.and_then(|a| a.get(key));
    if let Some(mirror) = value(MIRROR).filter(|_| text(&spec.node_name).is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        found.invalid(&path.key(MIRROR), mirror.as_str(), why);
    }
    if let Some(cost) = value(DELETION_COST) {
        // Kubernetes refuses what strconv wouldn't print again: `+1` and `007`.
        let number = cost.parse::<i32>().ok().filter(|n| n.to_string() == *cost);
        if number.is_none() {
            found.invalid(&path.key(DELETION_COST), cost.as_str(), "must be a 32bit integer");
        }
    }
}

fn pod_spec(spec: &PodSpec, is_pod: bool, path: &Path, found: &mut Findings) {
    if spec.termination_grace_period_seconds.is_none() {
        found.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::volumes(all(&spec.volumes), is_pod, &path.child("volumes"), found);
    resource_claims(spec, &path.child("resourceClaims"), found);
    let around = Around { spec, volumes: &volumes, host_users: spec.host_users != Some(false) };
    containers::containers(&around, &path.child("containers"), found);
    containers::init_containers(&around, &path.child("initContainers"), found);
    resources::pod(spec, path, found);
    host_network(spec, is_pod, &path.child("containers"), found);
    let policies = ["Always", "OnFailure", "Never"];
    found.one_of(&path.child("restartPolicy"), text(&spec.restart_policy), &policies);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    found.one_of(&path.child("dnsPolicy"), text(&spec.dns_policy), &policies);
    labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), found);
    if let Some(context) = &spec.security_context {
        security::pod(context, spec, &path.child("securityContext"), found);
    }
    scheduling::affinity(spec.affinity.as_ref(), &path.child("affinity"), found);
    dns(spec.dns_config.as_ref(), text(&spec.dns_policy), &path.child("dnsConfig"), found);
    for (i, gate) in all(&spec.readiness_gates).iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        found.each(&path, &gate.condition_type, names::qualified_name(&gate.condition_type));
    }
    let mut gates = BTreeSet::new();
    for (i, gate) in all(&spec.scheduling_gates).iter().enumerate() {
        let path = path.child("schedulingGates").index(i);
        found.each(&path, &gate.name, names::qualified_name(&gate.name));
        if !gates.insert(&gate.name) {
            found.duplicate(&path, gate.name.as_str());
        }
    }
    let constraints = all(&spec.topology_spread_constraints);
    scheduling::spread(constraints, &path.child("topologySpreadConstraints"), found);
    host_users(spec, path, found);
    named_things(spec, path, found);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = "must be between 1 and 2147483647, inclusive";
        found.invalid(&path.child("activeDeadlineSeconds"), seconds, why);
    }
    scheduling::tolerations(all(&spec.tolerations), &path.child("tolerations"), found);
    for (i, alias) in all(&spec.host_aliases).iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        addresses::ip(&alias.ip, &path.child("ip"), found);
        for (j, name) in all(&alias.hostnames).iter().enumerate() {
            found.each(&path.child("hostnames").index(j), name, names::dns1123_subdomain(name));
        }
    }
    if let Some(policy) = spec.preemption_policy.as_deref() {
        found.one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = &spec.overhead {
        resources::overhead(overhead, &path.child("overhead"), found);
    }
    if let Some(os) = &spec.os {
        match os.name.as_str() {
            "" => found.required(&path.child("os").child("name"), ""),
            name => found.none_or_one_of(&path.child("os"), Some(name), &["linux", "windows"]),
        }
    }
    environment::file_key_volumes(spec, path, found);
}

/// Fields that hold names of other things.
fn named_things(spec: &PodSpec, path: &Path, found: &mut Findings) {
    type Rule = fn(&str) -> Vec<String>;
    let (label, subdomain): (Rule, Rule) = (names::dns1123_label, names::dns1123_subdomain);
    for (field, name, rule) in [
        ("serviceAccountName", &spec.service_account_name, subdomain),
        ("nodeName", &spec.node_name, subdomain),
        ("hostname", &spec.hostname, label),
        ("subdomain", &spec.subdomain, label),
        ("priorityClassName", &spec.priority_class_name, subdomain),
    ] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            found.each(&path.child(field), name, rule(name));
        }
    }
    if let Some(class) = &spec.runtime_class_name {
        found.each(&path.child("runtimeClassName"), class, subdomain(class));
    }
    if let Some(name) = &spec.hostname_override {
        let path = path.child("hostnameOverride");
        if spec.set_hostname_as_fqdn == Some(true) {
            found.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.host_network == Some(true) {
            found.forbidden(&path, "may not be specified when hostNetwork is true");
        }
        if name.len() > 64 {
            found.too_long(&path, 64);
        }
        found.each(&path, name, subdomain(name));
    }
}

fn tokens_without_account(spec: &PodSpec, path: &Path, found: &mut Findings) {
    for (i, volume) in all(&spec.volumes).iter().enumerate() {
        let sources = volume.projected.as_ref().map(|p| all(&p.sources)).unwrap_or_default();
        for (j, source) in sources.iter().enumerate() {
            if source.service_account_token.is_some() {
                let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let why = "must not be specified when serviceAccountName is not set";
                found.forbidden(&path.child("serviceAccountToken"), why);
            }
        }
    }
}

fn resource_claims(spec: &PodSpec, path: &Path, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, claim) in all(&spec.resource_claims).iter().enumerate() {
        let path = path.index(i);
        match claim.name.as_str() {
            "" => found.required(&path.child("name"), ""),
            name if !seen.insert(name) => found.duplicate(&path.child("name"), name),
            name => found.each(&path.child("name"), name, names::dns1123_label(name)),
        }
        let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
        let shown = || serde_json::to_value(claim).unwrap_or(Value::Null);
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => found.invalid(&path, shown(), why),
            (None, None) => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                found.invalid(&path, shown(), why);
            }
            _ => {}
        }
    }
}

fn host_network(spec: &PodSpec, is_pod: bool, path: &Path, found: &mut Findings) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in all(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or_default();
            if (is_pod || host != 0) && host != port.container_port {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                found.invalid(&path, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn host_users(spec: &PodSpec, path: &Path, found: &mut Findings) {
    if spec.host_users != Some(false) {
        return;
    }
    for (field, set) in [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)] {
        if set == Some(true) {
            found.forbidden(&path.child(field), "when `hostUsers` is false");
        }
    }
}

fn dns(config: Option<&PodDNSConfig>, policy: &str, path: &Path, found: &mut Findings) {
    const MAX_SERVERS: usize = 3;
    const MAX_SEARCHES: usize = 32;
    const MAX_SEARCH_CHARS: usize = 2048;
    let servers = config.map(|c| all(&c.nameservers)).unwrap_or_default();
    if policy == "None" {
        if config.is_none() {
            return found.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return found.required(&path.child("nameservers"), why);
        }
    }
    let Some(config) = config else { return };
    if servers.len() > MAX_SERVERS {
        let why = format!("must not have more than {MAX_SERVERS} nameservers");
        found.invalid(&path.child("nameservers"), servers.to_vec(), why);
    }
    for (i, server) in servers.iter().enumerate() {
        addresses::ip(server, &path.child("nameservers").index(i), found);
    }
    let (searches, path_of) = (all(&config.searches), path.child("searches"));
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        found.invalid(&path_of, searches.to_vec(), why);
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARS {
        let why =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        found.invalid(&path_of, searches.to_vec(), why);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Search paths may have underscores, the rest of the rule is that of subdomains.
        if !names::dns1123_subdomain(&name.replace('_', "a")).is_empty() {
            const RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '.' or '_', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";
            found.invalid(&path_of.index(i), name, RULE);
        }
    }
    for (i, option) in all(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            found.required(&path.child("options").index(i), "must not be empty");
        }
    }
}
