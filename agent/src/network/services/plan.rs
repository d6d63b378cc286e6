//! What a Service means on this node: which of its endpoints answer, at which addresses, in which slots. Pure.
//!
//! Which endpoints: the ready ones; where none is, those that end and still serve (KEP-1669), so that a rollout's last pods
//! answer until others are there. Of these, hints may leave only near ones (KEP-2433, KEP-4444, KEP-3015), and a policy
//! `Local` only those on this node.

use crate::network::map::Map;
use longshore_api::network::{Endpoint, EndpointPort, Name, Protocol, Service, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Where connections arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Front {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where they go.
pub type Back = (IpAddr, u16);

/// From where they come. What has no entry for `Outside` is treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum From {
    Anywhere,
    Outside,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Nobody is there to answer.
    Refused,
    /// Nobody on this node, and others may not.
    Dropped,
    Sent(Pick),
}

/// How one of the slots is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// Whose slots: the same front may have some for each.
    pub from: From,
    pub slots: u32,
    /// For how many seconds a client stays with its choice.
    pub affinity: Option<u32>,
}

/// A Service on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub fates: BTreeMap<(From, Front), Fate>,
    pub slots: BTreeMap<(From, Front, u32), Back>,
    /// Backs that clients may stay with.
    pub sticky: BTreeSet<(Front, Back)>,
    /// Ports of the host that lead here.
    pub node_ports: BTreeSet<(Protocol, u16)>,
    /// Pods of this node that may be sent to themselves.
    pub own: BTreeSet<IpAddr>,
}

/// Whose node this is, and of which family of addresses a plan is: that of `host_ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    pub node: String,
    pub zone: String,
    /// Where the host sends what comes to a port of it.
    pub host_ports: IpAddr,
}

impl Here {
    fn is_of(&self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == self.host_ports.is_ipv4()
    }
}

/// The plan of a Service that may be gone. `before` is the plan so far: who stays keeps its slot.
pub fn plan(map: &Map, name: &Name, here: &Here, before: &Plan) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = map.services.get(name).filter(|s| s.answered_by_node.is_none()) else { return plan };
    let of_family = |ips: &[IpAddr]| ips.iter().copied().filter(|ip| here.is_of(ip)).collect::<Vec<_>>().into_iter();
    let has_family = service.addresses.is_empty() || service.addresses.iter().any(|ip| here.is_of(ip));
    for port in &service.ports {
        let backs = Backs::of(map, name, port, here);
        plan.own.extend(backs.own.iter().map(|(ip, _)| *ip));
        let front = |address: IpAddr, port: u16, protocol| Front { address, protocol, port };
        for ip in of_family(&service.addresses) {
            let chosen = if service.internal_local { backs.near() } else { backs.far() };
            plan.add(From::Anywhere, front(ip, port.port, port.protocol), chosen, service, before);
        }
        let node_port = port.node_port.filter(|_| has_family);
        let by_node_port = node_port.map(|number| front(here.host_ports, number, port.protocol));
        plan.node_ports.extend(node_port.map(|number| (port.protocol, number)));
        let outer =
            of_family(&service.external_addresses).map(|ip| front(ip, port.port, port.protocol)).chain(by_node_port);
        for front in outer {
            plan.add(From::Anywhere, front, backs.far(), service, before);
            if service.external_local {
                plan.add(From::Outside, front, backs.near(), service, before);
            }
        }
    }
    plan
}

/// The endpoints of one port.
struct Backs {
    all: BTreeSet<Back>,
    /// Those on this node.
    own: BTreeSet<Back>,
}

impl Backs {
    fn of(map: &Map, name: &Name, port: &ServicePort, here: &Here) -> Self {
        let led_by = |p: &EndpointPort| p.name == port.name && p.protocol == port.protocol;
        let ported: Vec<(&Endpoint, u16)> = map
            .slices(name)
            .filter_map(|slice| Some((slice, slice.ports.iter().find(|p| led_by(p))?.port)))
            .flat_map(|(slice, port)| slice.endpoints.iter().map(move |endpoint| (endpoint, port)))
            .filter(|(endpoint, _)| here.is_of(&endpoint.address))
            .collect();
        let own: Vec<_> = ported.iter().filter(|(e, _)| e.node == here.node).copied().collect();
        Self { all: addresses(&near(usable(ported), here)), own: addresses(&usable(own)) }
    }

    /// `Err`: what is to happen when there is none.
    fn far(&self) -> Result<&BTreeSet<Back>, Fate> {
        if self.all.is_empty() { Err(Fate::Refused) } else { Ok(&self.all) }
    }

    fn near(&self) -> Result<&BTreeSet<Back>, Fate> {
        match (self.own.is_empty(), self.all.is_empty()) {
            (false, _) => Ok(&self.own),
            (true, true) => Err(Fate::Refused),
            (true, false) => Err(Fate::Dropped),
        }
    }
}

fn usable(endpoints: Vec<(&Endpoint, u16)>) -> Vec<(&Endpoint, u16)> {
    let ready: Vec<_> = endpoints.iter().filter(|(e, _)| e.ready).copied().collect();
    match ready.is_empty() {
        true => endpoints.into_iter().filter(|(e, _)| e.serving && e.terminating).collect(),
        false => ready,
    }
}

/// As hints say: for this node, else for its zone, else all; hints count only where every endpoint has one.
fn near<'a>(endpoints: Vec<(&'a Endpoint, u16)>, here: &Here) -> Vec<(&'a Endpoint, u16)> {
    let hinted = |hints: fn(&Endpoint) -> &Vec<String>, wanted: &String| -> Option<Vec<(&'a Endpoint, u16)>> {
        let all = !wanted.is_empty() && endpoints.iter().all(|(e, _)| !hints(e).is_empty());
        let found: Vec<_> = endpoints.iter().filter(|(e, _)| hints(e).contains(wanted)).copied().collect();
        (all && !found.is_empty()).then_some(found)
    };
    let found = hinted(|e| &e.for_nodes, &here.node).or_else(|| hinted(|e| &e.for_zones, &here.zone));
    found.unwrap_or(endpoints)
}

fn addresses(endpoints: &[(&Endpoint, u16)]) -> BTreeSet<Back> {
    endpoints.iter().map(|(endpoint, port)| (endpoint.address, *port)).collect()
}

impl Plan {
    fn add(
        &mut self,
        from: From,
        front: Front,
        chosen: Result<&BTreeSet<Back>, Fate>,
        service: &Service,
        before: &Plan,
    ) {
        let backs = match chosen {
            Ok(backs) => backs,
            Err(fate) => {
                self.fates.insert((from, front), fate);
                return;
            }
        };
        let places = before.slots.range((from, front, 0)..=(from, front, u32::MAX));
        let placed = place(places.map(|((_, _, slot), back)| (*slot, *back)), backs);
        let slots = u32::try_from(placed.len()).unwrap_or(u32::MAX);
        for (slot, back) in (0..).zip(placed) {
            self.slots.insert((from, front, slot), back);
            if service.affinity_seconds.is_some() {
                self.sticky.insert((front, back));
            }
        }
        let pick = Pick { from, slots, affinity: service.affinity_seconds };
        self.fates.insert((from, front), Fate::Sent(pick));
    }
}

/// Puts each back into a slot, all slots from 0 on: who had one that is still there keeps it.
fn place(before: impl Iterator<Item = (u32, Back)>, wanted: &BTreeSet<Back>) -> Vec<Back> {
    let mut slots: Vec<Option<Back>> = vec![None; wanted.len()];
    let mut left = wanted.clone();
    for (slot, back) in before {
        if let Some(place) = slots.get_mut(slot as usize)
            && left.remove(&back)
        {
            *place = Some(back);
        }
    }
    let mut left = left.into_iter();
    slots.into_iter().filter_map(|slot| slot.or_else(|| left.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::network::{Answer, Endpoints, Frame};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7));
    const HOST_PORTS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 192, 2));

    fn here() -> Here {
        Here { node: "n1".into(), zone: "a".into(), host_ports: HOST_PORTS }
    }

    fn service() -> Service {
        Service {
            namespace: "ns".into(),
            name: "web".into(),
            addresses: vec![VIP],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
                app_protocol: String::new(),
            }],
            ..Service::default()
        }
    }

    fn endpoint(last: u8, node: &str) -> Endpoint {
        Endpoint {
            address: [10, 244, 0, last].into(),
            ready: true,
            serving: true,
            terminating: false,
            hostname: String::new(),
            node: node.into(),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }
    }

    fn map(service: Service, endpoints: Vec<Endpoint>) -> Map {
        let ports = vec![
            EndpointPort { name: "other".into(), protocol: Protocol::Tcp, port: 1 },
            EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 },
        ];
        let slice = Endpoints { namespace: "ns".into(), name: "web-1".into(), service: "web".into(), ports, endpoints };
        Map::of([Frame::Service(service), Frame::Endpoints(slice)])
    }

    fn planned(service: Service, endpoints: Vec<Endpoint>) -> Plan {
        plan(&map(service, endpoints), &Name::new("ns", "web"), &here(), &Plan::default())
    }

    fn front(address: IpAddr, port: u16) -> Front {
        Front { address, protocol: Protocol::Tcp, port }
    }

    fn last(ip: IpAddr) -> u8 {
        match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        }
    }

    /// The last bytes of where a front leads.
    fn backs(plan: &Plan, from: From, at: Front) -> Vec<u8> {
        let slots = plan.slots.range((from, at, 0)..=(from, at, u32::MAX));
        slots.map(|(_, (ip, port))| if *port == 8080 { last(*ip) } else { 0 }).collect()
    }

    #[test]
    fn a_service_leads_from_its_addresses_to_ready_endpoints() {
        let mut unready = endpoint(9, "n1");
        (unready.ready, unready.serving) = (false, false);
        let plan = planned(service(), vec![endpoint(2, "n1"), endpoint(3, "n2"), unready]);
        for at in [front(VIP, 80), front(HOST_PORTS, 30080)] {
            assert_eq!(backs(&plan, From::Anywhere, at), [2, 3]);
            let pick = Pick { from: From::Anywhere, slots: 2, affinity: None };
            assert_eq!(plan.fates[&(From::Anywhere, at)], Fate::Sent(pick));
        }
        assert_eq!(plan.fates.len(), 2);
        assert_eq!(plan.own, BTreeSet::from([IpAddr::from([10, 244, 0, 2])]));
        assert_eq!(plan.node_ports, BTreeSet::from([(Protocol::Tcp, 30080)]));
    }

    #[test]
    fn each_family_leads_to_its_own_endpoints_and_only_where_the_service_has_it() {
        let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        let here = Here { host_ports: six(0xff), ..here() };
        let both = Service { addresses: vec![VIP, six(7)], ..service() };
        let endpoints = vec![endpoint(2, "n1"), Endpoint { address: six(3), ..endpoint(0, "n1") }];
        let of =
            |service: Service| plan(&map(service, endpoints.clone()), &Name::new("ns", "web"), &here, &Plan::default());
        let dual = of(both);
        for at in [front(six(7), 80), front(six(0xff), 30080)] {
            assert_eq!(backs(&dual, From::Anywhere, at), [3]);
        }
        assert_eq!(dual.fates.len(), 2);
        let single = of(service());
        assert!(single.fates.is_empty() && single.node_ports.is_empty(), "not a port of the host either: {single:?}");
    }

    #[test]
    fn those_that_end_and_serve_answer_while_nobody_else_does() {
        let ending = |last| Endpoint { ready: false, terminating: true, ..endpoint(last, "n2") };
        let silent = Endpoint { serving: false, ..ending(4) };
        let plan = planned(service(), vec![ending(3), silent.clone()]);
        assert_eq!(backs(&plan, From::Anywhere, front(VIP, 80)), [3]);
        let plan = planned(service(), vec![ending(3), endpoint(5, "n2")]);
        assert_eq!(backs(&plan, From::Anywhere, front(VIP, 80)), [5]);
        let plan = planned(service(), vec![silent]);
        assert_eq!(plan.fates[&(From::Anywhere, front(VIP, 80))], Fate::Refused);
    }

    #[test]
    fn policies_leave_a_nodes_own_endpoints() {
        let inside = Service { internal_local: true, ..service() };
        let plan = planned(inside.clone(), vec![endpoint(2, "n1"), endpoint(3, "n2")]);
        assert_eq!(backs(&plan, From::Anywhere, front(VIP, 80)), [2]);
        assert_eq!(backs(&plan, From::Anywhere, front(HOST_PORTS, 30080)), [2, 3]);
        let none = planned(inside, vec![endpoint(3, "n2")]);
        assert_eq!(none.fates[&(From::Anywhere, front(VIP, 80))], Fate::Dropped);

        let outside = Service { external_local: true, ..service() };
        let plan = planned(outside, vec![endpoint(2, "n1"), endpoint(3, "n2")]);
        let at = front(HOST_PORTS, 30080);
        assert_eq!((backs(&plan, From::Outside, at), backs(&plan, From::Anywhere, at)), (vec![2], vec![2, 3]));
        assert!(!plan.fates.contains_key(&(From::Outside, front(VIP, 80))));
    }

    #[test]
    fn hints_count_when_all_have_them_and_one_is_for_here() {
        let zoned = |last, zone: &str| Endpoint { for_zones: vec![zone.into()], ..endpoint(last, "n2") };
        let of = |endpoints| backs(&planned(service(), endpoints), From::Anywhere, front(VIP, 80));
        assert_eq!(of(vec![zoned(2, "a"), zoned(3, "b")]), [2]);
        assert_eq!(of(vec![zoned(2, "b"), zoned(3, "b")]), [2, 3]);
        assert_eq!(of(vec![zoned(2, "a"), endpoint(3, "n2")]), [2, 3]);
        let noded = |last, node: &str| Endpoint { for_nodes: vec![node.into()], ..zoned(last, "a") };
        assert_eq!(of(vec![noded(2, "n1"), noded(3, "n2")]), [2]);
    }

    #[test]
    fn what_the_node_answers_itself_and_what_is_gone_leads_nowhere() {
        let own = Service { answered_by_node: Some(Answer::Dns), ..service() };
        assert_eq!(planned(own, vec![endpoint(2, "n1")]), Plan::default());
        let gone = plan(&Map::default(), &Name::new("ns", "web"), &here(), &Plan::default());
        assert_eq!(gone, Plan::default());
    }

    #[test]
    fn with_affinity_each_back_may_be_stayed_with() {
        let sticky = Service { affinity_seconds: Some(60), ..service() };
        let plan = planned(sticky, vec![endpoint(2, "n1"), endpoint(3, "n2")]);
        assert_eq!(plan.sticky.len(), 4, "two backs of two fronts");
    }

    proptest! {
        /// However endpoints come and go, all are in slots from 0 on, each once, and no more move than have to.
        #[test]
        fn who_stays_keeps_its_slot(rounds in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..12), 1..12)) {
            let mut before: Vec<Back> = Vec::new();
            for round in rounds {
                let wanted: BTreeSet<Back> = round.iter().map(|n| ([10, 0, 0, *n].into(), 80)).collect();
                let after = place((0..).zip(before.iter().copied()), &wanted);
                prop_assert_eq!(&after.iter().copied().collect::<BTreeSet<_>>(), &wanted);
                prop_assert_eq!(after.len(), wanted.len());
                for (slot, back) in before.iter().enumerate().filter(|(slot, back)| *slot < after.len() && wanted.contains(back)) {
                    prop_assert_eq!(after[slot], *back);
                }
                before = after;
            }
        }
    }
}
