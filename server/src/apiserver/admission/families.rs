//! Which families of addresses a Service has: what its author left out, and what the cluster can't give, as Kubernetes
//! settles it before it allocates (KEP-563).

use crate::resources::service::{self, validation};
use crate::resources::tree::{at, child, list_at, map_at, str_at};
use longshore_api::field::{Error, Path};
use serde_json::{Value, json};

const V4: &str = "IPv4";
const V6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Settles `ipFamilyPolicy` and `ipFamilies`, and drops the second address of a Service that is to have one. `dual`: whether
/// the cluster has addresses of IPv6 for Services.
pub fn settle(tree: &mut Value, old: Option<&Value>, dual: bool) -> Result<(), Vec<Error>> {
    // A Service that prefers two families gets the second one only when it is asked for anew.
    if !service::needs_cluster_ip(tree) || old.is_some_and(|old| prefers_as_before(tree, old)) {
        return Ok(());
    }
    let old = old.filter(|old| service::needs_cluster_ip(old));
    let selectorless = service::is_headless(tree) && map_at(tree, "/spec/selector").next().is_none();
    default_policy(tree, old, selectorless && dual);
    let wrong = validation::families(tree);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut wrong = old.map(|old| reduce(tree, old)).unwrap_or_default();
    let policy = policy(tree).to_owned();
    if policy == SINGLE {
        let refuse = |what: &str| {
            let why = format!("must be '{REQUIRE}' or '{PREFER}' when multiple {what} are specified");
            Error::invalid(&policy_path(), SINGLE, why)
        };
        let two = |field: &str| list_at(tree, field).len() == 2;
        wrong.extend(two("/spec/clusterIPs").then(|| refuse("cluster IPs")));
        wrong.extend(two("/spec/ipFamilies").then(|| refuse("IP families")));
    }
    let mut families = texts(tree, "/spec/ipFamilies");
    let ips = texts(tree, "/spec/clusterIPs");
    for (i, ip) in ips.iter().enumerate().skip(families.len()).take_while(|(_, ip)| *ip != "None") {
        let family = if ip.contains(':') { V6 } else { V4 };
        match family == V6 && !dual {
            true => {
                let path = Path::new("spec").child("clusterIPs").index(i);
                wrong.push(Error::invalid(&path, ips.clone(), format!("{family} is not configured on this cluster")));
            }
            false => families.push(family.to_owned()),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    // Whoever writes the endpoints of such a Service knows their families.
    if !selectorless {
        if policy == REQUIRE && !dual {
            let why = "this cluster is not configured for dual-stack services";
            wrong.push(Error::invalid(&policy_path(), REQUIRE, why));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, family)| *family == V6 && !dual) {
            let path = Path::new("spec").child("ipFamilies").index(i);
            wrong.push(Error::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
    }
    if families.is_empty() {
        families.push(V4.to_owned());
    }
    if policy != SINGLE && families.len() == 1 && (dual || selectorless) {
        families.push(if families[0] == V4 { V6 } else { V4 }.to_owned());
    }
    put(tree, "ipFamilies", json!(families));
    Ok(())
}

fn default_policy(tree: &mut Value, old: Option<&Value>, both: bool) {
    if !policy(tree).is_empty() {
        return;
    }
    let before = old.map(policy).filter(|policy| !policy.is_empty());
    let policy = before.unwrap_or(if both { REQUIRE } else { SINGLE }).to_owned();
    put(tree, "ipFamilyPolicy", policy.into());
}

/// Lets go of the second family of a Service that shall have one alone; what is left out without that being said is wrong.
fn reduce(tree: &mut Value, old: &Value) -> Vec<Error> {
    let mut wrong = Vec::new();
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let pointer = format!("/spec/{field}");
        let (now, before) = (list_at(tree, &pointer).to_vec(), list_at(old, &pointer));
        if policy(tree) != SINGLE {
            if !now.is_empty() && now.len() < before.len() {
                let why = format!("must be '{SINGLE}' to release the secondary {what}");
                wrong.push(Error::invalid(&policy_path(), policy(tree), why));
            }
        } else if now == before && now.len() > 1 {
            put(tree, field, json!(now[..1]));
        }
    }
    wrong
}

fn prefers_as_before(tree: &Value, old: &Value) -> bool {
    let same = |pointer: &str| at(tree, pointer) == at(old, pointer);
    let prefers = |tree: &Value| policy(tree) == PREFER;
    prefers(tree) && prefers(old) && ["/spec/type", "/spec/clusterIPs", "/spec/ipFamilies"].into_iter().all(same)
}

fn policy(tree: &Value) -> &str {
    str_at(tree, "/spec/ipFamilyPolicy")
}

fn policy_path() -> Path {
    Path::new("spec").child("ipFamilyPolicy")
}

fn texts(tree: &Value, pointer: &str) -> Vec<String> {
    list_at(tree, pointer).iter().filter_map(Value::as_str).map(String::from).collect()
}

fn put(tree: &mut Value, field: &str, value: Value) {
    if let Some(spec) = child(tree, "spec") {
        spec.insert(field.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut tree = json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP", "selector": {"a": "b"}}});
        for (field, value) in spec.as_object().unwrap() {
            tree["spec"][field] = value.clone();
        }
        tree
    }

    /// Policy and families, or what is wrong.
    fn settled(spec: Value, old: Option<Value>, dual: bool) -> String {
        let mut tree = service(spec);
        match settle(&mut tree, old.map(service).as_ref(), dual) {
            Ok(()) => format!("{} {}", policy(&tree), texts(&tree, "/spec/ipFamilies").join(",")),
            Err(wrong) => wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn what_is_left_out_is_as_kubernetes_has_it() {
        for (spec, dual, expected) in [
            (json!({}), true, "SingleStack IPv4"),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), true, "PreferDualStack IPv4,IPv6"),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), false, "PreferDualStack IPv4"),
            (json!({"ipFamilyPolicy": "RequireDualStack"}), true, "RequireDualStack IPv4,IPv6"),
            (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), true, "RequireDualStack IPv6,IPv4"),
            (json!({"ipFamilies": ["IPv6"]}), true, "SingleStack IPv6"),
            (json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]}), true, "SingleStack IPv6"),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), true, "SingleStack IPv4"),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": null}),
                true,
                "RequireDualStack IPv4,IPv6",
            ),
            (json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": null}), false, "SingleStack IPv4"),
        ] {
            assert_eq!(settled(spec.clone(), None, dual), expected, "{spec} {dual}");
        }
    }

    #[test]
    fn what_the_cluster_can_not_give_is_refused_in_kubernetes_words() {
        for (spec, dual, expected) in [
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                false,
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                false,
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]}),
                false,
                "spec.clusterIPs[0]: Invalid value: [\"fd00::7\"]: IPv6 is not configured on this cluster",
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                true,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
            ),
            (json!({"ipFamilies": ["IPv4", "IPv4"]}), true, "spec.ipFamilies[1]: Duplicate value: \"IPv4\""),
            (
                json!({"ipFamilies": ["IPv6"], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}),
                true,
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
        ] {
            assert_eq!(settled(spec.clone(), None, dual), expected, "{spec} {dual}");
        }
    }

    #[test]
    fn a_service_gains_and_loses_its_second_family_by_its_policy_alone() {
        let ips = json!(["10.0.0.1", "fd00::1"]);
        let one = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let both = json!({"clusterIP": "10.0.0.1", "clusterIPs": ips, "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        let with = |spec: &Value, field: &str, value: Value| {
            let mut spec = spec.clone();
            spec[field] = value;
            spec
        };
        let wider = with(&one, "ipFamilyPolicy", json!("PreferDualStack"));
        assert_eq!(settled(wider.clone(), Some(one), true), "PreferDualStack IPv4,IPv6");
        assert_eq!(settled(wider.clone(), Some(wider), true), "PreferDualStack IPv4", "as it was");
        let narrower = with(&both, "ipFamilyPolicy", json!("SingleStack"));
        assert_eq!(settled(narrower.clone(), Some(both.clone()), true), "SingleStack IPv4");
        let mut tree = service(narrower);
        settle(&mut tree, Some(&service(both.clone())), true).unwrap();
        assert_eq!(tree["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        let silent = with(&with(&both, "ipFamilyPolicy", Value::Null), "clusterIPs", json!(["10.0.0.1"]));
        assert_eq!(
            settled(silent, Some(both), true),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary cluster IP"
        );
    }
}
