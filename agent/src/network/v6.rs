//! What IPv6 takes beside IPv4 on cables and in namespaces: addresses without the wait for duplicates (they can have none
//! here), routers by their link-local address, and nothing believed that neighbours announce.

use super::host::TRANSFERS_V6;
use super::links::{self, Ends, Netlink, doing};
use super::{Error, addresses::Slices, names};
use ipnet::Ipv6Net;
use nlink::netlink::addr::Ipv6Address;
use nlink::netlink::namespace::Netns;
use nlink::netlink::route::Ipv6Route;
use nlink::netlink::sysctl::ipv6_conf_key;
use nlink::netlink::types::route::RouteType;
use std::net::{IpAddr, Ipv6Addr};

/// The namespace's end of every pod's cable: a link-local address is the cable's own, so all may have the same.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Between two ends.
const CABLE: u8 = 127;

fn conf(netns: &Netns, what: &str, device: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    for (setting, value) in settings {
        netns.sysctl().set(&ipv6_conf_key(device, setting), value).map_err(doing(what))?;
    }
    Ok(())
}

/// Whether the host has IPv6, and nobody has turned it off there.
pub fn is_on(host: &Netns) -> bool {
    host.sysctl().get(&ipv6_conf_key("all", "disable_ipv6")).is_ok_and(|off| off.trim() == "0")
}

/// The cluster's namespace passes packets on and has the pods' router. An error: this kernel can't.
pub async fn prepare(netns: &Netns, netlink: &Netlink, slices: Slices) -> Result<(), Error> {
    const DOING: &str = "give the cluster's network namespace IPv6";
    conf(netns, DOING, "all", &[("disable_ipv6", "0"), ("forwarding", "1")])?;
    conf(netns, DOING, "default", &[("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_redirects", "0")])?;
    conf(netns, DOING, "lo", &[("disable_ipv6", "0")])?;
    let own = slices.gateway_v6();
    let index = links::loopback(netlink).await?;
    set_addresses(netlink, index, own.map(|ip| (ip, 128)), DOING).await
}

/// Makes `wanted` the one address of an interface, beside those that the kernel gives itself.
async fn set_addresses(netlink: &Netlink, index: u32, wanted: Option<(Ipv6Addr, u8)>, what: &str) -> Result<(), Error> {
    let mut there = false;
    for address in netlink.get_addresses_by_index(index).await.map_err(doing(what))? {
        let Some(IpAddr::V6(ip)) = address.local().or(address.address()) else { continue };
        if wanted == Some((*ip, address.prefix_len())) {
            there = true;
        } else if !ip.is_loopback() && !ip.is_unicast_link_local() {
            netlink.del_address_by_index(index, (*ip).into(), address.prefix_len()).await.map_err(doing(what))?;
        }
    }
    match wanted.filter(|_| !there) {
        Some((ip, prefix)) => {
            netlink.add_address(Ipv6Address::with_index(index, ip, prefix).nodad()).await.map_err(doing(what))
        }
        None => Ok(()),
    }
}

/// As [`links::ranges`]. `mesh`: the index of its device, while that is up; `last`: the metric of what counts otherwise.
pub async fn ranges(
    inside: &Netlink,
    slice: Ipv6Net,
    pods: Option<Ipv6Net>,
    mesh: Option<u32>,
    last: u32,
) -> Result<(), Error> {
    let failed = || doing("set the pod range's routes");
    let to = |range: Ipv6Net| Ipv6Route::from_addr(range.network(), range.prefix_len());
    inside.replace_route(to(slice).route_type(RouteType::Unreachable)).await.map_err(failed())?;
    let Some(pods) = pods.filter(|pods| pods.trunc() != slice) else { return Ok(()) };
    inside.replace_route(to(pods).route_type(RouteType::Unreachable).metric(last)).await.map_err(failed())?;
    match mesh {
        Some(mesh) => inside.replace_route(to(pods).dev_index(mesh)).await.map_err(failed()),
        None => Ok(()),
    }
}

/// The cable to the host. Each end: where, the namespace, the interface's index; `names`: what it is called at both.
pub async fn uplink(
    inside: (&Netlink, &Netns, u32),
    host: (&Netlink, &Netns, u32),
    names: (&str, &str),
    ends: Ends,
) -> Result<(), Error> {
    const DOING: &str = "make the cable to the host";
    let (IpAddr::V6(near), IpAddr::V6(far), IpAddr::V6(ports)) = (ends.inside, ends.host, ends.host_ports) else {
        return Ok(());
    };
    for ((netlink, netns, index), name, address) in [(inside, names.0, near), (host, names.1, far)] {
        conf(netns, DOING, name, &[("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")])?;
        set_addresses(netlink, index, Some((address, CABLE)), DOING).await?;
    }
    let way_out = Ipv6Route::default_route().gateway(far).dev_index(inside.2);
    inside.0.replace_route(way_out).await.map_err(doing(DOING))?;
    let ports = Ipv6Route::from_addr(ports, 128).gateway(near).dev_index(host.2);
    host.0.replace_route(ports).await.map_err(doing(DOING))
}

/// The host's own route to its pods.
pub async fn route(host: &Netlink, uplink: &str, ends: Ends, slice: Ipv6Net) -> Result<(), Error> {
    let IpAddr::V6(inside) = ends.inside else { return Ok(()) };
    let route = Ipv6Route::from_addr(slice.network(), slice.prefix_len()).gateway(inside).dev(uplink);
    host.replace_route(route).await.map_err(doing("set the host's route to its pods"))
}

/// Without it no packet of a pod leaves the machine; a host that has no IPv6 with anybody stays as it is. One that learns its
/// own way out from a router goes on doing so: by itself the kernel stops that when it passes packets on.
pub async fn forward(netlink: &Netlink, host: &Netns, names: &names::Names) -> Result<(), Error> {
    const DOING: &str = "let the host forward packets of IPv6";
    let others = |ip: &Ipv6Addr| !ip.is_loopback() && !ip.is_unicast_link_local() && !TRANSFERS_V6.contains(ip);
    let addresses = netlink.get_addresses().await.map_err(doing(DOING))?;
    let mut own = addresses.iter().filter_map(|address| address.local().or(address.address()));
    if !own.any(|ip| matches!(ip, IpAddr::V6(ip) if others(ip))) {
        return Ok(());
    }
    let sysctl = host.sysctl();
    if sysctl.get(&ipv6_conf_key("all", "forwarding")).map_err(doing(DOING))?.trim() == "1" {
        return Ok(());
    }
    let devices = host.run(|| -> std::io::Result<Vec<String>> {
        let devices = std::fs::read_dir("/proc/sys/net/ipv6/conf")?.flatten();
        Ok(devices.filter_map(|device| device.file_name().into_string().ok()).collect())
    });
    let devices = devices.map_err(doing(DOING))?.map_err(|e| Error::Failed(format!("could not {DOING}: {e}")))?;
    for device in devices.iter().filter(|device| *device != "all") {
        let key = ipv6_conf_key(device, "accept_ra");
        // One that is gone meanwhile needs nothing.
        if sysctl.get(&key).is_ok_and(|accepts| accepts.trim() == "1") {
            let _ = sysctl.set(&key, "2");
        }
    }
    sysctl.set(&ipv6_conf_key("all", "forwarding"), "1").map_err(doing(DOING))?;
    tracing::warn!("net.ipv6.conf.all.forwarding is on from now on: {} needs it", names.uplink());
    Ok(())
}

/// Before a pod's cable is up: both of its ends take IPv6 (Docker turns it off), and believe no announcements.
pub fn prepare_cable(namespace: &Netns, near: &str, pod: &Netns, far: &str) -> Result<(), Error> {
    const DOING: &str = "connect a pod by IPv6";
    const SETTINGS: [(&str, &str); 3] = [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")];
    conf(namespace, DOING, near, &SETTINGS)?;
    conf(pod, DOING, "lo", &SETTINGS[..1])?;
    conf(pod, DOING, far, &SETTINGS)
}

/// A pod's cable, both ends up; each by its netlink and index.
pub async fn attach(
    (inside, near): (&Netlink, u32),
    (pod, far): (&Netlink, u32),
    address: Ipv6Addr,
    gateway: Ipv6Addr,
) -> Result<(), Error> {
    const DOING: &str = "connect a pod by IPv6";
    let known = inside.get_addresses_by_index(near).await.map_err(doing(DOING))?;
    if !known.iter().any(|known| known.address() == Some(&IpAddr::V6(ROUTER))) {
        inside.add_address(Ipv6Address::with_index(near, ROUTER, 64).nodad()).await.map_err(doing(DOING))?;
    }
    set_addresses(pod, far, Some((address, 128)), DOING).await?;
    pod.replace_route(Ipv6Route::default_route().gateway(ROUTER).dev_index(far)).await.map_err(doing(DOING))?;
    let to_pod = Ipv6Route::from_addr(address, 128).dev_index(near).prefsrc(gateway);
    inside.replace_route(to_pod).await.map_err(doing(DOING))
}
