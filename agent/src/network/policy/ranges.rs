//! Address ranges without exceptions, as ordered intervals. Pure.

use ipnet::IpNet;
use std::net::IpAddr;

/// First and last address, as numbers of one family.
pub type Interval = (u128, u128);

/// `range` without the parts of it in `except`.
pub fn without(range: IpNet, except: &[IpNet]) -> Vec<Interval> {
    let mut holes: Vec<Interval> = except.iter().copied().map(interval).collect();
    holes.sort_unstable();
    let (first, last) = interval(range);
    let mut left = Vec::new();
    let mut from = Some(first);
    for (begins, ends) in holes {
        let Some(at) = from.filter(|at| *at <= last) else { break };
        if begins > at {
            left.push((at, last.min(begins - 1)));
        }
        from = if ends >= at { ends.checked_add(1) } else { from };
    }
    left.extend(from.filter(|at| *at <= last).map(|at| (at, last)));
    left
}

/// All of them, none touching another.
pub fn united(mut all: Vec<Interval>) -> Vec<Interval> {
    all.sort_unstable();
    let mut out: Vec<Interval> = Vec::new();
    for (first, last) in all {
        match out.last_mut().filter(|before| first <= before.1.saturating_add(1)) {
            Some(before) => before.1 = before.1.max(last),
            None => out.push((first, last)),
        }
    }
    out
}

fn interval(range: IpNet) -> Interval {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    };
    (number(range.network()), number(range.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use std::net::{Ipv4Addr, Ipv6Addr};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn v4(number: u128) -> Ipv4Addr {
        u32::try_from(number).unwrap().into()
    }

    fn shown(intervals: &[Interval]) -> Vec<String> {
        intervals.iter().map(|i| format!("{}-{}", v4(i.0), v4(i.1))).collect()
    }

    #[test]
    fn exceptions_leave_what_is_around_them() {
        let of =
            |range, except: &[&str]| shown(&without(net(range), &except.iter().map(|e| net(e)).collect::<Vec<_>>()));
        assert_eq!(of("10.0.0.0/8", &[]), ["10.0.0.0-10.255.255.255"]);
        assert_eq!(of("0.0.0.0/0", &["0.0.0.0/1"]), ["128.0.0.0-255.255.255.255"]);
        assert_eq!(of("0.0.0.0/0", &["255.0.0.0/8"]), ["0.0.0.0-254.255.255.255"]);
        assert_eq!(
            of("192.168.0.0/24", &["192.168.0.128/25", "192.168.0.4/30", "192.168.0.6/32"]),
            ["192.168.0.0-192.168.0.3", "192.168.0.8-192.168.0.127"]
        );
        assert_eq!(of("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/31"]), [""; 0]);
        assert_eq!(shown(&united(vec![(5, 9), (0, 4), (20, 30), (25, 26)])), ["0.0.0.0-0.0.0.9", "0.0.0.20-0.0.0.30"]);
    }

    #[test]
    fn of_ipv6_as_well() {
        let left = without(net("::/0"), &[net("fd00::/8")]);
        let shown: Vec<_> =
            left.iter().map(|(a, b)| format!("{}-{}", Ipv6Addr::from(*a), Ipv6Addr::from(*b))).collect();
        assert_eq!(
            shown,
            ["::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
    }

    proptest! {
        #[test]
        fn an_address_is_in_it_when_it_is_in_a_range_and_in_none_of_its_exceptions(
            blocks in prop::collection::vec((any::<u8>(), 24u8..=32, prop::collection::vec((any::<u8>(), 24u8..=32), 0..5)), 0..4),
        ) {
            let net = |last: u8, bits: u8| IpNet::new(Ipv4Addr::new(255, 255, 255, last).into(), bits).unwrap().trunc();
            let blocks: Vec<(IpNet, Vec<IpNet>)> = blocks
                .into_iter()
                .map(|(last, bits, except)| (net(last, bits), except.into_iter().map(|(l, b)| net(l, b)).collect()))
                .collect();
            let all = united(blocks.iter().flat_map(|(range, except)| without(*range, except)).collect());
            for last in 0..=255 {
                let (ip, number) = (IpAddr::from([255, 255, 255, last]), u128::from(0xffff_ff00 + u32::from(last)));
                let wanted = blocks.iter().any(|(r, except)| r.contains(&ip) && !except.iter().any(|e| e.contains(&ip)));
                let found = all.iter().filter(|(a, b)| (*a..=*b).contains(&number)).count();
                prop_assert_eq!(found, usize::from(wanted), "{} in {:?}", ip, all);
            }
        }
    }
}
