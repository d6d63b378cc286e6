use super::*;
use crate::kube::NetworkPolicy;
use crate::link::Link;
use crate::read::Read;
use serde_json::{Value, json};

/// `web` on node `a`, `api` on `a` and on `b`, a Service for the latter.
struct Setting {
    pods: Vec<Arc<Pod>>,
    namespaces: BTreeMap<String, Labels>,
    policies: Vec<Policy>,
    services: Vec<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    nodes: Vec<Arc<Node>>,
    ingresses: Vec<Ingress>,
    links: Links,
}

fn pod(name: &str, app: &str, node: &str, phase: &str) -> Arc<Pod> {
    Arc::new(Read::read(&json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": phase, "podIP": "10.0.0.1"}
    })))
}

fn service(namespace: &str, name: &str, spec: Value) -> Service {
    Read::read(&json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}))
}

fn node(name: &str, ready: &str) -> Arc<Node> {
    Arc::new(Read::read(
        &json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
    ))
}

fn setting() -> Setting {
    let endpoint = |name: &str, node: &str, ready: bool| {
        json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "namespace": "a", "name": name}})
    };
    let slice = json!({
        "metadata": {"namespace": "a", "labels": {"kubernetes.io/service-name": "api"}}, "ports": [{"name": "", "port": 8080}],
        "endpoints": [endpoint("api-1", "a", true), endpoint("api-2", "b", true), endpoint("api-3", "b", false)]
    });
    let direct = Link { node: "b".into(), direct: Some("192.0.2.1:1".into()), ..Link::default() };
    Setting {
        pods: vec![
            pod("web", "web", "a", "Running"),
            pod("api-1", "api", "a", "Running"),
            pod("api-2", "api", "b", "Running"),
            pod("late", "late", "b", "Pending"),
        ],
        namespaces: BTreeMap::new(),
        policies: Vec::new(),
        services: vec![
            service("a", "api", json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]})),
            service("a", "away", json!({"type": "ExternalName", "externalName": "example.com"})),
            service("default", "kubernetes", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443}]})),
            service(
                "kube-system",
                "kube-dns",
                json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}),
            ),
        ],
        slices: vec![Arc::new(Read::read(&slice))],
        nodes: vec![node("a", "True"), node("b", "True")],
        ingresses: Vec::new(),
        links: Links::from([("a".into(), vec![direct])]),
    }
}

impl Setting {
    fn with(mut self, name: &str, spec: Value) -> Self {
        let policy = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
        self.policies.push(Policy::read(&NetworkPolicy::read(&policy)));
        self
    }

    fn walk(&self, from: &str, to: &str, port: Option<u16>) -> (State, Vec<Step>) {
        let world = World {
            pods: &self.pods,
            namespaces: &self.namespaces,
            policies: &self.policies,
            services: &self.services,
            slices: &self.slices,
            nodes: &self.nodes,
            ingresses: &self.ingresses,
            links: &self.links,
        };
        let party = |text| Party::parse(text).unwrap();
        let (sentence, steps) = why(&world, &party(from), &party(to), Protocol::Tcp, port);
        (sentence.state, steps)
    }

    /// The step of that name.
    #[track_caller]
    fn step(&self, from: &str, to: &str, port: Option<u16>, what: Word) -> Step {
        let (_, steps) = self.walk(from, to, port);
        steps.iter().find(|step| step.what == what).cloned().unwrap_or_else(|| panic!("{steps:?}"))
    }

    #[track_caller]
    fn stops(&self, from: &str, to: &str, port: Option<u16>, what: Word) {
        assert_eq!(self.walk(from, to, port).0, State::Failing);
        assert_eq!(self.step(from, to, port, what).state, State::Failing);
    }
}

const WEB: &str = "pod:a/web";
const API: &str = "service:a/api";

#[test]
fn parties_read_back() {
    for text in ["outside", "outside:192.0.2.1", "outside:2001:db8::1", WEB, API] {
        assert_eq!(Party::parse(text).unwrap().to_string(), text);
    }
    assert!(["", "pod:a", "outside:x", "node:a/b"].into_iter().all(|text| Party::parse(text).is_none()));
}

#[test]
fn all_is_well_from_name_to_path() {
    let (state, steps) = setting().walk(WEB, API, Some(80));
    assert_eq!(state, State::Good);
    let whats: Vec<Word> = steps.iter().map(|s| s.what).collect();
    let path = [Word::StepName, Word::StepService, Word::StepEgress, Word::StepIngress, Word::StepPath, Word::StepPath];
    assert_eq!(whats, path);
    assert_eq!(steps[1].details, ["api-1:8080", "api-2:8080"]);
    assert!(steps[5].text.contains("From a to b") && steps[5].text.contains("Direct"), "{:?}", steps[5]);
}

#[test]
fn services_need_the_port_and_ready_endpoints() {
    setting().stops(WEB, API, Some(81), Word::StepService);
    let mut nobody = setting();
    nobody.slices.clear();
    nobody.stops(WEB, API, None, Word::StepService);
    nobody.stops(WEB, "service:a/gone", None, Word::StepName);
    let mut local = setting();
    local.services[0].spec.internal_traffic_policy = "Local".into();
    assert_eq!(local.step(WEB, API, None, Word::StepService).details, ["api-1:8080"]);
    local.pods[0] = pod("web", "web", "c", "Running");
    local.stops(WEB, API, None, Word::StepService);
}

#[test]
fn the_policy_that_keeps_it_out_is_named() {
    let deny = setting().with("deny-all", json!({"podSelector": {"matchLabels": {"app": "api"}}}));
    deny.stops(WEB, API, None, Word::StepIngress);
    let step = deny.step(WEB, API, None, Word::StepIngress);
    assert_eq!(step.policies, [("a".to_string(), "deny-all".to_string())]);
    assert!(step.text.contains("deny-all") && step.next.unwrap().contains("app=web"));
    let rule = json!({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]});
    let opened = deny.with("web-to-api", json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [rule]}));
    let step = opened.step(WEB, API, None, Word::StepIngress);
    assert_eq!((step.state, step.policies[0].1.as_str()), (State::Good, "web-to-api"));
    // What is judged is the pod's port, not the Service's.
    opened.stops(WEB, "pod:a/api-1", Some(80), Word::StepIngress);
}

#[test]
fn who_may_not_look_up_names_fails_at_the_name() {
    let to_api = json!({"to": [{"podSelector": {"matchLabels": {"app": "api"}}}]});
    let web = json!({"matchLabels": {"app": "web"}});
    let narrow = setting().with("narrow", json!({"podSelector": web, "policyTypes": ["Egress"], "egress": [to_api]}));
    narrow.stops(WEB, API, None, Word::StepName);
    assert_eq!(narrow.step(WEB, API, None, Word::StepEgress).state, State::Good);
    assert_eq!(narrow.walk(WEB, "pod:a/api-1", None).0, State::Good, "by address it goes");
    let names = json!({"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]});
    let with_names = narrow.with("names", json!({"podSelector": web, "policyTypes": ["Egress"], "egress": [names]}));
    assert_eq!(with_names.walk(WEB, API, None).0, State::Good);
    with_names.stops(WEB, "service:default/kubernetes", None, Word::StepEgress);
    with_names.stops(WEB, "outside", None, Word::StepEgress);
    with_names.stops(WEB, "service:a/away", None, Word::StepEgress);
}

#[test]
fn a_pod_reaches_itself_whatever_policies_say() {
    let deny = setting().with("deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    assert_eq!(deny.walk(WEB, WEB, None).0, State::Good);
    let (state, _) = deny.walk("pod:a/api-1", API, None);
    assert_eq!(state, State::Failing, "it can't look up the name");
    assert_eq!(
        deny.step("pod:a/api-1", API, None, Word::StepIngress).state,
        State::Degraded,
        "the other one is out of reach"
    );
}

#[test]
fn a_node_reaches_its_own_pods() {
    let mut host = setting().with("deny", json!({"podSelector": {}}));
    let mut agent = Pod::clone(&host.pods[0]);
    agent.spec.host_network = true;
    host.pods[0] = Arc::new(agent);
    assert_eq!(host.walk(WEB, "pod:a/api-1", None).0, State::Good);
    host.stops(WEB, "pod:a/api-2", None, Word::StepIngress);
}

#[test]
fn pods_have_to_run_and_say_where_they_listen() {
    setting().stops(WEB, "pod:a/late", None, Word::StepReceiver);
    setting().stops("pod:a/late", API, None, Word::StepSender);
    setting().stops("pod:a/gone", API, None, Word::StepSender);
    let (state, _) = setting().walk(WEB, "pod:a/api-1", Some(9));
    assert_eq!(
        (state, setting().step(WEB, "pod:a/api-1", Some(9), Word::StepReceiver).state),
        (State::Degraded, State::Unknown)
    );
}

#[test]
fn nothing_leads_in_from_outside_by_itself() {
    setting().stops("outside", API, None, Word::StepEntrance);
    setting().stops("outside", "pod:a/api-1", None, Word::StepEntrance);
    let mut opened = setting().with("deny", json!({"podSelector": {}}));
    opened.services[0].spec.ports[0].node_port = Some(30080);
    opened.stops("outside", API, None, Word::StepIngress);
    let backend = json!({"service": {"name": "api", "port": {"number": 80}}});
    opened.ingresses.push(Read::read(&json!({
        "metadata": {"name": "shop", "namespace": "a"},
        "spec": {"rules": [{"host": "a.example.com", "http": {"paths": [{"path": "/", "backend": backend}]}}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    })));
    assert_eq!(opened.walk("outside", API, None).0, State::Good, "the edge comes from the pod's own node");
    opened.ingresses[0].status = Default::default();
    opened.stops("outside", API, None, Word::StepEntrance);
}

#[test]
fn what_is_not_known_is_not_good() {
    let mut silent = setting();
    silent.nodes[1] = node("b", "Unknown");
    let (state, steps) = silent.walk(WEB, "pod:a/api-2", None);
    assert_eq!((state, steps.last().unwrap().state), (State::Degraded, State::Unknown));
    let mut untold = setting();
    untold.links.clear();
    assert_eq!(untold.step(WEB, "pod:a/api-2", None, Word::StepPath).state, State::Idle);
    let relayed = Link { node: "a".into(), ..Link::default() };
    untold.links.insert("b".into(), vec![relayed]);
    assert!(untold.step(WEB, "pod:a/api-2", None, Word::StepPath).text.contains("Over the server"));
}
