//! NetworkPolicy on this node: which connections to and from its pods are made.
//!
//! Whom a policy selects is judged here, by labels of this node's own pods, and before a pod has its cable: there is no
//! moment in which it can be reached as if nobody isolated it. Their peers' addresses come with the network map. What
//! follows ([`plan`]) is set by differences ([`kernel`]) into a table of its own ([`table`]), which is there only while the
//! cluster has policies.

mod kernel;
mod plan;
mod ranges;
mod table;

use super::links::Ends;
use super::map::{Known, TouchedPolicies};
use super::ruleset::family_of;
use super::{Error, Inside};
use crate::pods::network::Identity;
use kernel::{Kernel, Model};
use nlink::netlink::namespace::NetnsId;
use plan::Plan;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// How often it is looked at without a reason.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// This node's pods by their addresses of one family; as others know them, by IPv4's.
pub(super) type Pods = BTreeMap<IpAddr, Identity>;

pub(super) struct Policies {
    map: Arc<Known>,
    pods: watch::Sender<Pods>,
    /// IPv4's, and IPv6's.
    tables: Mutex<[Tables; 2]>,
}

#[derive(Default)]
struct Tables {
    /// What the table rests on; none while it isn't known what the kernel has.
    ground: Option<(NetnsId, Ends)>,
    /// Someone else may have changed it.
    unsure: bool,
    pods: Pods,
    plan: Plan,
    model: Model,
}

impl Policies {
    pub fn new(map: Arc<Known>, pods: Pods) -> Self {
        Self { map, pods: watch::Sender::new(pods), tables: Mutex::default() }
    }

    /// The pods as they are now. What is brought from here on is for these.
    pub fn know(&self, pods: Pods) {
        self.pods.send_if_modified(|now| {
            let new = *now != pods;
            *now = pods;
            new
        });
    }

    /// Follows the map, the namespace and the pods. Never returns.
    pub async fn keep(&self, mut insides: watch::Receiver<Option<Inside>>) -> ! {
        let mut pods = self.pods.subscribe();
        let mut changes = self.map.changes();
        loop {
            changes.mark_unchanged();
            let inside = insides.borrow_and_update().clone();
            pods.mark_unchanged();
            let mut nap = LOOKED_AT_EVERY;
            if let Some(inside) = inside
                && let Err(error) = self.bring(&inside).await
            {
                tracing::warn!(%error, "network policies could not be set; trying again");
                nap = AGAIN;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = insides.changed() => {}
                _ = pods.changed() => {}
                () = tokio::time::sleep(nap) => {
                    self.tables.lock().await.iter_mut().for_each(|tables| tables.unsure = true);
                }
            }
        }
    }

    /// Makes what follows from the map hold for the pods that are known by then. When it is done, it holds.
    pub async fn bring(&self, inside: &Inside) -> Result<(), Error> {
        let mut tables = self.tables.lock().await;
        let pods = self.pods.borrow().clone();
        let touched = self.map.touched_policies();
        let (slices, transfer) = (inside.slices, inside.transfer);
        let second = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => slices.v6_of(*ip).map(IpAddr::from),
            IpAddr::V6(_) => None,
        };
        let of_v6 = pods.iter().filter_map(|(ip, identity)| Some((second(ip)?, identity.clone()))).collect();
        let sides = [Some((transfer.v4(), pods)), slices.v6.map(|_| (transfer.v6(), of_v6))];
        // Until all is done, nothing is known for sure.
        let grounds = tables.each_mut().map(|tables| tables.ground.take());
        for ((tables, side), ground) in tables.iter_mut().zip(sides).zip(grounds) {
            if let Some((ends, pods)) = side {
                self.bring_side(tables, ground, inside, ends, pods, &touched).await?;
            }
        }
        Ok(())
    }

    /// One family's. `before`: what its table rested on.
    async fn bring_side(
        &self,
        tables: &mut Tables,
        before: Option<(NetnsId, Ends)>,
        inside: &Inside,
        ends: Ends,
        pods: Pods,
        touched: &TouchedPolicies,
    ) -> Result<(), Error> {
        let needed = self.map.read(|map| !map.policies.is_empty());
        let ground = (inside.netns.id(), ends);
        let same = before == Some(ground);
        let news = touched.policies || !touched.sets.is_empty() || tables.pods != pods;
        if same && !tables.unsure && needed == tables.model.stands() && !(needed && news) {
            tables.ground = Some(ground);
            return Ok(());
        }
        let family = family_of(ends.host);
        let kernel = Kernel::new(&inside.netns, family)?;
        let unsure = std::mem::take(&mut tables.unsure) && kernel.has_changed(&tables.model).await?;
        let known = same && !unsure;
        if !needed {
            if !known || tables.model.stands() {
                tables.model = kernel.remove().await?;
            }
            (tables.plan, tables.pods) = (Plan::default(), pods);
        } else {
            let found = known && tables.model.stands();
            if !found {
                tables.model = kernel.found(ends).await?;
            }
            let elements = self.map.read(|map| {
                if !found || touched.policies || tables.pods != pods {
                    (tables.plan, tables.pods) = (plan::plan(map, family, &pods), pods);
                }
                let news = tables.plan.sets.iter().filter(|(name, set)| {
                    let touched = set.of_map().is_some_and(|id| !found || touched.sets.contains(id));
                    touched || (set.of_map().is_some() && !tables.model.has(name))
                });
                news.map(|(name, set)| (name.clone(), set.elements(map, family))).collect()
            });
            tables.model.become_so(&kernel, &tables.plan, elements).await?;
        }
        tables.ground = Some(ground);
        Ok(())
    }
}
