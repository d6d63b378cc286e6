//! Addresses and node ports of Services: no two have the same, whoever asks first gets it.
//!
//! What is taken is read off the Services themselves, the committed ones, whenever the cluster has moved on since the last
//! look; nothing else is durable, so nothing can leak or drift. Between a service's admission and its commit its address is
//! reserved in memory, under the service's name: a second try of the same service may take it again.

use super::{Admission, Operation, errors, families};
use crate::apiserver::metadata;
use crate::resources::service::{self, RESOURCE};
use crate::resources::tree::{child, put};
use crate::store::{Cluster, ListQuery, Object, Revision};
use ipnet::IpNet;
use longshore_api::Status;
use longshore_api::field::{self, Path};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// The lowest ports are left to those who choose one themselves, as in Kubernetes (a 32nd of the range, 16 to 128).
const STATIC_PORTS: u16 = 86;
/// A write that isn't committed by then never will be.
const RESERVED_FOR: Duration = Duration::from_secs(60);
const PORT_TAKEN: &str = "provided port is already allocated";
const PORT_OUTSIDE: &str = "provided port is not in the valid range. The range of valid ports is 30000-32767";

/// `namespace/name` of a service.
type Owner = Arc<str>;

/// What is taken in one cluster.
#[derive(Default)]
struct Allocations(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    /// Up to which revision the services were read.
    read: Option<Revision>,
    services: HashMap<Owner, (Revision, Claims)>,
    ips: HashMap<IpAddr, Owner>,
    ports: HashMap<u16, Owner>,
    reserved_ips: HashMap<IpAddr, (Owner, Instant)>,
    reserved_ports: HashMap<u16, (Owner, Instant)>,
}

/// What one service holds.
#[derive(Clone, Default)]
struct Claims {
    ips: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Claims {
    fn of(tree: &Value) -> Self {
        let ips = tree["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let ports = tree["spec"]["ports"].as_array().into_iter().flatten().map(|p| &p["nodePort"]);
        let ports = ports.chain([&tree["spec"]["healthCheckNodePort"]]);
        Self {
            ips: ips.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
            ports: ports.filter_map(|p| u16::try_from(p.as_u64()?).ok()).filter(|p| *p != 0).collect(),
        }
    }
}

/// Gives a service what its type needs and refuses what another one has.
pub fn admit(admission: &Admission<'_>, tree: &mut Value) -> Result<(), Status> {
    let cluster = admission.cluster;
    let name = metadata::text(tree, "name").to_string();
    let old = admission.old.filter(|_| admission.operation == Operation::Update);
    let info = cluster.info();
    families::settle(tree, old, info.service_range_v6.is_some())
        .map_err(|errors| Status::invalid("", "Service", &name, &errors))?;
    let ranges = [Some(&info.service_range), info.service_range_v6.as_ref()];
    let ranges = ranges.into_iter().flatten().map(|range| Range::of(range)).collect::<Result<_, _>>()?;
    let allocations = cluster.companion::<Allocations>();
    let mut taken = allocations.0.lock();
    taken.refresh(cluster)?;
    let owner: Owner = format!("{}/{name}", metadata::text(tree, "namespace")).into();
    let mut claim = Claim { taken: &mut taken, owner, ranges, now: Instant::now(), errors: Vec::new() };
    if service::needs_cluster_ip(tree) && !service::is_headless(tree) {
        claim.address(tree)?;
    }
    if service::needs_node_ports(tree) {
        claim.ports(tree, old)?;
    }
    if service::needs_health_check(tree) {
        claim.health_port(tree)?;
    }
    let errors = std::mem::take(&mut claim.errors);
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Service", &name, &errors)) }
}

impl Taken {
    /// Reads what was committed since the last look.
    fn refresh(&mut self, cluster: &Cluster) -> Result<(), Status> {
        let now = Instant::now();
        self.reserved_ips.retain(|_, (_, until)| *until > now);
        self.reserved_ports.retain(|_, (_, until)| *until > now);
        if self.read == Some(cluster.revision()) {
            return Ok(());
        }
        let query = ListQuery { resource: RESOURCE.store_name().into(), ..ListQuery::default() };
        let listing = cluster.list(&query).map_err(errors::store)?;
        let mut services = HashMap::with_capacity(listing.items.len());
        for object in &listing.items {
            let owner = owner_of(object);
            let known = self.services.remove(&owner).filter(|(revision, _)| *revision == object.revision);
            let claims = known.map_or_else(|| Claims::of(&object.tree()), |(_, claims)| claims);
            services.insert(owner, (object.revision, claims));
        }
        self.services = services;
        self.ips.clear();
        self.ports.clear();
        for (owner, (_, claims)) in &self.services {
            self.ips.extend(claims.ips.iter().map(|ip| (*ip, owner.clone())));
            self.ports.extend(claims.ports.iter().map(|port| (*port, owner.clone())));
        }
        self.read = Some(listing.revision);
        Ok(())
    }

    fn ip_is_free(&self, ip: IpAddr, owner: &Owner) -> bool {
        let holder = self.ips.get(&ip).or(self.reserved_ips.get(&ip).map(|(holder, _)| holder));
        holder.is_none_or(|holder| holder == owner)
    }

    fn port_is_free(&self, port: u16, owner: &Owner) -> bool {
        let holder = self.ports.get(&port).or(self.reserved_ports.get(&port).map(|(holder, _)| holder));
        holder.is_none_or(|holder| holder == owner)
    }
}

fn owner_of(object: &Object) -> Owner {
    format!("{}/{}", object.key.namespace, object.key.name).into()
}

/// One of the cluster's service ranges, without its first (the network's) address, and of IPv4 its last (the broadcast) one.
#[derive(Clone, Copy)]
pub(super) struct Range(IpNet);

impl Range {
    pub(super) fn of(cidr: &str) -> Result<Self, Status> {
        let wide = |range: &IpNet| match range {
            IpNet::V4(range) => (8..=30).contains(&range.prefix_len()),
            IpNet::V6(range) => (8..=126).contains(&range.prefix_len()),
        };
        let parsed = cidr.parse::<IpNet>().ok().filter(wide).map(|range| Self(range.trunc()));
        parsed.ok_or_else(|| Status::internal("the cluster's service range is no range of IP addresses"))
    }

    /// The address that `kubernetes.default` has.
    pub(super) fn first(&self) -> IpAddr {
        self.at(1)
    }

    /// The address that `kube-dns` has, as Kubernetes's users expect; none where the range is smaller.
    pub(super) fn tenth(&self) -> Option<IpAddr> {
        (self.size() >= 10).then(|| self.at(10))
    }

    /// How many addresses can be given: of IPv6 no more than Kubernetes gives.
    fn size(&self) -> u32 {
        match self.0 {
            IpNet::V4(range) => (1 << (32 - range.prefix_len())) - 2,
            IpNet::V6(range) => (1 << (128 - range.prefix_len()).min(16)) - 1,
        }
    }

    fn at(&self, index: u32) -> IpAddr {
        match self.0 {
            IpNet::V4(range) => Ipv4Addr::from(u32::from(range.network()) + index).into(),
            IpNet::V6(range) => Ipv6Addr::from(u128::from(range.network()) + u128::from(index)).into(),
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip) && (self.at(1)..=self.at(self.size())).contains(&ip)
    }

    fn is_of(&self, family: &str) -> bool {
        matches!((self.0, family), (IpNet::V4(_), "IPv4") | (IpNet::V6(_), "IPv6"))
    }

    /// The low end is left to those who choose an address themselves (a 16th of the range, 16 to 256).
    fn chosen(&self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size())
    }
}

/// One service's request.
struct Claim<'a> {
    taken: &'a mut Taken,
    owner: Owner,
    ranges: Vec<Range>,
    now: Instant,
    errors: Vec<field::Error>,
}

impl Claim<'_> {
    fn address(&mut self, tree: &mut Value) -> Result<(), Status> {
        let path = Path::new("spec").child("clusterIPs");
        let asked = tree["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        let families = tree["spec"]["ipFamilies"].as_array().cloned().unwrap_or_default();
        let mut given = asked.clone();
        for family in families.iter().skip(asked.len()).filter_map(Value::as_str) {
            let Some(range) = self.ranges.iter().copied().find(|range| range.is_of(family)) else { continue };
            let ip = self.free_ip(range);
            let ip = ip.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
            given.push(json!(ip.to_string()));
        }
        if given.len() > asked.len()
            && let Some(spec) = child(tree, "spec")
        {
            spec.insert("clusterIP".into(), given[0].clone());
            spec.insert("clusterIPs".into(), json!(given));
        }
        for ip in &asked {
            // What is no address is for validation to refuse.
            let Some(ip) = ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
            let why = if !self.ranges.iter().any(|range| range.contains(ip)) {
                "the provided network does not match the current range"
            } else if !self.taken.ip_is_free(ip, &self.owner) {
                "provided IP is already allocated"
            } else {
                self.reserve_ip(ip);
                continue;
            };
            self.errors.push(field::Error::invalid(&path, asked.clone(), format!("failed to allocate IP {ip}: {why}")));
        }
        Ok(())
    }

    fn reserve_ip(&mut self, ip: IpAddr) {
        self.taken.reserved_ips.insert(ip, (self.owner.clone(), self.now + RESERVED_FOR));
    }

    /// A free address: from a random place on in the upper part, then in the lower.
    fn free_ip(&mut self, range: Range) -> Option<IpAddr> {
        let (chosen, size) = (range.chosen(), range.size());
        let upper = from_anywhere(chosen + 1, size).chain(from_anywhere(1, chosen));
        // A service whose first try came to nothing may have its reservation still; any free one will do.
        let ip = upper
            .map(|i| range.at(i))
            .find(|ip| !self.taken.ips.contains_key(ip) && !self.taken.reserved_ips.contains_key(ip))?;
        self.reserve_ip(ip);
        Some(ip)
    }

    fn ports(&mut self, tree: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let held = old.map(Claims::of).unwrap_or_default().ports;
        let Some(ports) = tree.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return Ok(()) };
        let path = Path::new("spec").child("ports");
        for (i, port) in ports.iter().enumerate() {
            let asked = port["nodePort"].as_i64().unwrap_or_default();
            if asked == 0 {
                continue;
            }
            let wrong = match u16::try_from(asked).ok().filter(|p| NODE_PORTS.contains(p)) {
                None => Some(PORT_OUTSIDE),
                Some(port) if held.contains(&port) || self.taken.port_is_free(port, &self.owner) => {
                    self.reserve_port(port);
                    None
                }
                Some(_) => Some(PORT_TAKEN),
            };
            if let Some(why) = wrong {
                self.errors.push(field::Error::invalid(&path.index(i).child("nodePort"), asked, why));
            }
        }
        for i in 0..ports.len() {
            if !ports[i].is_object() || ports[i]["nodePort"].as_i64().unwrap_or_default() != 0 {
                continue;
            }
            // The same port over TCP and UDP (DNS) is the same on the node, too.
            let (number, protocol) = (ports[i]["port"].clone(), ports[i]["protocol"].clone());
            let given = |p: &&Value| p["nodePort"].as_i64().unwrap_or_default() != 0;
            let twin = ports.iter().filter(given).find(|p| p["port"] == number && p["protocol"] != protocol);
            let port = match twin {
                Some(twin) => twin["nodePort"].clone(),
                None => json!(self.free_port()?),
            };
            ports[i]["nodePort"] = port;
        }
        Ok(())
    }

    fn health_port(&mut self, tree: &mut Value) -> Result<(), Status> {
        let asked = tree["spec"]["healthCheckNodePort"].as_i64().unwrap_or_default();
        if asked == 0 {
            let port = self.free_port()?;
            put(tree.get_mut("spec").unwrap_or(&mut Value::Null), "healthCheckNodePort", json!(port));
            return Ok(());
        }
        let path = Path::new("spec").child("healthCheckNodePort");
        match u16::try_from(asked).ok().filter(|p| NODE_PORTS.contains(p)) {
            None => self.errors.push(field::Error::invalid(&path, asked, PORT_OUTSIDE)),
            Some(port) if self.taken.port_is_free(port, &self.owner) => self.reserve_port(port),
            Some(_) => self.errors.push(field::Error::invalid(&path, asked, PORT_TAKEN)),
        }
        Ok(())
    }

    fn reserve_port(&mut self, port: u16) {
        self.taken.reserved_ports.insert(port, (self.owner.clone(), self.now + RESERVED_FOR));
    }

    fn free_port(&mut self) -> Result<u16, Status> {
        let (first, last) = (u32::from(*NODE_PORTS.start()), u32::from(*NODE_PORTS.end()));
        let chosen = first + u32::from(STATIC_PORTS);
        let mut free = from_anywhere(chosen, last).chain(from_anywhere(first, chosen - 1));
        let port = free.find_map(|p| {
            let port = u16::try_from(p).ok()?;
            (!self.taken.ports.contains_key(&port) && !self.taken.reserved_ports.contains_key(&port)).then_some(port)
        });
        let port = port.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        self.reserve_port(port);
        Ok(port)
    }
}

/// All numbers from `first` to `last`, beginning at a random one.
fn from_anywhere(first: u32, last: u32) -> impl Iterator<Item = u32> {
    let count = (last + 1).saturating_sub(first);
    let start = if count == 0 { 0 } else { rand::random_range(0..count) };
    (0..count).map(move |i| first + (start + i) % count)
}
