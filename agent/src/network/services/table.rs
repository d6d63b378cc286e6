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
use crate::network::links::{self, Transfer};
use crate::network::ruleset::{Ruleset, header, look_up, rule, with};
use ipnet::Ipv4Net;
use longshore_api::network::Protocol;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CtState, DynsetExpr, DynsetOp, Expr, Family, FibFlags, FilterHook, MetaKey, NatHook,
    NatStatement, NumgenKind, PacketField, PayloadBase, Priority, RawExpr, Register, Rule, Set, SetDataType,
    SetElement, SetElementData, SetKeyType, Verdict,
};
use nlink::netlink::types::route::RouteType;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Inside the cluster's namespace, which is ours alone.
pub const TABLE: &str = "services";
/// Where clients are remembered; not more of them than this (some 100 bytes each), others are sent at random.
const STICKY: &str = "sticky";
const CLIENTS: u32 = 262_144;
const REFUSE: &str = "refuse";
/// ICMP: port unreachable.
const PORT_UNREACHABLE: u8 = 3;

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

    pub fn set(self, table: &str) -> Set {
        use SetKeyType::{Concat, InetProto, InetService, Ipv4Addr, Mark};
        let (name, key, data) = match self {
            Self::Fronts => ("fronts", vec![Ipv4Addr, InetProto, InetService], Some(SetDataType::Verdict)),
            Self::Outside => ("outside", vec![Ipv4Addr, InetProto, InetService], Some(SetDataType::Verdict)),
            Self::Slots => ("slots", vec![Ipv4Addr, InetProto, InetService, Mark], Some(back_type())),
            Self::Backs => ("backs", vec![Ipv4Addr, InetProto, InetService, Ipv4Addr, InetService], None),
            Self::Own => ("own", vec![Ipv4Addr, Ipv4Addr], None),
            Self::NodePorts => ("ports", vec![InetProto, InetService], None),
        };
        let set = Set::new(table, name).family(Family::Ip).key_type(Concat(key));
        data.into_iter().fold(set, Set::map)
    }
}

fn back_type() -> SetDataType {
    SetDataType::Value(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService]))
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
        let key = key_of(*front).into_iter().chain([SetElement::ipv4(*ip), SetElement::port(*port)]);
        element(Kind::Backs, key.collect(), None)
    });
    let ports = plan.node_ports.iter().map(|(protocol, port)| {
        element(Kind::NodePorts, vec![SetElement::inet_proto(protocol.number()), SetElement::port(*port)], None)
    });
    fates.chain(slots).chain(backs).chain(ports)
}

/// The element of a pod on this node.
pub fn own(pod: Ipv4Addr) -> Element {
    element(Kind::Own, vec![SetElement::ipv4(pod), SetElement::ipv4(pod)], None)
}

fn element(kind: Kind, key: Vec<SetElement>, data: Option<SetElementData>) -> Element {
    ((kind, SetElement::concat(key).key().to_vec()), data)
}

fn key_of(front: Front) -> Vec<SetElement> {
    let Front { address, protocol, port } = front;
    vec![SetElement::ipv4(address), SetElement::inet_proto(protocol.number()), SetElement::port(port)]
}

fn value_of((ip, port): Back) -> Vec<u8> {
    SetElement::concat([SetElement::ipv4(ip), SetElement::port(port)]).key().to_vec()
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

// Registers by words of four bytes, so that each key lies in a row: client, front (three), slot or back.
const CLIENT: Register = Register::R0;
const ADDRESS: Register = Register::Reg32_01;
const PROTOCOL: Register = Register::Reg32_02;
const PORT: Register = Register::Reg32_03;
const BACK: Register = Register::R1;
const BACK_PORT: Register = Register::Reg32_05;

fn front() -> [Expr; 3] {
    [
        header(ADDRESS, PayloadBase::Network, 16, 4),
        Expr::Meta { dreg: PROTOCOL, key: MetaKey::L4Proto },
        header(PORT, PayloadBase::Transport, 2, 2),
    ]
}

fn client() -> Expr {
    header(CLIENT, PayloadBase::Network, 12, 4)
}

/// `dnat to` the address and port in the registers. The library has it for constants alone.
fn to_back() -> Expr {
    // Attributes of `nat`: type (destination), family, and the registers of address and port.
    let attributes: [(u16, u32); 4] = [(1, 1), (2, 2), (3, BACK.wire()), (5, BACK_PORT.wire())];
    let mut data = Vec::with_capacity(32);
    for (attribute, value) in attributes {
        data.extend_from_slice(&8u16.to_ne_bytes());
        data.extend_from_slice(&attribute.to_ne_bytes());
        data.extend_from_slice(&value.to_be_bytes());
    }
    Expr::Raw(RawExpr::new("nat", data))
}

/// A chain that chooses.
pub fn pick(pick: Pick) -> Result<(Chain, Vec<Rule>), nlink::Error> {
    let name = chain_name(pick);
    let random = Expr::Numgen { dreg: BACK, kind: NumgenKind::Random, modulus: pick.slots, offset: offset(pick.from) };
    let chosen = || front().into_iter().chain([random.clone(), look_up("slots", ADDRESS, Some(BACK))]);
    let mut rules = Vec::new();
    if let Some(seconds) = pick.affinity {
        let stay = Duration::from_secs(seconds.into());
        let dynamic = |op| DynsetExpr::new(op, STICKY, CLIENT).sreg_data(BACK);
        let remember = || Expr::from(dynamic(DynsetOp::Update).timeout(stay));
        let before = [client()].into_iter().chain(front()).chain([
            look_up(STICKY, CLIENT, Some(BACK)),
            look_up("backs", ADDRESS, None),
            remember(),
            to_back(),
        ]);
        rules.push(with(rule(TABLE, &name), before));
        // An update leaves what is there as it is: where the client was sent before is forgotten first.
        let anew =
            [client()].into_iter().chain(chosen()).chain([dynamic(DynsetOp::Delete).into(), remember(), to_back()]);
        rules.push(with(rule(TABLE, &name), anew));
    }
    rules.push(with(rule(TABLE, &name), chosen().chain([to_back()])));
    Ok((Chain::new(TABLE, name.as_str())?.family(Family::Ip), rules))
}

/// The cluster's ranges, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub pods: Option<Ipv4Net>,
    pub services: Option<Ipv4Net>,
}

/// The table in the cluster's namespace, as far as it follows from the node alone.
pub fn inside(gateway: Ipv4Addr, transfer: Transfer, ranges: Ranges) -> Result<Ruleset, nlink::Error> {
    let Ranges { pods, services } = ranges;
    let chain = |name: &str, base| -> Result<Chain, nlink::Error> {
        Ok(Chain::new(TABLE, name)?.family(Family::Ip).base(base))
    };
    let to_front =
        |rule: Rule, set: &str| with(rule, front().into_iter().chain([look_up(set, ADDRESS, Some(Register::Verdict))]));
    let sticky = Set::new(TABLE, STICKY)
        .family(Family::Ip)
        .key_type(SetKeyType::Concat(vec![
            SetKeyType::Ipv4Addr,
            SetKeyType::Ipv4Addr,
            SetKeyType::InetProto,
            SetKeyType::InetService,
        ]))
        .map(back_type())
        .dynamic()
        .per_element_timeouts()
        .size(CLIENTS);
    let mut rules = vec![
        rule(TABLE, REFUSE).match_l4proto(Protocol::Tcp.number()).reject_tcp_reset(),
        rule(TABLE, REFUSE).reject_icmp(PORT_UNREACHABLE),
        // What the host itself and pods by way of it send comes under addresses of the cable.
        to_front(
            rule(TABLE, "prerouting")
                .match_iif(links::UPLINK)
                .match_saddr_v4_not(transfer.host(), 32)
                .match_saddr_v4_not(transfer.around(), 32),
            "outside",
        ),
        to_front(rule(TABLE, "prerouting"), "fronts"),
        to_front(rule(TABLE, "output"), "fronts"),
        rule(TABLE, "postrouting")
            .match_concat_in_set(&[PacketField::Ip4Saddr, PacketField::Ip4Daddr], "own")
            .nat(NatStatement::snat(gateway)),
    ];
    // What isn't a pod's own goes to other nodes' pods under the node's address, or the answer wouldn't come back here.
    if let Some(pods) = pods {
        let to_mesh = rule(TABLE, "postrouting").match_oif(links::MESH);
        let from_elsewhere = to_mesh.match_saddr_v4_not(pods.network(), pods.prefix_len());
        rules.push(from_elsewhere.nat(NatStatement::snat(gateway)));
    }
    // A Service's address at a port that it hasn't, and addresses of none: not the world's either.
    let refuse = ChainName::new(REFUSE)?;
    if let Some(range) = services {
        let to_range = |rule: Rule| rule.match_daddr_v4(range.network(), range.prefix_len()).goto(refuse.clone());
        rules.push(to_range(rule(TABLE, "forward").match_ct_state(CtState::NEW)));
        // The node's own answers are at addresses of its loopback interface.
        rules.push(to_range(rule(TABLE, "sent").match_oif_not("lo").match_ct_state(CtState::NEW)));
    }
    let mut sets: Vec<Set> = Kind::INSIDE.iter().map(|kind| kind.set(TABLE)).collect();
    sets.push(sticky);
    Ok(Ruleset {
        chains: vec![
            Chain::new(TABLE, REFUSE)?.family(Family::Ip),
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

/// The table on the host: node ports at all its addresses lead into the namespace.
pub fn on_host(table: &str, transfer: Transfer) -> Result<Ruleset, nlink::Error> {
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    for (name, hook) in [("prerouting", NatHook::Prerouting), ("output", NatHook::Output)] {
        let base = BaseChain::nat(hook, Priority::DstNat);
        chains.push(Chain::new(table, name)?.family(Family::Ip).base(base));
        let to_host = rule(table, name).match_fib_type(FibFlags::DADDR, RouteType::Local);
        let in_set = [
            Expr::Meta { dreg: CLIENT, key: MetaKey::L4Proto },
            header(ADDRESS, PayloadBase::Transport, 2, 2),
            look_up("ports", CLIENT, None),
        ];
        rules.push(with(to_host, in_set).dnat(transfer.host_ports(), None));
    }
    Ok(Ruleset { chains, sets: vec![Kind::NodePorts.set(table)], rules })
}
