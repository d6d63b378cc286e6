//! `/etc/hosts` and `/etc/resolv.conf` of a pod. Pure.

use crate::pods::spec;
use k8s_openapi::api::core::v1::Pod;
use longshore_api::network::DOMAIN;
use std::net::IpAddr;

/// The name a pod's containers see: `spec.hostname` or the pod's name, at most 63 characters.
pub fn hostname(pod: &Pod) -> String {
    let wanted = pod.spec.as_ref().and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let name = wanted.unwrap_or_else(|| spec::name(pod).to_owned());
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// `api` is where the cluster's API server is found, for pods that no name server tells it; `host` the host's own file.
pub fn hosts(pod: &Pod, ips: &[IpAddr], api: Option<IpAddr>, host: &str) -> String {
    let mut text = if spec::host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let name = hostname(pod);
        let subdomain = pod.spec.as_ref().and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
        for ip in ips {
            text += &match subdomain {
                Some(sub) => format!("{ip}\t{name}.{sub}.{}.svc.{DOMAIN}\t{name}\n", spec::namespace(pod)),
                None => format!("{ip}\t{name}\n"),
            };
        }
        text
    };
    if let Some(api) = api {
        text += &format!(
            "{api}\tkubernetes.default.svc.{DOMAIN}\tkubernetes.default.svc\tkubernetes.default\tkubernetes\n"
        );
    }
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            text += &format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
        }
    }
    text
}

/// By `dnsPolicy`: the cluster's name servers, the host's, or only what `dnsConfig` says. Without a name server of the
/// cluster, `ClusterFirst` falls back to the host's, as a kubelet without `clusterDNS` does.
pub fn resolv_conf(pod: &Pod, cluster: &[IpAddr], host: &str) -> String {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let policy = pod_spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let in_host = parse(host);
    let use_cluster = !cluster.is_empty()
        && (policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !spec::host_network(pod)));
    let mut dns = match policy {
        "None" => Dns::default(),
        _ if use_cluster => {
            let namespace = spec::namespace(pod);
            let mut searches = vec![format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()];
            searches.extend(in_host.searches);
            Dns { servers: cluster.iter().map(IpAddr::to_string).collect(), searches, options: vec!["ndots:5".into()] }
        }
        _ => in_host,
    };
    if let Some(config) = pod_spec.dns_config {
        append(&mut dns.servers, config.nameservers.unwrap_or_default());
        append(&mut dns.searches, config.searches.unwrap_or_default());
        for option in config.options.unwrap_or_default() {
            let name = option.name.unwrap_or_default();
            dns.options.retain(|o| o.split(':').next() != Some(&name));
            dns.options.push(option.value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
        }
    }
    // What the C library reads: three servers, and not more domains than Kubernetes allows.
    dns.servers.truncate(3);
    dns.searches.truncate(32);
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

#[derive(Default)]
struct Dns {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

fn append(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(Into::into)),
            Some("search" | "domain") => dns.searches = words.map(Into::into).collect(),
            Some("options") => dns.options = words.map(Into::into).collect(),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let pod = pod(
            json!({"containers": [], "subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}),
        );
        let text = hosts(&pod, &["10.1.0.5".parse().unwrap()], Some("10.96.0.1".parse().unwrap()), "");
        assert!(text.contains("\n10.96.0.1\tkubernetes.default.svc.cluster.local\tkubernetes.default.svc\t"), "{text}");
        assert!(text.contains("10.1.0.5\tweb-0.web.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn resolv_conf_by_policy() {
        let host = "search corp\nnameserver 9.9.9.9\noptions edns0\n";
        let servers: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap()];
        let plain = pod(json!({"containers": []}));
        assert_eq!(
            resolv_conf(&plain, &servers, host),
            "search ns.svc.cluster.local svc.cluster.local cluster.local corp\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&plain, &[], host), host);
        let none = pod(json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
        assert_eq!(resolv_conf(&none, &servers, host), "nameserver 1.1.1.1\noptions ndots:2 edns0\n");
        let by_host = pod(json!({"containers": [], "dnsPolicy": "Default"}));
        assert_eq!(resolv_conf(&by_host, &servers, host), host);
    }

    #[test]
    fn hostnames_are_cut_to_a_label() {
        let mut long = pod(json!({"containers": []}));
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b"));
        assert_eq!(hostname(&long), "a".repeat(62));
    }
}
