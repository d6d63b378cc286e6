//! Under which names and addresses this machine is reached.

use std::net::{IpAddr, SocketAddr};

/// The host's name, as the kernel has it.
pub fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

/// Addresses of all interfaces that are up; loopback last, link-local ones left out.
pub fn addresses() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80))
        .collect();
    found.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    found.dedup();
    found
}

/// What a certificate for this listener must name.
pub fn certificate_names(listen: SocketAddr, advertise_host: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_string(), hostname(), advertise_host.to_string()];
    if listen.ip().is_unspecified() {
        names.extend(addresses().iter().map(ToString::to_string));
    } else {
        names.push(listen.ip().to_string());
    }
    names.extend(["127.0.0.1".to_string(), "::1".to_string()]);
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// `https://host:port` for others to reach a listener: its address, or for one on all interfaces this machine's first.
pub fn default_advertise(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        ip if ip.is_unspecified() => addresses().first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

/// The host in a base URL, without port and brackets.
pub fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_loopback_and_the_listener() {
        let names = certificate_names("10.1.2.3:7480".parse().unwrap(), "longshore.example");
        for name in ["localhost", "127.0.0.1", "::1", "10.1.2.3", "longshore.example"] {
            assert!(names.contains(&name.to_string()), "{name} in {names:?}");
        }
    }

    #[test]
    fn takes_hosts_out_of_urls() {
        assert_eq!(host_of("https://a.example:7480").as_deref(), Some("a.example"));
        assert_eq!(host_of("https://[::1]:7480").as_deref(), Some("::1"));
        assert_eq!(host_of("nonsense url"), None);
    }
}
