//! The nftables table of Services in the cluster's namespace, and the one of node ports on the host. Pure.
//!
//! ```text
//! address . protocol . port ─ map ─> chain `pick…`: a random slot ─ map ─> address . port
//! ```
//!
//! No rule belongs to a Service. What a connection costs doesn't depend on how many there are, and a change of a Service is
//! a change of some elements. The chains are by number of slots: `numgen` counts to a constant. With affinity, a chain
//! looks first where its client was sent before, and whether that still is an endpoint.

use super::plan::{Back, Fate, From, Front, Pick, Plan};
use crate::network::firewall;
use crate::network::links::{self, Ends};
use crate::network::ruleset::{Ruleset, dnat, family_of, header, look_up, rule, whole, with};
use ipnet::IpNet;
use longshore_api::network::Protocol;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CtState, DynsetExpr, DynsetOp, Expr, Family, FilterHook, MetaKey, NatHook,
    NatStatement, NumgenKind, PacketField, PayloadBase, Priority, RawExpr, Register, Rule, Set, SetDataType,
    SetElement, SetElementData, SetKeyType, Verdict,
};
use std::net::IpAddr;
use std::time::Duration;

/// Inside the cluster's namespace, which is ours alone.
pub const TABLE: &str = "services";
/// Where clients are remembered; not more of them than this (some 100 bytes each), others are sent at random.
const STICKY: &str = "sticky";
const CLIENTS: u32 = 262_144;
const REFUSE: &str = "refuse";
/// ICMP's and ICMPv6's code.
const PORT_UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;

/// Sets whose elements follow the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Front → what happens.
    Fronts,
    /// As `Fronts`, for what comes from outside the cluster.
    Outside,
    /// Front and slot → back.
    Slots,
    /// Fronts and backs that clients may stay with.
    Backs,
    /// A pod's address, twice: what a pod sends to itself through a Service must come back through here.
    Own,
    /// Ports of the host that lead in; in the host's table.
    NodePorts,
}

impl Kind {
    pub const INSIDE: [Self; 5] = [Self::Fronts, Self::Outside, Self::Slots, Self::Backs, Self::Own];

    pub fn set(self, family: Family, table: &str) -> Set {
        use SetKeyType::{Concat, InetProto, InetService, Mark};
        let ip = || address_type(family);
        let (name, key, data) = match self {
            Self::Fronts => ("fronts", vec![ip(), InetProto, InetService], Some(SetDataType::Verdict)),
            Self::Outside => ("outside", vec![ip(), InetProto, InetService], Some(SetDataType::Verdict)),
            Self::Slots => ("slots", vec![ip(), InetProto, InetService, Mark], Some(back_type(family))),
            Self::Backs => ("backs", vec![ip(), InetProto, InetService, ip(), InetService], None),
            Self::Own => ("own", vec![ip(), ip()], None),
            Self::NodePorts => ("ports", vec![InetProto, InetService], None),
        };
        let set = Set::new(table, name).family(family).key_type(Concat(key));
        data.into_iter().fold(set, Set::map)
    }
}

fn address_type(family: Family) -> SetKeyType {
    if family == Family::Ip6 { SetKeyType::Ipv6Addr } else { SetKeyType::Ipv4Addr }
}

fn back_type(family: Family) -> SetDataType {
    SetDataType::Value(SetKeyType::Concat(vec![address_type(family), SetKeyType::InetService]))
}

fn address(ip: IpAddr) -> SetElement {
    match ip {
        IpAddr::V4(ip) => SetElement::ipv4(ip),
        IpAddr::V6(ip) => SetElement::ipv6(ip),
    }
}

/// An element: its set and key, and what it leads to.
pub type Element = ((Kind, Vec<u8>), Option<SetElementData>);

/// What a plan is in elements.
pub fn elements(plan: &Plan) -> impl Iterator<Item = Element> + use<'_> {
    let fates = plan.fates.iter().map(|((from, front), fate)| {
        let kind = if *from == From::Anywhere { Kind::Fronts } else { Kind::Outside };
        element(kind, key_of(*front), Some(SetElementData::Verdict(verdict(*fate))))
    });
    let slots = plan.slots.iter().map(|((from, front, slot), back)| {
        let key = key_of(*front).into_iter().chain([SetElement::mark(offset(*from) + slot)]);
        element(Kind::Slots, key.collect(), Some(SetElementData::Value(value_of(*back))))
    });
    let backs = plan.sticky.iter().map(|(front, (ip, port))| {
        let key = key_of(*front).into_iter().chain([address(*ip), SetElement::port(*port)]);
        element(Kind::Backs, key.collect(), None)
    });
    let ports = plan.node_ports.iter().map(|(protocol, port)| {
        element(Kind::NodePorts, vec![SetElement::inet_proto(protocol.number()), SetElement::port(*port)], None)
    });
    fates.chain(slots).chain(backs).chain(ports)
}

/// The element of a pod on this node.
pub fn own(pod: IpAddr) -> Element {
    element(Kind::Own, vec![address(pod), address(pod)], None)
}

fn element(kind: Kind, key: Vec<SetElement>, data: Option<SetElementData>) -> Element {
    ((kind, SetElement::concat(key).key().to_vec()), data)
}

fn key_of(front: Front) -> Vec<SetElement> {
    let Front { address: ip, protocol, port } = front;
    vec![address(ip), SetElement::inet_proto(protocol.number()), SetElement::port(port)]
}

fn value_of((ip, port): Back) -> Vec<u8> {
    SetElement::concat([address(ip), SetElement::port(port)]).key().to_vec()
}

/// An element as it is written.
pub fn written(key: &[u8], data: Option<&SetElementData>) -> SetElement {
    let element = SetElement::new(key.to_vec());
    match data {
        Some(SetElementData::Verdict(verdict)) => element.verdict(verdict.clone()),
        Some(SetElementData::Value(value)) => element.value(SetElement::new(value.clone())),
        _ => element,
    }
}

fn verdict(fate: Fate) -> Verdict {
    let to = |chain: &str| ChainName::new(chain).map_or(Verdict::Drop, Verdict::GotoTo);
    match fate {
        Fate::Refused => to(REFUSE),
        Fate::Dropped => Verdict::Drop,
        Fate::Sent(pick) => to(&chain_name(pick)),
    }
}

/// Slots for connections from outside lie apart from the others of their front.
fn offset(from: From) -> u32 {
    match from {
        From::Anywhere => 0,
        From::Outside => 1 << 16,
    }
}

pub fn chain_name(pick: Pick) -> String {
    let from = if pick.from == From::Outside { "-outside" } else { "" };
    let stay = pick.affinity.map(|seconds| format!("-stay{seconds}")).unwrap_or_default();
    format!("pick{}{from}{stay}", pick.slots)
}

/// Where a family's packets have their addresses, and the registers that they are put into: by words of four bytes, so
/// that each key lies in a row: client, front (address, protocol, port), slot or back. IPv6's fill all there are.
struct Layout {
    family: Family,
    client: Register,
    address: Register,
    protocol: Register,
    port: Register,
    back: Register,
    back_port: Register,
}

const V4: Layout = Layout {
    family: Family::Ip,
    client: Register::R0,
    address: Register::Reg32_01,
    protocol: Register::Reg32_02,
    port: Register::Reg32_03,
    back: Register::R1,
    back_port: Register::Reg32_05,
};

const V6: Layout = Layout {
    family: Family::Ip6,
    client: Register::R0,
    address: Register::R1,
    protocol: Register::R2,
    port: Register::Reg32_09,
    back: Register::Reg32_10,
    back_port: Register::Reg32_14,
};

impl Layout {
    fn of(family: Family) -> &'static Self {
        if family == Family::Ip6 { &V6 } else { &V4 }
    }

    fn front(&self) -> [Expr; 3] {
        let (offset, length) = if self.family == Family::Ip6 { (24, 16) } else { (16, 4) };
        [
            header(self.address, PayloadBase::Network, offset, length),
            Expr::Meta { dreg: self.protocol, key: MetaKey::L4Proto },
            header(self.port, PayloadBase::Transport, 2, 2),
        ]
    }

    fn client(&self) -> Expr {
        let (offset, length) = if self.family == Family::Ip6 { (8, 16) } else { (12, 4) };
        header(self.client, PayloadBase::Network, offset, length)
    }

    /// `dnat to` the address and port in the registers. The library has it for constants alone.
    fn to_back(&self) -> Expr {
        let family = if self.family == Family::Ip6 { 10 } else { 2 };
        // Attributes of `nat`: type (destination), family, and the registers of address and port.
        let attributes: [(u16, u32); 4] = [(1, 1), (2, family), (3, self.back.wire()), (5, self.back_port.wire())];
        let mut data = Vec::with_capacity(32);
        for (attribute, value) in attributes {
            data.extend_from_slice(&8u16.to_ne_bytes());
            data.extend_from_slice(&attribute.to_ne_bytes());
            data.extend_from_slice(&value.to_be_bytes());
        }
        Expr::Raw(RawExpr::new("nat", data))
    }
}

/// A chain that chooses.
pub fn pick(family: Family, pick: Pick) -> Result<(Chain, Vec<Rule>), nlink::Error> {
    let (name, at) = (chain_name(pick), Layout::of(family));
    let rule = || rule(family, TABLE, &name);
    let random =
        Expr::Numgen { dreg: at.back, kind: NumgenKind::Random, modulus: pick.slots, offset: offset(pick.from) };
    let chosen = || at.front().into_iter().chain([random.clone(), look_up("slots", at.address, Some(at.back))]);
    let mut rules = Vec::new();
    if let Some(seconds) = pick.affinity {
        let stay = Duration::from_secs(seconds.into());
        let dynamic = |op| DynsetExpr::new(op, STICKY, at.client).sreg_data(at.back);
        let remember = || Expr::from(dynamic(DynsetOp::Update).timeout(stay));
        let before = [at.client()].into_iter().chain(at.front()).chain([
            look_up(STICKY, at.client, Some(at.back)),
            look_up("backs", at.address, None),
            remember(),
            at.to_back(),
        ]);
        rules.push(with(rule(), before));
        // An update leaves what is there as it is: where the client was sent before is forgotten first.
        let anew = [at.client()].into_iter().chain(chosen()).chain([
            dynamic(DynsetOp::Delete).into(),
            remember(),
            at.to_back(),
        ]);
        rules.push(with(rule(), anew));
    }
    rules.push(with(rule(), chosen().chain([at.to_back()])));
    Ok((Chain::new(TABLE, name.as_str())?.family(family), rules))
}

/// The cluster's ranges, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub pods: Option<IpNet>,
    pub services: Option<IpNet>,
}

/// The table in the cluster's namespace, as far as it follows from the node alone. All is of one family.
pub fn inside(gateway: IpAddr, ends: Ends, ranges: Ranges) -> Result<Ruleset, nlink::Error> {
    let Ranges { pods, services } = ranges;
    let family = family_of(gateway);
    let at = Layout::of(family);
    let rule = |chain: &str| rule(family, TABLE, chain);
    let chain =
        |name: &str, base| -> Result<Chain, nlink::Error> { Ok(Chain::new(TABLE, name)?.family(family).base(base)) };
    let to_front = |rule: Rule, set: &str| {
        with(rule, at.front().into_iter().chain([look_up(set, at.address, Some(Register::Verdict))]))
    };
    let sticky = Set::new(TABLE, STICKY)
        .family(family)
        .key_type(SetKeyType::Concat(vec![
            address_type(family),
            address_type(family),
            SetKeyType::InetProto,
            SetKeyType::InetService,
        ]))
        .map(back_type(family))
        .dynamic()
        .per_element_timeouts()
        .size(CLIENTS);
    let both = |a: PacketField, b: PacketField| [a, b];
    let (unreachable, to_itself) = match family {
        Family::Ip6 => {
            (rule(REFUSE).reject_icmpv6(PORT_UNREACHABLE_V6), both(PacketField::Ip6Saddr, PacketField::Ip6Daddr))
        }
        _ => (rule(REFUSE).reject_icmp(PORT_UNREACHABLE), both(PacketField::Ip4Saddr, PacketField::Ip4Daddr)),
    };
    let to_gateway = || NatStatement::snat(gateway);
    let mut rules = vec![
        rule(REFUSE).match_l4proto(Protocol::Tcp.number()).reject_tcp_reset(),
        unreachable,
        // What the host itself and pods by way of it send comes under addresses of the cable.
        to_front(
            rule("prerouting")
                .match_iif(links::UPLINK)
                .match_saddr_not(ends.host, whole(ends.host))
                .match_saddr_not(ends.around, whole(ends.around)),
            "outside",
        ),
        to_front(rule("prerouting"), "fronts"),
        to_front(rule("output"), "fronts"),
        rule("postrouting").match_concat_in_set(&to_itself, "own").nat(to_gateway()),
    ];
    // What isn't a pod's own goes to other nodes' pods under the node's address, or the answer wouldn't come back here.
    if let Some(pods) = pods {
        let to_mesh = rule("postrouting").match_oif(links::MESH);
        let from_elsewhere = to_mesh.match_saddr_not(pods.network(), pods.prefix_len());
        rules.push(from_elsewhere.nat(to_gateway()));
    }
    // A Service's address at a port that it hasn't, and addresses of none: not the world's either.
    let refuse = ChainName::new(REFUSE)?;
    if let Some(range) = services {
        let to_range = |rule: Rule| rule.match_daddr(range.network(), range.prefix_len()).goto(refuse.clone());
        rules.push(to_range(rule("forward").match_ct_state(CtState::NEW)));
        // The node's own answers are at addresses of its loopback interface.
        rules.push(to_range(rule("sent").match_oif_not("lo").match_ct_state(CtState::NEW)));
    }
    let mut sets: Vec<Set> = Kind::INSIDE.iter().map(|kind| kind.set(family, TABLE)).collect();
    sets.push(sticky);
    Ok(Ruleset {
        family,
        chains: vec![
            Chain::new(TABLE, REFUSE)?.family(family),
            chain("prerouting", BaseChain::nat(NatHook::Prerouting, Priority::DstNat))?,
            chain("output", BaseChain::nat(NatHook::Output, Priority::DstNat))?,
            chain("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat))?,
            chain("forward", BaseChain::filter(FilterHook::Forward, Priority::Filter))?,
            chain("sent", BaseChain::filter(FilterHook::Output, Priority::Filter))?,
        ],
        sets,
        rules,
    })
}

/// The table on the host: node ports at all its addresses of a family lead into the namespace.
pub fn on_host(table: &str, ends: Ends) -> Result<Ruleset, nlink::Error> {
    let family = family_of(ends.host);
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    for (name, hook) in [("prerouting", NatHook::Prerouting), ("output", NatHook::Output)] {
        let base = BaseChain::nat(hook, Priority::DstNat);
        chains.push(Chain::new(table, name)?.family(family).base(base));
        let to_host = firewall::to_host(rule(family, table, name), family);
        let in_set = [
            Expr::Meta { dreg: V4.client, key: MetaKey::L4Proto },
            header(V4.address, PayloadBase::Transport, 2, 2),
            look_up("ports", V4.client, None),
        ];
        rules.push(dnat(with(to_host, in_set), ends.host_ports, None));
    }
    Ok(Ruleset { family, chains, sets: vec![Kind::NodePorts.set(family, table)], rules })
}
