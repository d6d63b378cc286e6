use super::*;
use crate::read::Read;
use serde_json::{Value, json};

fn policy(spec: Value) -> Policy {
    Policy::read(&NetworkPolicy::read(&json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec})))
}

fn pod(namespace: &str, labels: Value) -> End {
    let pod = Pod::read(&json!({
        "metadata": {"name": "x", "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"podIP": "10.0.0.7"}
    }));
    End::of(&pod, &BTreeMap::from([(namespace.to_string(), Labels::from([("team".into(), namespace.into())]))]))
}

fn web() -> End {
    pod("a", json!({"app": "web", "tier": "front"}))
}

fn outside(ip: &str) -> End {
    End { address: ip.parse().ok(), pod: None }
}

/// What may come in to `web` from `other`.
fn into(specs: &[Value], other: &End) -> String {
    let all: Vec<Policy> = specs.iter().cloned().map(policy).collect();
    said(&judge(&all, Direction::Ingress, &web(), other))
}

fn out(specs: &[Value], other: &End) -> String {
    let all: Vec<Policy> = specs.iter().cloned().map(policy).collect();
    said(&judge(&all, Direction::Egress, &web(), other))
}

fn said(judged: &Judged) -> String {
    let ports = both(&judged.ports(), &everything());
    match text(&ports) {
        _ if is_everything(&ports) => "all".into(),
        none if none.is_empty() => "none".into(),
        text => text,
    }
}

#[test]
fn nobody_is_isolated_without_a_policy_that_selects_it() {
    assert_eq!(into(&[], &outside("192.0.2.1")), "all");
    assert_eq!(into(&[json!({"podSelector": {"matchLabels": {"app": "other"}}})], &web()), "all");
    let elsewhere = Policy { namespace: "b".into(), ..policy(json!({"podSelector": {}})) };
    assert!(judge(&[elsewhere], Direction::Ingress, &web(), &web()).isolating.is_empty());
}

#[test]
fn types_default_to_ingress_and_to_egress_where_it_has_rules() {
    let deny = json!({"podSelector": {}});
    assert_eq!((into(&[deny.clone()], &web()), out(&[deny], &web())), ("none".into(), "all".into()));
    let both_ways = json!({"podSelector": {}, "egress": [{}]});
    assert_eq!((into(&[both_ways.clone()], &web()), out(&[both_ways], &web())), ("none".into(), "all".into()));
    let only_out = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    assert_eq!((into(&[only_out.clone()], &web()), out(&[only_out], &web())), ("all".into(), "none".into()));
    // Rules of a direction that isn't among the types say nothing.
    let silent = json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{"ports": [{"port": 1}]}]});
    assert_eq!(into(&[silent], &web()), "all");
}

#[test]
fn an_empty_rule_allows_everything_and_no_rule_nothing() {
    assert_eq!(into(&[json!({"podSelector": {}, "ingress": [{}]})], &outside("192.0.2.1")), "all");
    assert_eq!(into(&[json!({"podSelector": {}, "ingress": []})], &outside("192.0.2.1")), "none");
    assert_eq!(into(&[json!({"podSelector": {}, "ingress": [{"from": [], "ports": []}]})], &web()), "all");
}

#[test]
fn selectors_take_labels_and_expressions() {
    let from = |selector: Value| {
        into(&[json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": selector}]}]})], &web())
    };
    assert_eq!(from(json!({})), "all");
    assert_eq!(from(json!({"matchLabels": {"app": "web"}})), "all");
    assert_eq!(from(json!({"matchLabels": {"app": "api"}})), "none");
    let expression = |key: &str, operator: &str, values: Value| {
        from(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
    };
    assert_eq!(expression("app", "In", json!(["api", "web"])), "all");
    assert_eq!(expression("app", "NotIn", json!(["web"])), "none");
    assert_eq!(expression("app", "Exists", json!(null)), "all");
    assert_eq!(expression("app", "DoesNotExist", json!(null)), "none");
    assert_eq!(expression("other", "NotIn", json!(["x"])), "all");
    assert_eq!(expression("app", "Nonsense", json!([])), "none");
    let selected =
        json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]}});
    assert_eq!(into(&[selected], &web()), "none");
}

#[test]
fn namespaces_and_pods_together_narrow_and_apart_widen() {
    let from = |peers: Value, other: &End| into(&[json!({"podSelector": {}, "ingress": [{"from": peers}]})], other);
    let team = json!({"matchLabels": {"team": "b"}});
    let api = json!({"matchLabels": {"app": "api"}});
    let (api_in_b, web_in_b, api_in_a) =
        (pod("b", json!({"app": "api"})), pod("b", json!({"app": "web"})), pod("a", json!({"app": "api"})));
    let together = json!([{"namespaceSelector": team, "podSelector": api}]);
    assert_eq!([&api_in_b, &web_in_b, &api_in_a].map(|end| from(together.clone(), end)), ["all", "none", "none"]);
    let apart = json!([{"namespaceSelector": team}, {"podSelector": api}]);
    assert_eq!([&api_in_b, &web_in_b, &api_in_a].map(|end| from(apart.clone(), end)), ["all", "all", "all"]);
    // Pods alone are those of the policy's own namespace; an empty selector of namespaces is all of them.
    assert_eq!(from(json!([{"podSelector": {}}]), &web_in_b), "none");
    assert_eq!(from(json!([{"namespaceSelector": {}}]), &web_in_b), "all");
    assert_eq!(from(json!([{"namespaceSelector": {}}]), &outside("192.0.2.1")), "none");
    assert_eq!(from(json!([{}]), &web_in_b), "none");
}

#[test]
fn blocks_have_exceptions() {
    let from = |block: Value, other: &End| {
        into(&[json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]})], other)
    };
    let block = json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]});
    assert_eq!(from(block.clone(), &outside("10.2.3.4")), "all");
    assert_eq!(from(block.clone(), &outside("10.1.3.4")), "none");
    assert_eq!(from(block.clone(), &outside("11.0.0.1")), "none");
    assert_eq!(from(block.clone(), &web()), "all", "pods have addresses too");
    assert_eq!(from(json!({"cidr": "0.0.0.0/0"}), &outside("11.0.0.1")), "all");
    assert_eq!(from(json!({"cidr": "2001:db8::/32"}), &outside("2001:db8::9")), "all");
    assert_eq!(from(json!({"cidr": "2001:db8::/32"}), &outside("11.0.0.1")), "none");
    assert_eq!(from(json!({"cidr": "nonsense"}), &outside("11.0.0.1")), "none");
    // Somebody out there, it isn't known who.
    let judged = |block: Value| {
        let policy = policy(json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}));
        judge(&[policy], Direction::Ingress, &web(), &End::default()).by(Protocol::Tcp, 80).map(|(_, some)| some)
    };
    assert_eq!(judged(json!({"cidr": "0.0.0.0/0"})), Some(false));
    assert_eq!(judged(json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]})), Some(false));
    assert_eq!(judged(json!({"cidr": "0.0.0.0/0", "except": ["8.0.0.0/8"]})), Some(true));
    assert_eq!(judged(json!({"cidr": "192.0.2.0/24"})), Some(true));
    assert_eq!(judged(json!({"cidr": "192.0.2.0/24", "except": ["192.0.0.0/16"]})), None);
}

#[test]
fn ports_by_number_range_name_and_protocol() {
    let ports =
        |ports: Value| into(&[json!({"podSelector": {}, "ingress": [{"ports": ports}]})], &outside("192.0.2.1"));
    assert_eq!(ports(json!([{"port": 80}])), "TCP 80");
    assert_eq!(ports(json!([{"port": 80, "endPort": 90}, {"port": 85, "endPort": 99}])), "TCP 80–99");
    assert_eq!(ports(json!([{"protocol": "UDP", "port": 53}, {"port": 53}])), "TCP 53, UDP 53");
    assert_eq!(ports(json!([{"protocol": "UDP"}])), "UDP");
    assert_eq!(ports(json!([{"protocol": "SCTP", "port": 7}])), "SCTP 7");
    assert_eq!(ports(json!([{"port": "http"}, {"protocol": "UDP", "port": "dns"}])), "TCP 8080, UDP 53");
    assert_eq!(ports(json!([{"port": "dns"}])), "none", "its protocol is another");
    assert_eq!(ports(json!([{"protocol": "QUIC", "port": 1}])), "none");
    // What goes out to a named port goes to one of the asked pod's.
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "http"}]}]});
    assert_eq!(out(std::slice::from_ref(&spec), &pod("b", json!({}))), "TCP 8080");
    assert_eq!(out(&[spec], &outside("192.0.2.1")), "none");
}

#[test]
fn policies_add_up_and_say_which_allows() {
    let all = [
        policy(json!({"podSelector": {}})),
        Policy {
            name: "web".into(),
            ..policy(json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]}))
        },
    ];
    let judged = judge(&all, Direction::Ingress, &web(), &outside("192.0.2.1"));
    assert_eq!(judged.isolating, ["p", "web"]);
    assert_eq!((judged.by(Protocol::Tcp, 80), judged.by(Protocol::Tcp, 81)), (Some(("web", false)), None));
}

#[test]
fn a_pod_in_the_hosts_network_is_its_host() {
    let pod = Pod::read(&json!({
        "metadata": {"name": "h", "namespace": "a", "labels": {"app": "web"}},
        "spec": {"hostNetwork": true}, "status": {"hostIP": "192.0.2.7", "podIP": "192.0.2.7"}
    }));
    let host = End::of(&pod, &BTreeMap::new());
    assert_eq!(into(&[json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]})], &host), "none");
    assert_eq!(
        into(&[json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]})], &host),
        "all"
    );
    assert!(judge(&[policy(json!({"podSelector": {}}))], Direction::Ingress, &host, &web()).isolating.is_empty());
}

#[test]
fn what_both_allow_is_merged() {
    let p = |first, last, some| Ports { protocol: Protocol::Tcp, first, last, some };
    assert_eq!(both(&[p(1, 10, false), p(11, 20, false)], &everything()), [p(1, 20, false)]);
    assert_eq!(both(&[p(1, 10, false)], &[p(5, 30, true)]), [p(5, 10, true)]);
    assert!(both(&[p(1, 10, false)], &[p(11, 30, false)]).is_empty());
}
