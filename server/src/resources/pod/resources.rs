//! The rules for what containers and pods ask of CPU, memory and other resources.

use super::volumes::whole_huge_pages;
use crate::resources::findings::{Findings, NEGATIVE, all, text};
use k8s_openapi::api::core::v1::{Container, PodResourceClaim, PodSpec, ResourceClaim, ResourceRequirements};
use longshore_api::field::Path;
use longshore_api::names;
use longshore_api::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Resources of Kubernetes's own that a container may name without a domain.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Those and the names that only quotas use: what may stand without a domain at all.
const WITHOUT_DOMAIN: [&str; 17] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
];

fn is_huge(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// Of Kubernetes itself: more of it may be promised than there is.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

fn may_overcommit(resource: &str) -> bool {
    is_native(resource) && !is_huge(resource)
}

/// `example.com/gpu`: whole numbers only.
fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && names::qualified_name(&format!("requests.{resource}")).is_empty()
}

fn container_resource(resource: &str, path: &Path, found: &mut Findings) {
    let wrong = names::qualified_name(resource);
    let unqualified = !resource.contains('/');
    if !wrong.is_empty() {
        found.each(path, resource, wrong);
    } else if unqualified && !WITHOUT_DOMAIN.contains(&resource) && !is_huge(resource) {
        found.invalid(path, resource, "must be a standard resource type or fully qualified");
    }
    if unqualified {
        if !STANDARD.contains(&resource) && !is_huge(resource) {
            found.invalid(path, resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        found.invalid(path, resource, "doesn't follow extended resource name standard");
    }
}

fn pod_resource(resource: &str, path: &Path, found: &mut Findings) {
    if !["cpu", "memory"].contains(&resource) && !is_huge(resource) {
        found.not_supported(path, resource, &["cpu", "memory"]);
    }
}

/// An amount of a resource: no less than zero, and whole where a part makes no sense.
pub fn amount(resource: &str, text: &str, path: &Path, found: &mut Findings) -> Option<Quantity> {
    let quantity = found.quantity(path, text)?;
    if quantity.is_negative() {
        found.invalid(path, quantity.to_string(), NEGATIVE);
    }
    let integer = is_extended(resource) || ["pods", "services", "secrets", "configmaps"].contains(&resource);
    if integer && quantity.milli_value() % 1000 != 0 {
        found.invalid(path, quantity.to_string(), "must be an integer");
    }
    Some(quantity)
}

type Amounts = BTreeMap<String, Quantity>;

fn requirements(
    resources: &ResourceRequirements,
    name_rule: fn(&str, &Path, &mut Findings),
    path: &Path,
    found: &mut Findings,
) -> (Amounts, Amounts) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let mut read = |list: &Option<BTreeMap<String, _>>, path: &Path| -> Amounts {
        let mut amounts = Amounts::new();
        for (name, written) in list.iter().flatten() {
            let path = path.key(name);
            name_rule(name, &path, found);
            let k8s_openapi::apimachinery::pkg::api::resource::Quantity(written) = written;
            let Some(quantity) = amount(name, written, &path, found) else { continue };
            if is_huge(name) && !whole_huge_pages(name, &quantity) {
                let why = format!("{quantity} is not positive integer multiple of {name}");
                found.invalid(&path, quantity.to_string(), why);
            }
            amounts.insert(name.clone(), quantity);
        }
        amounts
    };
    let limits = read(&resources.limits, &limits_path);
    let requests = read(&resources.requests, &requests_path);
    for (name, request) in &requests {
        match limits.get(name) {
            Some(limit) if request.cmp_amount(limit).is_ne() && !may_overcommit(name) => {
                let why = format!("must be equal to {name} limit of {limit}");
                found.invalid(&requests_path, request.to_string(), why);
            }
            Some(limit) if request.cmp_amount(limit).is_gt() => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                found.invalid(&requests_path, request.to_string(), why);
            }
            None if !may_overcommit(name) => {
                found.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let named = |wanted: fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| wanted(name));
    if named(is_huge) && !named(|name| name == "cpu" || name == "memory") {
        found.forbidden(path, "HugePages require cpu or memory");
    }
    (limits, requests)
}

pub fn container(
    resources: Option<&ResourceRequirements>,
    pod_claims: &[PodResourceClaim],
    path: &Path,
    found: &mut Findings,
) {
    let Some(resources) = resources else { return };
    requirements(resources, container_resource, path, found);
    claims(all(&resources.claims), pod_claims, &path.child("claims"), found);
}

pub fn overhead(
    overhead: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    path: &Path,
    found: &mut Findings,
) {
    let limits = ResourceRequirements { limits: Some(overhead.clone()), ..Default::default() };
    requirements(&limits, container_resource, path, found);
}

fn claims(claims: &[ResourceClaim], pod_claims: &[PodResourceClaim], path: &Path, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let (name, request) = (claim.name.as_str(), text(&claim.request));
        if name.is_empty() {
            found.required(&path, "");
            continue;
        }
        if !request.is_empty() {
            found.each(&path.child("request"), request, names::dns1123_label(request));
        }
        let whole = seen.contains(&(name, ""));
        let part = request.is_empty() && seen.iter().any(|(other, _)| *other == name);
        if whole || part || !seen.insert((name, request)) {
            let shown = if request.is_empty() || whole { name.to_string() } else { format!("{name}/{request}") };
            found.duplicate(&path, shown);
        }
        if !pod_claims.iter().any(|c| c.name == name) {
            let mut known: Vec<_> = pod_claims.iter().map(|c| c.name.as_str()).collect();
            known.sort_unstable();
            let tail = if known.is_empty() { " which is empty".to_string() } else { format!(": {}", known.join(", ")) };
            found.not_found(&path, name, format!("must be one of the names in pod.spec.resourceClaims{tail}"));
        }
    }
}

/// Resources of the pod as a whole.
pub fn pod(spec: &PodSpec, path: &Path, found: &mut Findings) {
    let Some(resources) = &spec.resources else { return };
    let path = path.child("resources");
    if resources.claims.is_some() {
        found.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    let (limits, requests) = requirements(resources, pod_resource, &path, found);
    for (name, wanted) in requested(spec) {
        let Some(request) = requests.get(&name).filter(|request| wanted.cmp_amount(request).is_gt()) else { continue };
        let why = format!("must be greater than or equal to aggregate container requests of {wanted}");
        found.invalid(&path.child("requests").key(&name), request.to_string(), why);
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (name, limit) in container.resources.iter().flat_map(|r| r.limits.iter().flatten()) {
            let (Some(pod), Ok(limit)) = (limits.get(name), Quantity::parse(&limit.0)) else { continue };
            if limit.cmp_amount(pod).is_gt() {
                let path = path.child("containers").index(i).key(name).child("limits");
                found.invalid(&path, limit.to_string(), format!("must be less than or equal to pod limits of {pod}"));
            }
        }
    }
}

/// What the containers of a pod request together: init containers run one by one, restartable ones stay.
fn requested(spec: &PodSpec) -> Amounts {
    let of = |container: &Container| -> Amounts {
        let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
        requests.filter_map(|(name, q)| Some((name.clone(), Quantity::parse(&q.0).ok()?))).collect()
    };
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let total = sum.entry(name.clone()).or_insert(Quantity::ZERO);
            *total = if total.is_zero() { *amount } else { total.saturating_add(*amount) };
        }
    };
    let (mut sum, mut stay, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    spec.containers.iter().for_each(|c| add(&mut sum, &of(c)));
    for container in all(&spec.init_containers) {
        let mut at_once = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &at_once);
            add(&mut stay, &at_once);
            at_once = stay.clone();
        } else {
            add(&mut at_once, &stay);
        }
        for (name, amount) in at_once {
            let top = most.entry(name).or_insert(amount);
            if amount.cmp_amount(top).is_gt() {
                *top = amount;
            }
        }
    }
    for (name, amount) in most {
        let total = sum.entry(name).or_insert(amount);
        if amount.cmp_amount(total).is_gt() {
            *total = amount;
        }
    }
    sum
}

/// `Guaranteed` when every container limits CPU and memory to what it requests, `BestEffort` when none asks for anything.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let mut guaranteed = true;
    let (mut asked, mut limited) = (false, BTreeMap::<String, (Quantity, Quantity)>::new());
    let positive =
        |list: &Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| -> Amounts {
            let compute = list.iter().flatten().filter(|(name, _)| ["cpu", "memory"].contains(&name.as_str()));
            compute
                .filter_map(|(name, q)| Some((name.clone(), Quantity::parse(&q.0).ok()?)))
                .filter(|(_, q)| !q.is_zero() && !q.is_negative())
                .collect()
        };
    let containers = spec.containers.iter().chain(all(&spec.init_containers)).map(|c| c.resources.as_ref());
    // Resources of the pod as a whole, where set, speak for all its containers.
    let everything: Vec<_> = match &spec.resources {
        Some(pod) => vec![Some(pod)],
        None => containers.collect(),
    };
    for resources in everything {
        let none = ResourceRequirements::default();
        let resources = resources.unwrap_or(&none);
        let (requests, limits) = (positive(&resources.requests), positive(&resources.limits));
        asked |= !requests.is_empty() || !limits.is_empty();
        guaranteed &= limits.len() == 2;
        for (name, amount) in &limits {
            let entry = limited.entry(name.clone()).or_default();
            entry.0 = entry.0.saturating_add(*amount);
        }
        for (name, amount) in &requests {
            let entry = limited.entry(name.clone()).or_default();
            entry.1 = entry.1.saturating_add(*amount);
        }
    }
    match asked {
        false => "BestEffort",
        true if guaranteed && limited.values().all(|(limit, request)| limit.cmp_amount(request).is_eq()) => {
            "Guaranteed"
        }
        true => "Burstable",
    }
}
