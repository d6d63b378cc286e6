//! Service addresses on this node: the kernel's tables follow the network map, by differences.
//!
//! One task keeps them. What a change of the map touches is planned anew ([`plan`]), and the elements in which the plans
//! differ are changed in one transaction. Where the task doesn't know what the kernel has (it has just begun, someone else
//! changed the ruleset, a transaction was refused), it reads that and changes what differs: connections, and the memory of
//! whom clients stay with, live through restarts of the agent.

mod kernel;
mod plan;
mod table;

use super::links::Ends;
use super::map::{Known, Map};
use super::ruleset::family_of;
use super::{Error, Inside, names};
pub(super) use kernel::host_table;
use kernel::{Kernel, Model};
use longshore_api::network::{Name, Protocol};
use nlink::netlink::namespace::{Netns, NetnsId};
use nlink::netlink::nftables::Family;
use plan::{Back, Front, Here, Plan};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use table::Ranges;
use tokio::sync::watch;

/// How often it is looked at without a reason.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// What the tables rest on beside the map. When it changes, all is looked at.
#[derive(Clone, PartialEq)]
struct Ground {
    netns: NetnsId,
    side: Side,
    here: Here,
    ranges: Ranges,
}

/// One family's part of the namespace.
#[derive(Clone, Copy, PartialEq)]
struct Side {
    gateway: IpAddr,
    ends: Ends,
}

impl Side {
    /// IPv4's, and IPv6's where there is IPv6.
    fn all(inside: &Inside) -> [Option<Self>; 2] {
        let (slices, transfer) = (inside.slices, inside.transfer);
        let v4 = Self { gateway: super::addresses::gateway(slices.v4).into(), ends: transfer.v4() };
        let v6 = slices.gateway_v6().map(|gateway| Self { gateway: gateway.into(), ends: transfer.v6() });
        [Some(v4), v6]
    }
}

/// What the keeper works with.
pub(super) struct Keeper {
    pub map: Arc<Known>,
    pub node: String,
    pub host: Netns,
    pub names: names::Names,
    /// The cluster's namespace, as it was last made.
    pub insides: watch::Receiver<Option<Inside>>,
    /// The addresses of this node's pods.
    pub pods: watch::Receiver<BTreeSet<Ipv4Addr>>,
}

impl Keeper {
    /// Never returns.
    pub async fn keep(mut self) {
        let mut tables = [Tables::default(), Tables::default()];
        let mut changes = self.map.changes();
        loop {
            changes.mark_unchanged();
            self.pods.mark_unchanged();
            let inside = self.insides.borrow_and_update().clone();
            let mut nap = LOOKED_AT_EVERY;
            if let Some(inside) = inside
                && let Err(error) = self.bring(&mut tables, &inside).await
            {
                tracing::warn!(%error, "service addresses could not be set; trying again");
                tables.iter_mut().for_each(|tables| tables.ground = None);
                nap = AGAIN;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = self.insides.changed() => {}
                _ = self.pods.changed() => {}
                () = tokio::time::sleep(nap) => tables.iter_mut().for_each(|tables| tables.unsure = true),
            }
        }
    }

    /// After an error nothing is known of any table.
    async fn bring(&self, tables: &mut [Tables; 2], inside: &Inside) -> Result<(), Error> {
        let touched = self.map.touched_services();
        for (tables, side) in tables.iter_mut().zip(Side::all(inside)) {
            if let Some(side) = side {
                self.bring_side(tables, inside, side, touched.clone()).await?;
            }
        }
        Ok(())
    }

    async fn bring_side(
        &self,
        tables: &mut Tables,
        inside: &Inside,
        side: Side,
        touched: BTreeSet<Name>,
    ) -> Result<(), Error> {
        let ground = self.map.read(|map| self.ground(map, inside, side));
        let family = family_of(side.gateway);
        let kernel = Kernel::new(&inside.netns, &self.host, &self.names, family)?;
        let same = tables.ground.as_ref() == Some(&ground);
        let unsure = std::mem::take(&mut tables.unsure) && kernel.has_changed(&tables.model).await?;
        let known = same && !unsure && !tables.model.contested;
        if !known {
            tables.ground = None;
            tables.model = kernel.found(side.gateway, side.ends, ground.ranges).await?;
        }
        let names: BTreeSet<Name> = match known {
            true => touched,
            false => {
                let planned = tables.plans.keys().cloned();
                self.map.read(|map| map.services.keys().cloned().chain(planned).collect())
            }
        };
        let mut gone = HashSet::new();
        let plans: Vec<(Name, Plan)> = self.map.read(|map| {
            let plan = |name: Name| {
                let before = tables.plans.get(&name);
                let plan = plan::plan(map, &name, &ground.here, before.unwrap_or(&Plan::default()));
                gone.extend(before.into_iter().flat_map(|before| gone_backs(before, &plan)));
                (name, plan)
            };
            names.into_iter().map(plan).collect()
        });
        let address = |pod: Ipv4Addr| match family {
            Family::Ip6 => inside.slices.v6_of(pod).map(IpAddr::from),
            _ => Some(IpAddr::from(pod)),
        };
        let own = self.pods.borrow().iter().copied().filter_map(address).map(table::own).collect();
        // Until all is done, nothing is known for sure.
        tables.ground = None;
        if known {
            let replaced = plans.iter().filter_map(|(name, _)| tables.plans.get(name));
            tables.model.change(&kernel, replaced, plans.iter().map(|(_, plan)| plan), own).await?;
        } else {
            tables.model.become_so(&kernel, plans.iter().map(|(_, plan)| plan), own).await?;
        }
        for (name, plan) in plans {
            match plan == Plan::default() {
                true => tables.plans.remove(&name),
                false => tables.plans.insert(name, plan),
            };
        }
        kernel.forget_connections(&gone).await?;
        tables.ground = Some(ground);
        Ok(())
    }

    fn ground(&self, map: &Map, inside: &Inside, side: Side) -> Ground {
        let zone = map.nodes.get(&self.node).map(|n| n.zone.clone()).unwrap_or_default();
        let here = Here { node: self.node.clone(), zone, host_ports: side.ends.host_ports };
        let cluster = &map.cluster;
        let (pods, services) = match side.gateway {
            IpAddr::V4(_) => (&cluster.pod_range, &cluster.service_range),
            IpAddr::V6(_) => (&cluster.pod_range_v6, &cluster.service_range_v6),
        };
        Ground {
            netns: inside.netns.id(),
            side,
            here,
            ranges: Ranges { pods: pods.parse().ok(), services: services.parse().ok() },
        }
    }
}

#[derive(Default)]
struct Tables {
    /// None while it isn't known what the kernel has.
    ground: Option<Ground>,
    /// Someone else may have changed it.
    unsure: bool,
    plans: HashMap<Name, Plan>,
    model: Model,
}

/// UDP has no end of its own: who was sent to an endpoint that is gone must be sent anew.
fn gone_backs<'a>(before: &'a Plan, after: &Plan) -> impl Iterator<Item = (Front, Back)> + use<'a> {
    let of = |plan: &Plan| -> BTreeSet<(Front, Back)> {
        let udp = plan.slots.iter().filter(|((_, front, _), _)| front.protocol == Protocol::Udp);
        udp.map(|((_, front, _), back)| (*front, *back)).collect()
    };
    let still = of(after);
    of(before).into_iter().filter(move |pair| !still.contains(pair))
}
