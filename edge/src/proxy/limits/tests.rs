use super::*;
use crate::model::{Policy, Rule};
use crate::path::PathMatch;
use governor::clock::FakeRelativeClock;
use proptest::prelude::*;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;

struct Setting {
    clock: FakeRelativeClock,
    limits: Limits<FakeRelativeClock>,
    told: model::Limits,
}

fn cluster() -> ClusterId {
    ClusterId::new("c-1")
}

fn rate(requests: u32, burst: u32) -> Option<Rate> {
    Some(Rate { requests: NonZeroU32::new(requests).unwrap(), burst: NonZeroU32::new(burst).unwrap() })
}

fn rule(ingress: &str, limits: &model::Limits) -> Rule {
    Rule {
        path: PathMatch::prefix("/"),
        conditions: Vec::new(),
        filters: Vec::new(),
        backends: Vec::new(),
        policy: Policy { limits: limits.clone(), ..Policy::default() },
        source: Name::new("a", ingress).into(),
    }
}

fn number(n: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(n) << 64).into()
}

impl Setting {
    fn new(told: model::Limits) -> Self {
        let clock = FakeRelativeClock::default();
        let mut setting = Self { limits: Limits::new(clock.clone()), clock, told: model::Limits::default() };
        setting.change(told);
        setting
    }

    fn change(&mut self, told: model::Limits) {
        self.limits.set(&cluster(), &Routes { default: Some(rule("i", &told)), ..Routes::default() });
        self.told = told;
    }

    fn take(&self, client: IpAddr) -> Result<Option<Counted<IpAddr>>, Over> {
        self.limits.take(&cluster(), &Name::new("a", "i"), &self.told, client)
    }

    /// The wait in milliseconds; None: it was let in.
    fn come(&self, client: &str) -> Option<u128> {
        match self.take(client.parse().unwrap()) {
            Ok(_) => None,
            Err(Over::Rate(wait)) => Some(wait.as_millis()),
            Err(Over::AtOnce) => panic!("nothing is counted at once"),
        }
    }

    fn pass(&self, milliseconds: u64) {
        self.clock.advance(Duration::from_millis(milliseconds));
    }

    fn remembered(&self) -> usize {
        let all = self.limits.of.read();
        all.values().flat_map(HashMap::values).flat_map(|l| l.buckets()).map(|b| b.limiter.len()).sum()
    }
}

#[test]
fn a_burst_then_the_rate_for_each_client() {
    let setting = Setting::new(model::Limits { per_second: rate(2, 4), ..model::Limits::default() });
    assert_eq!([0; 5].map(|_| setting.come("192.0.2.1")), [None, None, None, None, Some(500)]);
    assert_eq!(setting.come("192.0.2.2"), None);
    setting.pass(499);
    assert_eq!(setting.come("192.0.2.1"), Some(1));
    setting.pass(1);
    assert_eq!([0; 2].map(|_| setting.come("192.0.2.1")), [None, Some(500)]);
}

#[test]
fn both_rates_hold() {
    let told = model::Limits { per_second: rate(10, 10), per_minute: rate(3, 3), ..model::Limits::default() };
    let setting = Setting::new(told);
    assert_eq!([0; 4].map(|_| setting.come("192.0.2.1")), [None, None, None, Some(20_000)]);
    setting.pass(20_000);
    assert_eq!([0; 2].map(|_| setting.come("192.0.2.1")), [None, Some(20_000)]);
}

#[test]
fn a_network_of_ipv6_is_one_client_and_the_free_are_none() {
    let free = vec!["2001:db8:0:2::7/128".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    let setting = Setting::new(model::Limits { per_minute: rate(1, 1), free, ..model::Limits::default() });
    assert_eq!(setting.come("2001:db8:0:1::1"), None);
    assert_eq!(setting.come("2001:db8:0:1:ffff::2"), Some(60_000));
    assert_eq!([0; 3].map(|_| setting.come("192.0.2.1")), [None; 3]);
    assert_eq!([0; 3].map(|_| setting.come("2001:db8:0:2::7")), [None; 3]);
    assert_eq!([0; 2].map(|_| setting.come("2001:db8:0:2::8")), [None, Some(60_000)]);
}

#[test]
fn as_many_at_once_as_allowed_and_a_refused_one_holds_nothing() {
    let told = model::Limits { per_minute: rate(3, 3), at_once: Some(1), ..model::Limits::default() };
    let mut setting = Setting::new(told.clone());
    let client = number(1);
    let first = setting.take(client).unwrap();
    assert!(first.is_some());
    assert_eq!(setting.take(client).err(), Some(Over::AtOnce));
    setting.change(model::Limits { at_once: Some(2), ..told });
    let second = setting.take(client).unwrap();
    assert_eq!(setting.take(client).err(), Some(Over::AtOnce), "what ran before the change counts");
    drop((first, second));
    assert!(setting.take(client).is_ok());
    for _ in 0..3 {
        assert!(matches!(setting.take(client), Err(Over::Rate(_))));
    }
}

#[test]
fn routes_that_leave_a_rate_as_it_is_forgive_nobody() {
    let told = model::Limits { per_second: rate(1, 1), per_minute: rate(5, 5), ..model::Limits::default() };
    let mut setting = Setting::new(told.clone());
    assert_eq!(setting.come("192.0.2.1"), None);
    setting.change(told.clone());
    assert_eq!(setting.come("192.0.2.1"), Some(1000));
    setting.change(model::Limits { per_minute: rate(6, 6), at_once: Some(9), ..told.clone() });
    assert_eq!(setting.come("192.0.2.1"), Some(1000));
    setting.change(model::Limits { per_second: rate(1, 2), ..told.clone() });
    assert_eq!(setting.come("192.0.2.1"), None);
    // Another Ingress, and the same name elsewhere, count for themselves; what is gone is forgotten.
    let routes = Routes { default: Some(rule("i", &told)), ..Routes::default() };
    setting.limits.set(&ClusterId::new("c-2"), &routes);
    let elsewhere = |ingress| {
        let client = "192.0.2.1".parse().unwrap();
        setting.limits.take(&ClusterId::new("c-2"), &Name::new("a", ingress), &told, client)
    };
    assert!(elsewhere("i").is_ok());
    assert!(elsewhere("i").is_err());
    assert!(elsewhere("unknown").is_ok());
    setting.limits.forget(&ClusterId::new("c-2"));
    setting.limits.forget(&cluster());
    assert!(setting.limits.of.read().is_empty());
}

#[test]
fn who_has_all_of_its_share_again_is_forgotten() {
    let setting = Setting::new(model::Limits { per_second: rate(1, 10), ..model::Limits::default() });
    for _ in 0..10 {
        assert_eq!(setting.come("192.0.2.1"), None);
    }
    assert_eq!(setting.come("192.0.2.2"), None);
    setting.pass(5_000);
    setting.limits.sweep();
    assert_eq!(setting.remembered(), 1);
    assert_eq!([0; 6].map(|_| setting.come("192.0.2.1").is_none()), [true, true, true, true, true, false]);
    setting.pass(20_000);
    setting.limits.sweep();
    assert_eq!(setting.remembered(), 0);
}

#[test]
fn many_clients_fill_no_memory_and_who_keeps_coming_is_not_forgotten() {
    let setting = Setting::new(model::Limits { per_minute: rate(1, 1), ..model::Limits::default() });
    let greedy = number(0);
    assert!(setting.take(greedy).is_ok());
    let many = 3 * REMEMBERED as u64;
    for other in 1..=many {
        assert!(setting.take(number(other)).is_ok());
        if other.is_multiple_of(10_000) {
            assert!(setting.take(greedy).is_err(), "after {other}");
            assert!(setting.remembered() <= REMEMBERED);
        }
    }
    assert!(setting.take(number(many)).is_err());
    assert!(setting.take(number(1)).is_ok(), "nobody is remembered for ever");
}

proptest! {
    /// Whatever comes when, and however routes are set meanwhile: in no stretch of time more than a burst and the rate.
    #[test]
    fn never_more_than_a_burst_and_the_rate(
        requests in 1u32..20,
        multiplier in 1u32..6,
        steps in prop::collection::vec((0u64..400, prop::bool::weighted(0.1)), 1..300),
    ) {
        let told = model::Limits { per_second: rate(requests, requests * multiplier), ..model::Limits::default() };
        let mut setting = Setting::new(told.clone());
        let (mut now, mut let_in) = (0, Vec::new());
        for (wait, set) in steps {
            setting.pass(wait);
            now += wait;
            if set {
                setting.change(told.clone());
                setting.limits.sweep();
            }
            if setting.come("192.0.2.1").is_none() {
                let_in.push(now);
            }
        }
        for (at, from) in let_in.iter().enumerate() {
            for (to, until) in let_in.iter().enumerate().skip(at) {
                let most = u64::from(requests * multiplier) + (until - from) * u64::from(requests) / 1000;
                prop_assert!((to - at + 1) as u64 <= most + 1, "{} from {from} to {until}", to - at + 1);
            }
        }
    }
}
