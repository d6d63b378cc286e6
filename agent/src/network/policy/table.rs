//! The nftables table of policies in the cluster's namespace. Pure.
//!
//! A connection's first packet is judged twice, after Services' addresses were translated: in `out` for the pod that sends
//! it, in `in` for the pod that gets it. Each is one look into a map by that pod's address, so pods that nobody isolates
//! pay for that and nothing more. `own` judges what a pod sends to the node itself: to Services that the node answers.

use super::plan::{Direction, Level, Line, PortMatch, Set, Then};
use super::ranges;
use crate::network::links::{self, Transfer};
use crate::network::ruleset::{Ruleset, header, look_up, rule, with};
use longshore_api::network::Protocol;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CmpOp, CtState, Expr, Family, FilterHook, PacketField, PayloadBase, Priority,
    Register, Rule, Set as NftSet, SetElement, SetKeyType, Verdict,
};
use std::net::Ipv4Addr;

pub const TABLE: &str = "policies";
/// A pod's address, twice: nobody keeps a pod from itself.
pub const ITSELF: &str = "itself";

const FIRST: Register = Register::R0;
const SECOND: Register = Register::Reg32_01;

/// The map from pods to the chains that decide.
pub fn verdicts(direction: Direction) -> NftSet {
    named(map_of(direction)).key_type(SetKeyType::Ipv4Addr).vmap()
}

fn map_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

pub fn itself() -> NftSet {
    named(ITSELF).key_type(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::Ipv4Addr]))
}

/// A set of peers, by its name. Ranges are such from the beginning.
pub fn peers(name: &str) -> NftSet {
    match name.as_bytes().first() {
        Some(b'n') => named(name).key_type(SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService])),
        Some(b'b') => named(name).key_type(SetKeyType::Ipv4Addr).interval(),
        _ => named(name).key_type(SetKeyType::Ipv4Addr),
    }
}

fn named(name: &str) -> NftSet {
    NftSet::new(TABLE, name).family(Family::Ip)
}

pub fn range_elements(set: &Set) -> Vec<SetElement> {
    let Set::Ranges(intervals) = set else { return Vec::new() };
    let element = |interval| {
        let (first, last) = ranges::addresses(interval);
        SetElement::ipv4_range(first, last)
    };
    intervals.iter().copied().map(element).collect()
}

pub fn to_itself(pod: Ipv4Addr) -> SetElement {
    SetElement::concat([SetElement::ipv4(pod), SetElement::ipv4(pod)])
}

pub fn decided_by(pod: Ipv4Addr, chain: &str) -> Result<SetElement, nlink::Error> {
    Ok(SetElement::ipv4(pod).verdict(Verdict::GotoTo(ChainName::new(chain)?)))
}

/// What stands in it whatever the policies are.
pub fn base(transfer: Transfer) -> Result<Ruleset, nlink::Error> {
    let chain = |name: &str, hook, priority| -> Result<Chain, nlink::Error> {
        Ok(Chain::new(TABLE, name)?.family(Family::Ip).base(BaseChain::filter(hook, priority)))
    };
    let mut rules = Vec::new();
    for (name, field, direction) in [
        ("out", PacketField::Ip4Saddr, Direction::Egress),
        ("own", PacketField::Ip4Saddr, Direction::Egress),
        ("in", PacketField::Ip4Daddr, Direction::Ingress),
    ] {
        // What was allowed when it began goes on, and its answers.
        rules.push(rule(TABLE, name).match_ct_state(CtState::ESTABLISHED | CtState::RELATED).accept());
        if direction == Direction::Ingress {
            // A pod's own node may reach it: this is the host; the agent's probes begin in here and pass no such chain.
            rules.push(rule(TABLE, name).match_iif(links::UPLINK).match_saddr_v4(transfer.host(), 32).accept());
        }
        let itself = rule(TABLE, name).match_concat_in_set(&[PacketField::Ip4Saddr, PacketField::Ip4Daddr], ITSELF);
        rules.push(itself.accept());
        rules.push(rule(TABLE, name).vmap(field, map_of(direction)));
    }
    Ok(Ruleset {
        chains: vec![
            chain("out", FilterHook::Forward, Priority::Custom(-2))?,
            chain("in", FilterHook::Forward, Priority::Custom(-1))?,
            chain("own", FilterHook::Input, Priority::Filter)?,
        ],
        sets: vec![verdicts(Direction::Ingress), verdicts(Direction::Egress), itself()],
        rules,
    })
}

/// A chain with its rules.
pub fn chain(name: &str, lines: &[Line]) -> Result<(Chain, Vec<Rule>), nlink::Error> {
    let chain = Chain::new(TABLE, name)?.family(Family::Ip);
    let rules = lines.iter().map(|line| of_line(name, line)).collect::<Result<_, _>>()?;
    Ok((chain, rules))
}

/// Which level of chains a name is of; none for those that are always there.
pub fn level(name: &str) -> Option<Level> {
    // A letter and twenty hexadecimal digits.
    let level = Level::ALL.into_iter().find(|level| name.starts_with(level.letter()))?;
    (name.len() == 21).then_some(level)
}

fn of_line(chain: &str, line: &Line) -> Result<Rule, nlink::Error> {
    let mut rule = rule(TABLE, chain);
    if let Some(set) = &line.peers {
        let offset = if line.direction == Direction::Ingress { 12 } else { 16 };
        rule = with(rule, [header(FIRST, PayloadBase::Network, offset, 4), look_up(&set.name(), FIRST, None)]);
    }
    rule = match &line.port {
        None => rule,
        Some(PortMatch::Any(protocol)) => of_protocol(rule, *protocol),
        Some(PortMatch::Range(protocol, first, last)) => with(of_protocol(rule, *protocol), ports(*first, *last)),
        Some(PortMatch::Named(protocol, set)) => with(
            of_protocol(rule, *protocol),
            [
                header(FIRST, PayloadBase::Network, 16, 4),
                header(SECOND, PayloadBase::Transport, 2, 2),
                look_up(&set.name(), FIRST, None),
            ],
        ),
    };
    Ok(match &line.then {
        Then::Accept => rule.accept(),
        Then::Drop => rule.drop(),
        Then::Jump(to) => rule.jump(ChainName::new(to)?),
    })
}

fn of_protocol(rule: Rule, protocol: Protocol) -> Rule {
    rule.match_l4proto(protocol.number())
}

/// The destination's: at the same place in all three protocols.
fn ports(first: u16, last: u16) -> Vec<Expr> {
    let compare = |op, port: u16| Expr::Cmp { sreg: FIRST, op, data: port.to_be_bytes().to_vec() };
    let port = header(FIRST, PayloadBase::Transport, 2, 2);
    match first == last {
        true => vec![port, compare(CmpOp::Eq, first)],
        false => vec![port, compare(CmpOp::Gte, first), compare(CmpOp::Lte, last)],
    }
}
