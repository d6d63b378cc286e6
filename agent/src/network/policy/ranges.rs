//! Address ranges without exceptions, as ordered intervals. Pure.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// First and last address.
pub type Interval = (u32, u32);

/// `range` without the parts of it in `except`.
pub fn without(range: Ipv4Net, except: &[Ipv4Net]) -> Vec<Interval> {
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

fn interval(range: Ipv4Net) -> Interval {
    (range.network().into(), range.broadcast().into())
}

pub fn addresses((first, last): Interval) -> (Ipv4Addr, Ipv4Addr) {
    (first.into(), last.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn shown(intervals: &[Interval]) -> Vec<String> {
        intervals.iter().map(|i| format!("{}-{}", addresses(*i).0, addresses(*i).1)).collect()
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

    proptest! {
        #[test]
        fn an_address_is_in_it_when_it_is_in_a_range_and_in_none_of_its_exceptions(
            blocks in prop::collection::vec((any::<u8>(), 24u8..=32, prop::collection::vec((any::<u8>(), 24u8..=32), 0..5)), 0..4),
        ) {
            let net = |last: u8, bits: u8| Ipv4Net::new(Ipv4Addr::new(255, 255, 255, last), bits).unwrap().trunc();
            let blocks: Vec<(Ipv4Net, Vec<Ipv4Net>)> = blocks
                .into_iter()
                .map(|(last, bits, except)| (net(last, bits), except.into_iter().map(|(l, b)| net(l, b)).collect()))
                .collect();
            let all = united(blocks.iter().flat_map(|(range, except)| without(*range, except)).collect());
            for last in 0..=255 {
                let ip = Ipv4Addr::new(255, 255, 255, last);
                let wanted = blocks.iter().any(|(r, except)| r.contains(&ip) && !except.iter().any(|e| e.contains(&ip)));
                let found = all.iter().filter(|(a, b)| (*a..=*b).contains(&u32::from(ip))).count();
                prop_assert_eq!(found, usize::from(wanted), "{} in {:?}", ip, all);
            }
        }
    }
}
