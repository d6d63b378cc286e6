//! Cables and routes: idempotent, each step looks before it acts and mends what is there.
//!
//! ```text
//! pod: eth0 ── pod-… ┐                                  ┌ the host's routes
//! pod: eth0 ── pod-… ┤ routes (gateway on lo) … uplink ─┴ ls-…
//!                    └ mesh: the other nodes' pods
//! ```
//!
//! Pods share no segment: each has a cable of its own and all it sends passes the namespace's routes, so that translations
//! hold both ways between pods of one node, and what isn't from the cable's own address is dropped.

use super::addresses::{self, Slices};
use super::v6;
use super::{Error, host, names};
use ipnet::{Ipv4Net, Ipv6Net};
use nlink::netlink::link::VethLink;
use nlink::netlink::messages::LinkMessage;
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::types::route::{RouteScope, RouteType};
use nlink::netlink::{Connection, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const UPLINK: &str = "uplink";
/// The way to other nodes' pods, where there is one.
pub const MESH: &str = "mesh";
/// The metric of routes that count where no other does.
const LAST: u32 = 4096;
/// Also carries the pods' gateway, and the addresses of services that this node answers itself.
const LOOPBACK: &str = "lo";
/// What a pod sees.
const ETH0: &str = "eth0";

pub type Netlink = Connection<Route>;

/// The addresses of the cable between host and namespace: a /30 of its own, all four in use, as both ends know each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer(pub Ipv4Net);

impl Transfer {
    /// The host's end.
    pub fn host(&self) -> Ipv4Addr {
        self.nth(0)
    }
    /// The namespace's end.
    pub fn inside(&self) -> Ipv4Addr {
        self.nth(1)
    }
    /// Where the host sends what comes to a pod's port on it; apart from the namespace's own ports.
    pub fn host_ports(&self) -> Ipv4Addr {
        self.nth(2)
    }
    /// Under which pods come in that asked for a port of the host, of this cluster and of others: the host itself and its
    /// own processes are somebody else.
    pub fn around(&self) -> Ipv4Addr {
        self.nth(3)
    }
    fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + n)
    }
    pub fn v4(&self) -> Ends {
        Ends {
            host: self.host().into(),
            inside: self.inside().into(),
            host_ports: self.host_ports().into(),
            around: self.around().into(),
        }
    }
    /// They end as those of IPv4 do, so that nobody has them who hasn't these.
    pub fn v6(&self) -> Ends {
        let of = |ip: Ipv4Addr| {
            IpAddr::from(Ipv6Addr::from(u128::from(host::TRANSFERS_V6.network()) + u128::from(u32::from(ip))))
        };
        Ends {
            host: of(self.host()),
            inside: of(self.inside()),
            host_ports: of(self.host_ports()),
            around: of(self.around()),
        }
    }
}

/// A transfer's addresses of one family; what each is for says [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub host: IpAddr,
    pub inside: IpAddr,
    pub host_ports: IpAddr,
    pub around: IpAddr,
}

pub(super) fn doing(what: &str) -> impl FnOnce(nlink::Error) -> Error {
    let what = what.to_owned();
    move |e| Error::netlink(&what, e)
}

async fn link(netlink: &Netlink, name: &str) -> Result<Option<LinkMessage>, Error> {
    netlink.get_link_by_name(name).await.map_err(doing("look at an interface"))
}

/// Its first index, made by `make` when there is none of that name.
async fn index(netlink: &Netlink, name: &str) -> Result<u32, Error> {
    match link(netlink, name).await? {
        Some(found) => Ok(found.ifindex()),
        None => Err(Error::Gone(format!("interface {name}"))),
    }
}

/// As [`ranges_v4`], of both families. `pods`: the cluster's ranges, as far as they are known.
pub async fn ranges(inside: &Netlink, slices: Slices, pods: (Option<Ipv4Net>, Option<Ipv6Net>)) -> Result<(), Error> {
    ranges_v4(inside, slices.v4, pods.0).await?;
    let Some(slice) = slices.v6 else { return Ok(()) };
    let mesh = link(inside, MESH).await?.filter(LinkMessage::is_up).map(|mesh| mesh.ifindex());
    v6::ranges(inside, slice, pods.1, mesh, LAST).await
}

/// Who isn't there is unreachable: packets to nobody in the pod range go nowhere, above all not out under the host's address.
/// The rest of the range is the mesh's while that is there; behind it the other route waits, for a device that goes takes
/// its routes along.
async fn ranges_v4(inside: &Netlink, slice: Ipv4Net, pods: Option<Ipv4Net>) -> Result<(), Error> {
    let failed = || doing("set the pod range's routes");
    let to = |range: Ipv4Net| Ipv4Route::from_addr(range.network(), range.prefix_len());
    inside.replace_route(to(slice).route_type(RouteType::Unreachable)).await.map_err(failed())?;
    let Some(pods) = pods.filter(|pods| pods.trunc() != slice) else { return Ok(()) };
    inside.replace_route(to(pods).route_type(RouteType::Unreachable).metric(LAST)).await.map_err(failed())?;
    match link(inside, MESH).await? {
        Some(mesh) if mesh.is_up() => {
            let route = to(pods).dev_index(mesh.ifindex()).scope(RouteScope::Link);
            inside.replace_route(route).await.map_err(failed())
        }
        _ => Ok(()),
    }
}

/// Makes `wanted` the one IPv4 address of an interface.
async fn only_address(netlink: &Netlink, index: u32, wanted: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    let failed = || doing("set an address");
    let mut there = false;
    for address in netlink.get_addresses_by_index(index).await.map_err(failed())? {
        let Some(IpAddr::V4(ip)) = address.local().or(address.address()) else { continue };
        if (*ip, address.prefix_len()) == (wanted, prefix) {
            there = true;
        } else {
            netlink.del_address_by_index(index, (*ip).into(), address.prefix_len()).await.map_err(failed())?;
        }
    }
    match there {
        true => Ok(()),
        false => netlink.add_address_by_index(index, wanted.into(), prefix).await.map_err(failed()),
    }
}

/// The cable to the host, its addresses, and the way out of the namespace.
pub async fn uplink(
    (inside, inside_netns): (&Netlink, &Netns),
    (host, host_netns): (&Netlink, &Netns),
    names: &names::Names,
    transfer: Transfer,
    with_v6: bool,
    mtu: u32,
) -> Result<(), Error> {
    let failed = || doing("make the cable to the host");
    let outer = names.uplink();
    let (near, far) = (link(inside, UPLINK).await?, link(host, &outer).await?);
    if !near.as_ref().zip(far.as_ref()).is_some_and(|(near, far)| is_pair(near, far)) {
        inside.del_link_if_exists(UPLINK).await.map_err(failed())?;
        host.del_link_if_exists(outer.as_str()).await.map_err(failed())?;
        let cable = VethLink::new(UPLINK, &outer).mtu(mtu).peer_netns_fd(host_netns);
        inside.add_link(cable).await.map_err(failed())?;
        host.set_link_alias(outer.as_str(), &names.alias).await.map_err(failed())?;
    }
    let (near, far) = (index(inside, UPLINK).await?, index(host, &outer).await?);
    only_address(inside, near, transfer.inside(), 31).await?;
    only_address(host, far, transfer.host(), 31).await?;
    inside.set_link_up_by_index(near).await.map_err(failed())?;
    host.set_link_up_by_index(far).await.map_err(failed())?;
    let way_out = Ipv4Route::default_route().gateway(transfer.host()).dev_index(near);
    inside.replace_route(way_out).await.map_err(failed())?;
    let ports = Ipv4Route::from_addr(transfer.host_ports(), 32).gateway(transfer.inside()).dev_index(far);
    host.replace_route(ports).await.map_err(failed())?;
    match with_v6 {
        true => {
            v6::uplink((inside, inside_netns, near), (host, host_netns, far), (UPLINK, &outer), transfer.v6()).await
        }
        false => Ok(()),
    }
}

fn is_pair(one: &LinkMessage, other: &LinkMessage) -> bool {
    one.link() == Some(other.ifindex()) && other.link() == Some(one.ifindex())
}

/// The loopback interface, up.
pub(super) async fn loopback(netlink: &Netlink) -> Result<u32, Error> {
    let index = index(netlink, LOOPBACK).await?;
    netlink.set_link_up_by_index(index).await.map_err(doing("bring up the loopback interface"))?;
    Ok(index)
}

/// Lets the namespace answer for exactly these addresses of IPv4.
pub async fn answer_for(inside: &Netlink, addresses: &[Ipv4Addr]) -> Result<(), Error> {
    let failed = || doing("set an address of the node's own");
    let index = loopback(inside).await?;
    let mut missing: Vec<Ipv4Addr> = addresses.to_vec();
    for address in inside.get_addresses_by_index(index).await.map_err(failed())? {
        let Some(IpAddr::V4(ip)) = address.local().or(address.address()) else { continue };
        if ip.is_loopback() {
            continue;
        }
        match missing.iter().position(|wanted| wanted == ip) {
            Some(at) => drop(missing.swap_remove(at)),
            None => {
                inside.del_address_by_index(index, (*ip).into(), address.prefix_len()).await.map_err(failed())?;
            }
        }
    }
    for ip in missing {
        inside.add_address_by_index(index, ip.into(), 32).await.map_err(failed())?;
    }
    Ok(())
}

/// A pod's cable: `eth0` in its namespace with its address and the way out, the other end with the route to it.
pub async fn attach(
    inside: &Netlink,
    namespace: &Netns,
    pod: &Netns,
    uid: &str,
    address: Ipv4Addr,
    slices: Slices,
    mtu: u32,
) -> Result<(), Error> {
    let failed = || doing("connect a pod");
    let gateway = addresses::gateway(slices.v4);
    let in_pod = Netlink::new_in(pod).map_err(failed())?;
    let name = names::pod_link(uid);
    let (near, far) = (link(inside, &name).await?, link(&in_pod, ETH0).await?);
    if !near.as_ref().zip(far.as_ref()).is_some_and(|(near, far)| is_pair(near, far)) {
        inside.del_link_if_exists(name.as_str()).await.map_err(failed())?;
        in_pod.del_link_if_exists(ETH0).await.map_err(failed())?;
        let cable = VethLink::new(&name, ETH0).mtu(mtu).peer_address(hardware(address)).peer_netns_fd(pod);
        inside.add_link(cable).await.map_err(failed())?;
    }
    let (near, far) = (index(inside, &name).await?, index(&in_pod, ETH0).await?);
    inside.set_link_alias_by_index(near, uid).await.map_err(failed())?;
    // Strict: a packet whose sender isn't at this cable is dropped.
    namespace.sysctl().set(&format!("net.ipv4.conf.{name}.rp_filter"), "1").map_err(failed())?;
    let second = slices.v6_of(address).zip(slices.gateway_v6());
    if second.is_some() {
        v6::prepare_cable(namespace, &name, pod, ETH0)?;
    }
    inside.set_link_up_by_index(near).await.map_err(failed())?;
    in_pod.set_link_up(LOOPBACK).await.map_err(failed())?;
    only_address(&in_pod, far, address, 32).await?;
    in_pod.set_link_up_by_index(far).await.map_err(failed())?;
    let to_gateway = Ipv4Route::from_addr(gateway, 32).dev_index(far).scope(RouteScope::Link);
    in_pod.replace_route(to_gateway).await.map_err(failed())?;
    in_pod.replace_route(Ipv4Route::default_route().gateway(gateway).dev_index(far)).await.map_err(failed())?;
    let to_pod = Ipv4Route::from_addr(address, 32).dev_index(near).scope(RouteScope::Link).prefsrc(gateway);
    inside.replace_route(to_pod).await.map_err(failed())?;
    match second {
        Some((address, gateway)) => v6::attach((inside, near), (&in_pod, far), address, gateway).await,
        None => Ok(()),
    }
}

/// Follows from the address, so that what others remember of an address stays right when its pod is made anew.
fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // Locally administered, to one station.
    [0x0a, 0x4c, a, b, c, d]
}

pub async fn detach(inside: &Netlink, uid: &str) -> Result<(), Error> {
    inside.del_link_if_exists(names::pod_link(uid).as_str()).await.map(drop).map_err(doing("disconnect a pod"))
}

/// Takes away the cables of all other pods.
pub async fn retain(inside: &Netlink, uids: &[String]) -> Result<(), Error> {
    let failed = || doing("take away the cables of pods that are gone");
    let kept: Vec<String> = uids.iter().map(|uid| names::pod_link(uid)).collect();
    for found in inside.get_links().await.map_err(failed())? {
        let name = found.name_or("");
        if name.starts_with(names::POD_LINK) && !kept.iter().any(|k| k == name) {
            inside.del_link_if_exists(name).await.map_err(failed())?;
        }
    }
    Ok(())
}
