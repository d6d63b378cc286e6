//! The nftables tables of policies in the cluster's namespace, one for each family of addresses. Pure.
//!
//! A connection's first packet is judged twice, after Services' addresses were translated: in `out` for the pod that sends
//! it, in `in` for the pod that gets it. Each is one look into a map by that pod's address, so pods that nobody isolates
//! pay for that and nothing more. `own` judges what a pod sends to the node itself: to Services that the node answers.

use super::plan::{Direction, Level, Line, PortMatch, Set, Then};
use crate::network::links::{self, Ends};
use crate::network::ruleset::{Ruleset, family_of, header, look_up, rule, whole, with};
use longshore_api::network::Protocol;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CmpOp, CtState, Expr, Family, FilterHook, PacketField, PayloadBase, Priority,
    Register, Rule, Set as NftSet, SetElement, SetKeyType, Verdict,
};
use std::net::IpAddr;

pub const TABLE: &str = "policies";
/// A pod's address, twice: nobody keeps a pod from itself.
pub const ITSELF: &str = "itself";

const FIRST: Register = Register::R0;

/// Behind an address in [`FIRST`].
fn second(family: Family) -> Register {
    if family == Family::Ip6 { Register::R1 } else { Register::Reg32_01 }
}

fn address_type(family: Family) -> SetKeyType {
    if family == Family::Ip6 { SetKeyType::Ipv6Addr } else { SetKeyType::Ipv4Addr }
}

pub fn address(ip: IpAddr) -> SetElement {
    match ip {
        IpAddr::V4(ip) => SetElement::ipv4(ip),
        IpAddr::V6(ip) => SetElement::ipv6(ip),
    }
}

/// Loads a sender's or a receiver's address.
fn load(family: Family, sender: bool) -> Expr {
    let (offset, length) = match (family, sender) {
        (Family::Ip6, true) => (8, 16),
        (Family::Ip6, false) => (24, 16),
        (_, true) => (12, 4),
        (_, false) => (16, 4),
    };
    header(FIRST, PayloadBase::Network, offset, length)
}

/// The map from pods to the chains that decide.
pub fn verdicts(family: Family, direction: Direction) -> NftSet {
    named(family, map_of(direction)).key_type(address_type(family)).vmap()
}

fn map_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

pub fn itself(family: Family) -> NftSet {
    named(family, ITSELF).key_type(SetKeyType::Concat(vec![address_type(family), address_type(family)]))
}

/// A set of peers, by its name. Ranges are such from the beginning.
pub fn peers(family: Family, name: &str) -> NftSet {
    let ip = address_type(family);
    match name.as_bytes().first() {
        Some(b'n') => named(family, name).key_type(SetKeyType::Concat(vec![ip, SetKeyType::InetService])),
        Some(b'b') => named(family, name).key_type(ip).interval(),
        _ => named(family, name).key_type(ip),
    }
}

fn named(family: Family, name: &str) -> NftSet {
    NftSet::new(TABLE, name).family(family)
}

pub fn range_elements(family: Family, set: &Set) -> Vec<SetElement> {
    let Set::Ranges(intervals) = set else { return Vec::new() };
    let element = |(first, last): (u128, u128)| match family {
        Family::Ip6 => SetElement::ipv6_range(first.into(), last.into()),
        _ => SetElement::ipv4_range((first as u32).into(), (last as u32).into()),
    };
    intervals.iter().copied().map(element).collect()
}

pub fn to_itself(pod: IpAddr) -> SetElement {
    SetElement::concat([address(pod), address(pod)])
}

pub fn decided_by(pod: IpAddr, chain: &str) -> Result<SetElement, nlink::Error> {
    Ok(address(pod).verdict(Verdict::GotoTo(ChainName::new(chain)?)))
}

/// What stands in it whatever the policies are.
pub fn base(ends: Ends) -> Result<Ruleset, nlink::Error> {
    let family = family_of(ends.host);
    let rule = |chain: &str| rule(family, TABLE, chain);
    let chain = |name: &str, hook, priority| -> Result<Chain, nlink::Error> {
        Ok(Chain::new(TABLE, name)?.family(family).base(BaseChain::filter(hook, priority)))
    };
    let [sender, receiver] = match family {
        Family::Ip6 => [PacketField::Ip6Saddr, PacketField::Ip6Daddr],
        _ => [PacketField::Ip4Saddr, PacketField::Ip4Daddr],
    };
    let mut rules = Vec::new();
    for (name, field, direction) in
        [("out", sender, Direction::Egress), ("own", sender, Direction::Egress), ("in", receiver, Direction::Ingress)]
    {
        // What was allowed when it began goes on, and its answers.
        rules.push(rule(name).match_ct_state(CtState::ESTABLISHED | CtState::RELATED).accept());
        if (family, name) == (Family::Ip6, "own") {
            // Who is at the cable's other end: asked by messages that aren't tracked, and never passed on.
            rules.push(rule(name).match_ct_state(CtState::UNTRACKED).accept());
        }
        if direction == Direction::Ingress {
            // A pod's own node may reach it: this is the host; the agent's probes begin in here and pass no such chain.
            rules.push(rule(name).match_iif(links::UPLINK).match_saddr(ends.host, whole(ends.host)).accept());
        }
        rules.push(rule(name).match_concat_in_set(&[sender, receiver], ITSELF).accept());
        rules.push(rule(name).vmap(field, map_of(direction)));
    }
    Ok(Ruleset {
        family,
        chains: vec![
            chain("out", FilterHook::Forward, Priority::Custom(-2))?,
            chain("in", FilterHook::Forward, Priority::Custom(-1))?,
            chain("own", FilterHook::Input, Priority::Filter)?,
        ],
        sets: vec![verdicts(family, Direction::Ingress), verdicts(family, Direction::Egress), itself(family)],
        rules,
    })
}

/// A chain with its rules.
pub fn chain(family: Family, name: &str, lines: &[Line]) -> Result<(Chain, Vec<Rule>), nlink::Error> {
    let chain = Chain::new(TABLE, name)?.family(family);
    let rules = lines.iter().map(|line| of_line(family, name, line)).collect::<Result<_, _>>()?;
    Ok((chain, rules))
}

/// Which level of chains a name is of; none for those that are always there.
pub fn level(name: &str) -> Option<Level> {
    // A letter and twenty hexadecimal digits.
    let level = Level::ALL.into_iter().find(|level| name.starts_with(level.letter()))?;
    (name.len() == 21).then_some(level)
}

fn of_line(family: Family, chain: &str, line: &Line) -> Result<Rule, nlink::Error> {
    let mut rule = rule(family, TABLE, chain);
    if let Some(set) = &line.peers {
        let of_peer = load(family, line.direction == Direction::Ingress);
        rule = with(rule, [of_peer, look_up(&set.name(), FIRST, None)]);
    }
    rule = match &line.port {
        None => rule,
        Some(PortMatch::Any(protocol)) => of_protocol(rule, *protocol),
        Some(PortMatch::Range(protocol, first, last)) => with(of_protocol(rule, *protocol), ports(*first, *last)),
        Some(PortMatch::Named(protocol, set)) => with(
            of_protocol(rule, *protocol),
            [
                load(family, false),
                header(second(family), PayloadBase::Transport, 2, 2),
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
