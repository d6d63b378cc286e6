//! What one client may ask of an Ingress: requests a second and a minute, and requests at once.
//!
//! All rules of an Ingress share a client's share. What is counted belongs to the edge and not to its routes: routes that are set
//! anew with the same rate forgive nobody. Each edge counts for itself.
//!
//! The arithmetic is governor's (a bucket's state is one instant), what its states are kept in is ours ([`lately`]).

mod lately;

use super::counts::{Counted, Counts, counted_as};
use crate::model::{self, Rate, Routes};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter};
use lately::Lately;
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Clients of one rate that are known at once, for 2 MB at most. Who comes by connections of TCP and is to be forgotten needs half
/// as many others, each with an address of its own, between two requests.
const REMEMBERED: usize = 32_768;

/// A client has no place for this request.
#[derive(Debug, PartialEq)]
pub enum Over {
    /// There will be one after so long.
    Rate(Duration),
    /// As soon as another request of it ends.
    AtOnce,
}

/// The limits of every Ingress that has any.
pub struct Limits<C: Clock = MonotonicClock> {
    clock: C,
    of: RwLock<HashMap<ClusterId, HashMap<Name, Arc<Limiter<C>>>>>,
}

/// One Ingress's.
struct Limiter<C: Clock> {
    per_second: Option<Arc<Buckets<C>>>,
    per_minute: Option<Arc<Buckets<C>>>,
    at_once: Counts<IpAddr>,
}

/// Each client's bucket of one rate.
struct Buckets<C: Clock> {
    rate: Rate,
    limiter: RateLimiter<IpAddr, Lately, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock + Clone> Limits<C> {
    pub fn new(clock: C) -> Self {
        Self { clock, of: RwLock::default() }
    }

    /// Those of a cluster from now on.
    pub fn set(&self, cluster: &ClusterId, routes: &Routes) {
        let limited = routes.all_rules().filter(|rule| rule.policy.limits.any());
        let wanted: HashMap<&Name, &model::Limits> = limited.map(|rule| (&*rule.source, &rule.policy.limits)).collect();
        let mut all = self.of.write();
        let before = all.remove(cluster).unwrap_or_default();
        let limiter =
            |name, limits| Arc::new(Limiter::new(limits, before.get(name).map(|known| &**known), &self.clock));
        let now: HashMap<_, _> =
            wanted.into_iter().map(|(name, limits)| (name.clone(), limiter(name, limits))).collect();
        if !now.is_empty() {
            all.insert(cluster.clone(), now);
        }
    }

    pub fn forget(&self, cluster: &ClusterId) {
        self.of.write().remove(cluster);
    }

    /// Counts a request. What is returned is held until its end.
    pub fn take(
        &self,
        cluster: &ClusterId,
        ingress: &Name,
        limits: &model::Limits,
        client: IpAddr,
    ) -> Result<Option<Counted<IpAddr>>, Over> {
        if !limits.any() || limits.free.iter().any(|range| range.contains(&client)) {
            return Ok(None);
        }
        let limiter = self.of.read().get(cluster).and_then(|all| all.get(ingress)).cloned();
        let Some(limiter) = limiter else { return Ok(None) };
        let client = counted_as(client);
        let counted = match limits.at_once {
            Some(most) => Some(limiter.at_once.take(client, most).ok_or(Over::AtOnce)?),
            None => None,
        };
        limiter.buckets().try_for_each(|buckets| buckets.take(client))?;
        Ok(counted)
    }

    /// Forgets who has all of its share again.
    pub fn sweep(&self) {
        let all: Vec<_> = self.of.read().values().flat_map(|all| all.values().cloned()).collect();
        for buckets in all.iter().flat_map(|limiter| limiter.buckets()) {
            buckets.limiter.retain_recent();
            buckets.limiter.shrink_to_fit();
        }
    }
}

impl<C: Clock + Clone> Limiter<C> {
    /// With what is known of clients where the rate is still the same.
    fn new(limits: &model::Limits, before: Option<&Self>, clock: &C) -> Self {
        let buckets = |rate: Option<Rate>, before: Option<&Arc<Buckets<C>>>, quota: fn(_) -> Quota| {
            let rate = rate?;
            let known = before.filter(|before| before.rate == rate).cloned();
            let limiter = || {
                RateLimiter::new(quota(rate.requests).allow_burst(rate.burst), Lately::new(REMEMBERED), clock.clone())
            };
            Some(known.unwrap_or_else(|| Arc::new(Buckets { rate, limiter: limiter() })))
        };
        Self {
            per_second: buckets(limits.per_second, before.and_then(|b| b.per_second.as_ref()), Quota::per_second),
            per_minute: buckets(limits.per_minute, before.and_then(|b| b.per_minute.as_ref()), Quota::per_minute),
            at_once: before.map_or_else(Counts::new, |before| before.at_once.clone()),
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Buckets<C>> {
        [&self.per_second, &self.per_minute].into_iter().flatten().map(|buckets| &**buckets)
    }
}

impl<C: Clock> Buckets<C> {
    fn take(&self, client: IpAddr) -> Result<(), Over> {
        let taken = self.limiter.check_key(&client);
        taken.map_err(|until| Over::Rate(until.wait_time_from(self.limiter.clock().now())))
    }
}

#[cfg(test)]
mod tests;
