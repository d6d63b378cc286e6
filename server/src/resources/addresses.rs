//! Rules for IP addresses, ranges and ports in specs.

use super::findings::Findings;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use longshore_api::field::Path;
use longshore_api::names;
use std::net::IpAddr;

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// An IP address, or an error.
pub fn ip(value: &str, path: &Path, found: &mut Findings) -> Option<IpAddr> {
    let ip = value.parse().ok();
    if ip.is_none() {
        found.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    ip
}

/// A range such as `10.0.0.0/8`, or an error.
pub fn cidr(value: &str, path: &Path, found: &mut Findings) -> Option<(IpAddr, u8)> {
    let parsed = value.split_once('/').and_then(|(ip, bits)| {
        let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
    });
    if parsed.is_none() {
        found.invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    parsed
}

/// An address that traffic may be sent to: none of the machine's own.
pub fn endpoint_ip(value: &str, path: &Path, found: &mut Findings) {
    let Ok(ip) = value.parse::<IpAddr>() else {
        found.invalid(path, value, "must be a valid IP address");
        return;
    };
    if ip.is_unspecified() {
        found.invalid(path, value, format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        found.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        found.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        found.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub fn port_number(port: i32, path: &Path, found: &mut Findings) {
    for sentence in names::port_number(port.into()) {
        found.invalid(path, port, sentence);
    }
}

pub fn port_number_or_name(port: &IntOrString, path: &Path, found: &mut Findings) {
    match port {
        IntOrString::Int(number) => port_number(*number, path, found),
        IntOrString::String(name) => found.each(path, name, names::port_name(name)),
    }
}

/// Two addresses must be one of each family. Says whether they are.
pub fn dual_stack(ips: &[&str]) -> bool {
    let families = |v4| ips.iter().filter(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == v4)).count();
    families(true) <= 1 && families(false) <= 1
}
