use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod(tree: &Value) -> Arc<Pod> {
    Arc::new(Pod::of(tree))
}

fn running(labels: Value, ip: &str) -> Value {
    json!({"metadata": {"labels": labels}, "status": {"phase": "Running", "podIP": ip},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}})
}

fn policy(spec: Value) -> NetworkPolicy {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn from(peers: Value) -> NetworkPolicy {
    policy(json!({"policyTypes": ["Ingress"], "ingress": [{"from": peers}]}))
}

/// What a node that heard every change knows.
#[derive(Default, Debug, PartialEq)]
struct Told(BTreeMap<Key, Frame>);

impl Told {
    fn hear(&mut self, policies: &mut Policies) -> usize {
        let changes = policies.changes();
        let count = changes.len();
        for (key, frame) in changes {
            match frame {
                Some(frame) => self.0.insert(key, frame),
                None => self.0.remove(&key),
            };
        }
        count
    }

    /// The addresses and ports in all sets.
    fn peers(&self) -> Vec<String> {
        let peers = self.0.values().filter_map(|frame| match frame {
            Frame::Peers(peers) => Some(peers),
            _ => None,
        });
        let texts = |p: &Peers| {
            p.addresses
                .iter()
                .map(IpAddr::to_string)
                .chain(p.ports.iter().map(SocketAddr::to_string))
                .collect::<Vec<_>>()
        };
        peers.flat_map(texts).collect()
    }
}

fn name(text: &str) -> Name {
    Name::new("a", text)
}

#[test]
fn a_set_follows_pods_and_namespaces_and_is_shared() {
    let (mut all, mut told) = (Policies::default(), Told::default());
    let team = |team: &str| Labels::from([("team".to_owned(), team.to_owned())]);
    all.set_namespace("a", Some(&team("x")));
    all.set_namespace("b", Some(&team("y")));
    for (namespace, ip) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        all.set_pod(namespace, "web", Some(pod(&running(json!({"app": "web"}), ip))));
        all.set_pod(namespace, "db", Some(pod(&running(json!({"app": "db"}), &format!("{ip}1")))));
    }
    let web = json!({"matchLabels": {"app": "web"}});
    all.set_policy(name("own"), Some(from(json!([{"podSelector": web}]))));
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.1"], "of its own namespace");

    all.set_policy(
        name("own"),
        Some(from(json!([{"podSelector": web, "namespaceSelector": {"matchLabels": {"team": "y"}}}]))),
    );
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.2"]);
    let same = json!([{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
        "namespaceSelector": {"matchLabels": {"team": "y"}}}]);
    all.set_policy(name("too"), Some(from(same)));
    assert_eq!(told.hear(&mut all), 1, "a policy and no set");

    all.set_namespace("a", Some(&team("y")));
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.1", "10.0.0.2"]);
    all.set_policy(name("own"), None);
    told.hear(&mut all);
    assert_eq!(told.peers().len(), 2, "the other one has it still");
    all.set_policy(name("too"), None);
    told.hear(&mut all);
    assert_eq!(told, Told::default());
    assert!(all.is_empty());
}

#[test]
fn who_has_no_address_of_their_own_or_is_done_is_nobodys_peer() {
    let (mut all, mut told) = (Policies::default(), Told::default());
    all.set_policy(name("all"), Some(from(json!([{"podSelector": {}}]))));
    let mut host = running(json!({}), "192.0.2.1");
    host["spec"]["hostNetwork"] = json!(true);
    all.set_pod("a", "host", Some(pod(&host)));
    all.set_pod("a", "waits", Some(pod(&running(json!({}), ""))));
    let mut ends = running(json!({}), "10.0.0.3");
    ends["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    all.set_pod("a", "ends", Some(pod(&ends)));
    let mut done = running(json!({}), "10.0.0.4");
    all.set_pod("a", "done", Some(pod(&done)));
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.3", "10.0.0.4"]);
    done["status"]["phase"] = json!("Succeeded");
    all.set_pod("a", "done", Some(pod(&done)));
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.3"]);
    // An address that a new pod has before the old one's end is known stays.
    all.set_pod("a", "new", Some(pod(&running(json!({}), "10.0.0.3"))));
    all.set_pod("a", "ends", None);
    assert_eq!(told.hear(&mut all), 0);
}

#[test]
fn named_ports_are_where_each_pod_has_them() {
    let (mut all, mut told) = (Policies::default(), Told::default());
    all.set_pod("a", "one", Some(pod(&running(json!({}), "10.0.0.1"))));
    let mut other = running(json!({}), "10.0.1.2");
    other["spec"]["containers"][0]["ports"] =
        json!([{"name": "http", "containerPort": 9090}, {"name": "http", "containerPort": 53, "protocol": "UDP"}]);
    all.set_pod("b", "two", Some(pod(&other)));
    let rule = json!([{"ports": [{"port": "http"}, {"port": 80, "endPort": 90}, {"protocol": "UDP"}]}]);
    all.set_policy(name("named"), Some(policy(json!({"policyTypes": ["Egress"], "egress": rule}))));
    told.hear(&mut all);
    assert_eq!(told.peers(), ["10.0.0.1:8080", "10.0.1.2:9090"]);
    let Some(Frame::Policy(policy)) = told.0.get(&Key::Policy(name("named"))) else { panic!("a policy") };
    let rule = &policy.egress.as_ref().unwrap()[0];
    let ports = rule.ports.as_ref().unwrap();
    assert!(matches!(ports[0], longshore_api::network_policy::Port::Named(Protocol::Tcp, _)));
    assert_eq!((policy.ingress.as_ref(), rule.peers.as_ref()), (None, None));
}

#[test]
fn what_a_pod_says_of_itself_is_no_news_and_a_change_is_of_one_part() {
    let (mut all, mut told) = (Policies::default(), Told::default());
    all.set_policy(name("all"), Some(from(json!([{"podSelector": {}}]))));
    for n in 0..600u16 {
        let ip = format!("10.0.{}.{}", n / 200, n % 200);
        all.set_pod("a", &n.to_string(), Some(pod(&running(json!({}), &ip))));
    }
    assert_eq!(told.hear(&mut all), 4, "three parts and the policy");
    let mut ready = running(json!({}), "10.0.0.0");
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    all.set_pod("a", "0", Some(pod(&ready)));
    assert_eq!(told.hear(&mut all), 0);
    all.set_pod("a", "0", None);
    assert_eq!(told.hear(&mut all), 1);
    assert_eq!(told.peers().len(), 599);
}

#[derive(Clone, Debug)]
enum Step {
    Pod(usize, usize, Option<(usize, usize, u8)>),
    Namespace(usize, Option<usize>),
    Policy(usize, Option<usize>),
}

const LABELS: [&[(&str, &str)]; 4] = [&[], &[("app", "web")], &[("app", "db")], &[("app", "web"), ("tier", "a")]];

fn labels(which: usize) -> Labels {
    LABELS[which].iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn a_pod(which: usize, last: usize, state: u8) -> Value {
    let mut tree = running(json!(labels(which)), &format!("10.0.{}.{last}", last % 3));
    match state {
        0 => tree["spec"]["hostNetwork"] = json!(true),
        1 => tree["status"]["phase"] = json!("Failed"),
        2 => tree["status"]["podIP"] = json!(""),
        3 => tree["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090),
        4 => tree["spec"]["containers"][0]["ports"][0]["name"] = json!("other"),
        _ => {}
    }
    tree
}

fn a_policy(which: usize) -> NetworkPolicy {
    let web = json!({"matchLabels": {"app": "web"}});
    let not_db = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]});
    let peers = [
        json!([{"podSelector": web}]),
        json!([{"podSelector": {}}, {"podSelector": not_db, "namespaceSelector": web}]),
        json!([{"namespaceSelector": {}}]),
        json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"namespaceSelector": not_db, "podSelector": web}]),
    ];
    let ports = [json!([{"port": "http"}]), json!([{"port": "other"}, {"port": "http"}]), json!([])];
    policy(json!({"policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers[which % 4]}], "egress": [{"to": peers[(which / 4) % 4], "ports": ports[which % 3]}]}))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        6 => (0usize..3, 0usize..6, prop::option::weighted(0.8, (0usize..4, 0usize..8, 0u8..9)))
            .prop_map(|(ns, pod, state)| Step::Pod(ns, pod, state)),
        2 => (0usize..3, prop::option::weighted(0.8, 0usize..4)).prop_map(|(ns, labels)| Step::Namespace(ns, labels)),
        3 => (0usize..4, prop::option::weighted(0.7, 0usize..16)).prop_map(|(name, spec)| Step::Policy(name, spec)),
    ];
    prop::collection::vec(one, 1..60)
}

/// The world, and what the nodes must know of it, worked out from nothing.
#[derive(Default)]
struct World {
    pods: BTreeMap<(usize, usize), Arc<Pod>>,
    namespaces: BTreeMap<usize, Labels>,
    policies: BTreeMap<usize, NetworkPolicy>,
}

impl World {
    fn told(&self) -> Told {
        let mut told = Told::default();
        for (n, policy) in &self.policies {
            let key = Name::new(NAMESPACES[n % 3], n.to_string());
            let (policy, sets) = spec::policy(key.clone(), policy.spec.clone().unwrap());
            told.0.insert(Key::Policy(key), Frame::Policy(policy));
            for (id, wanted) in sets {
                self.tell(&id, &wanted, &mut told);
            }
        }
        told
    }

    fn tell(&self, id: &SetId, wanted: &Wanted, told: &mut Told) {
        let mut members: BTreeMap<Part, BTreeSet<Member>> = BTreeMap::new();
        for ((namespace, _), pod) in &self.pods {
            let counts = !pod.host_network && !pod.is_finished();
            if counts && wanted.takes_from(NAMESPACES[*namespace], self.namespaces.get(namespace)) {
                for member in wanted.members(pod) {
                    members.entry(Part::new(&**id, member.0)).or_default().insert(member);
                }
            }
        }
        for (part, members) in members {
            let mut peers = Peers { part: part.clone(), addresses: Vec::new(), ports: Vec::new() };
            for (ip, port) in members {
                match wanted {
                    Wanted::Pods { .. } => peers.addresses.push(ip),
                    Wanted::Port { .. } => peers.ports.push(SocketAddr::new(ip, port)),
                }
            }
            told.0.insert(Key::Peers(part), Frame::Peers(peers));
        }
    }
}

const NAMESPACES: [&str; 3] = ["a", "b", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order, and however often nodes hear of it, they know what follows from the world.
    #[test]
    fn nodes_know_what_follows_from_the_world(steps in steps(), heard in prop::collection::vec(any::<bool>(), 60)) {
        let (mut all, mut told, mut world) = (Policies::default(), Told::default(), World::default());
        for (step, hears) in steps.into_iter().zip(heard) {
            match step {
                Step::Pod(namespace, n, state) => {
                    let pod = state.map(|(labels, last, state)| pod(&a_pod(labels, last, state)));
                    all.set_pod(NAMESPACES[namespace], &n.to_string(), pod.clone());
                    match pod {
                        Some(pod) => world.pods.insert((namespace, n), pod),
                        None => world.pods.remove(&(namespace, n)),
                    };
                }
                Step::Namespace(namespace, which) => {
                    let labels = which.map(labels);
                    all.set_namespace(NAMESPACES[namespace], labels.as_ref());
                    match labels {
                        Some(labels) => world.namespaces.insert(namespace, labels),
                        None => world.namespaces.remove(&namespace),
                    };
                }
                Step::Policy(n, which) => {
                    let policy = which.map(a_policy);
                    all.set_policy(Name::new(NAMESPACES[n % 3], n.to_string()), policy.clone());
                    match policy {
                        Some(policy) => world.policies.insert(n, policy),
                        None => world.policies.remove(&n),
                    };
                }
            }
            if hears {
                told.hear(&mut all);
                prop_assert_eq!(&told, &world.told());
            }
        }
        told.hear(&mut all);
        prop_assert_eq!(&told, &world.told());
    }
}
