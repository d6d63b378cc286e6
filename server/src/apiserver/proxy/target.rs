//! Which port of which pod a proxy's path means.
//!
//! A Service's is found through its EndpointSlices, and only where an endpoint is a pod of the same namespace at that pod's
//! own address: what somebody wrote into a slice by hand (another host, the address of a machine's metadata) leads nowhere.

use super::super::api::{Api, Context};
use super::super::options::ListOptions;
use super::super::pod_place::PodPlace;
use crate::resources::registry;
use longshore_api::Status;
use longshore_api::selector::LabelSelector;
use serde_json::Value;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One port of a pod that has a node.
pub struct Target {
    pub pod: PodPlace,
    /// The pod's address, as it is known here: for comparing, never for connecting.
    pub address: String,
    pub port: u16,
    pub tls: bool,
}

/// `[scheme:]name[:port]`, as it stands in a path.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    tls: bool,
    name: &'a str,
    /// A number or a name; empty for the default.
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let tls = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { tls, name, port })
    }
}

impl Api {
    /// `resource` is `pods` or `services`.
    pub(super) async fn proxy_target(
        &self,
        cx: &Context,
        resource: &str,
        namespace: &str,
        id: &str,
    ) -> Result<Target, Status> {
        let kind = resource.trim_end_matches('s');
        let asked = Asked::parse(id).ok_or_else(|| Status::bad_request(format!("invalid {kind} request {id:?}")))?;
        if resource == "services" {
            return self.service_target(cx, namespace, &asked).await;
        }
        let pod = self.pod(cx, namespace, asked.name).await?;
        let port = pod_port(&pod, &asked)
            .ok_or_else(|| Status::bad_request(format!("pod {:?} has no port {:?}", asked.name, asked.port)))?;
        self.target(cx, &pod, port, asked.tls)
    }

    fn target(&self, cx: &Context, pod: &Value, port: u16, tls: bool) -> Result<Target, Status> {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
        let pod = PodPlace::of(self, cx, pod)?;
        match address.is_empty() {
            true => Err(Status::bad_request("address not allowed")),
            false => Ok(Target { pod, address, port, tls }),
        }
    }

    async fn service_target(&self, cx: &Context, namespace: &str, asked: &Asked<'_>) -> Result<Target, Status> {
        let services = registry().by_name("services").ok_or_else(Status::no_such_path)?;
        let service = self.get(cx, services, namespace, asked.name, &Default::default()).await?.tree();
        let port_name = service_port(&service, asked)?;
        let slices = registry().by_name("endpointslices.discovery.k8s.io").ok_or_else(Status::no_such_path)?;
        let labels = LabelSelector::parse(&format!("{SERVICE_NAME}={}", asked.name))
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let options = ListOptions { labels, ..ListOptions::default() };
        let page = self.list(cx, slices, Some(namespace), &options).await?;
        let slices: Vec<Value> = page.items.iter().map(|slice| slice.tree()).collect();
        let mut ready = endpoints(&slices, &port_name);
        if ready.is_empty() {
            let message = format!("no endpoints available for service {:?}", asked.name);
            return Err(Status::unavailable(message));
        }
        // Any of them; the others are for when it is none of our pods'.
        let first = rand::random_range(0..ready.len());
        ready.rotate_left(first);
        for endpoint in ready {
            let Some(name) = endpoint.pod else { continue };
            let Ok(pod) = self.pod(cx, namespace, &name).await else { continue };
            if has_address(&pod, &endpoint.address)
                && let Ok(target) = self.target(cx, &pod, endpoint.port, asked.tls)
            {
                return Ok(target);
            }
        }
        let message = format!("no endpoint of service {:?} is a pod of this cluster at its own address", asked.name);
        Err(Status::unavailable(message))
    }
}

/// The number that was asked for, else the container's of that name, else the first there is, else the scheme's.
fn pod_port(pod: &Value, asked: &Asked<'_>) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let found = match (asked.port, asked.port.parse()) {
        (_, Ok(number)) => Some(number),
        ("", _) => Some(ports.next().and_then(number).unwrap_or(if asked.tls { 443 } else { 80 })),
        (name, _) => ports.find(|port| port["name"] == name).and_then(number),
    };
    found.filter(|port| *port > 0)
}

/// The name of the service's port that is meant; a number stands for the service's own port.
fn service_port(service: &Value, asked: &Asked<'_>) -> Result<String, Status> {
    let Ok(number) = asked.port.parse::<i64>() else { return Ok(asked.port.into()) };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    match ports.find(|port| port["port"].as_i64() == Some(number)) {
        Some(port) => Ok(port["name"].as_str().unwrap_or_default().into()),
        None => Err(Status::unavailable(format!("no service port {number} found for service {:?}", asked.name))),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ReadyEndpoint {
    address: String,
    /// The pod it is said to be.
    pod: Option<String>,
    port: u16,
}

fn endpoints(slices: &[Value], port_name: &str) -> Vec<ReadyEndpoint> {
    let mut found = Vec::new();
    for slice in slices {
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
        let Some(port) = port.filter(|port| *port > 0) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            // Not said is ready.
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let Some(address) = endpoint["addresses"][0].as_str() else { continue };
            let reference = &endpoint["targetRef"];
            let pod = reference["name"].as_str().filter(|_| reference["kind"] == "Pod").map(String::from);
            found.push(ReadyEndpoint { address: address.into(), pod, port });
        }
    }
    found
}

fn has_address(pod: &Value, address: &str) -> bool {
    let mut addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    pod["status"]["podIP"] == address || addresses.any(|known| known["ip"] == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        let asked = |tls, name, port| Some(Asked { tls, name, port });
        assert_eq!(Asked::parse("web"), asked(false, "web", ""));
        assert_eq!(Asked::parse("web:8080"), asked(false, "web", "8080"));
        assert_eq!(Asked::parse("https:web:"), asked(true, "web", ""));
        assert_eq!(Asked::parse("http:web:admin"), asked(false, "web", "admin"));
        for bad in ["", ":80", "ftp:web:21", "a:b:c:d", "https::443"] {
            assert_eq!(Asked::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pods_port_is_the_one_that_is_meant() {
        let pod = json!({"spec": {"containers": [{}, {"ports": [
            {"containerPort": 8080}, {"name": "admin", "containerPort": 9000}]}]}});
        let port = |pod: &Value, text: &str| pod_port(pod, &Asked::parse(text).unwrap());
        for (text, want) in [
            ("p", Some(8080)),
            ("p:81", Some(81)),
            ("p:admin", Some(9000)),
            ("p:none", None),
            ("p:0", None),
            ("p:65536", None),
        ] {
            assert_eq!(port(&pod, text), want, "{text}");
        }
        assert_eq!(port(&json!({}), "https:p:"), Some(443));
    }

    #[test]
    fn endpoints_are_ready_ones_of_the_ports_name() {
        let endpoint = |ip: &str, ready: Value, pod: Value| json!({"addresses": [ip], "conditions": {"ready": ready}, "targetRef": pod});
        let reference = |kind: &str, name: &str| json!({"kind": kind, "name": name});
        let slices = [
            json!({"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 9000}], "endpoints": [
                endpoint("10.1.0.1", json!(true), reference("Pod", "a")),
                endpoint("10.1.0.2", json!(false), reference("Pod", "b")),
                endpoint("169.254.169.254", Value::Null, reference("Node", "c")),
            ]}),
            json!({"ports": [{"name": "other", "port": 1}], "endpoints": [endpoint("10.1.0.9", json!(true), Value::Null)]}),
        ];
        let found = endpoints(&slices, "admin");
        let ready = |address: &str, pod: Option<&str>| ReadyEndpoint {
            address: address.into(),
            pod: pod.map(String::from),
            port: 9000,
        };
        assert_eq!(found, [ready("10.1.0.1", Some("a")), ready("169.254.169.254", None)]);
        assert_eq!(endpoints(&slices, ""), []);
        let pod = json!({"status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
        assert!(has_address(&pod, "fd00::1") && has_address(&pod, "10.1.0.1") && !has_address(&pod, "169.254.169.254"));
    }
}
