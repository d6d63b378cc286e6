//! What a pod is told of services: variables, and the name of its cluster's API as long as no name server of the cluster
//! knows it.

use super::Worker;
use crate::pods::spec;
use k8s_openapi::api::core::v1::{Pod, Service};
use std::net::IpAddr;
use std::time::Duration;

/// How long the first look at services may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// On the host, the Service's address may be another cluster's, so there it goes by its name (a name its certificate has).
const API_NAME: &str = "kubernetes.default.svc";

impl Worker {
    /// Those whose variables its containers get. `Err`: the message of a `CreateContainerConfigError`.
    pub(super) async fn services(&self, pod: &Pod) -> Result<Vec<Service>, String> {
        if !self.context.runtime.is_real() {
            return Ok(Vec::new());
        }
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
        let mut services = self.known_services(pod, links).await?;
        if spec::host_network(pod) && self.context.network.api_from_host().is_some() {
            let api = services.iter_mut().find(|s| is_api(s)).and_then(|s| s.spec.as_mut());
            if let Some(api) = api {
                api.cluster_ip = Some(API_NAME.into());
            }
        }
        Ok(services)
    }

    /// Where `kubernetes.default.svc` is for this pod; `None` when its name server says so.
    pub(super) async fn api_address(&self, pod: &Pod) -> Result<Option<IpAddr>, String> {
        if spec::host_network(pod) {
            return Ok(self.context.network.api_from_host());
        }
        if !self.context.network.dns_servers(false).is_empty() {
            return Ok(None);
        }
        let services = self.known_services(pod, false).await?;
        let api = services.iter().find(|s| is_api(s)).and_then(|s| s.spec.as_ref());
        Ok(api.and_then(|s| s.cluster_ip.as_deref()).and_then(|ip| ip.parse().ok()))
    }

    async fn known_services(&self, pod: &Pod, links: bool) -> Result<Vec<Service>, String> {
        self.context.references.services().of(spec::uid(pod), spec::namespace(pod), links, PATIENCE).await
    }
}

fn is_api(service: &Service) -> bool {
    let meta = &service.metadata;
    (meta.namespace.as_deref(), meta.name.as_deref()) == (Some("default"), Some("kubernetes"))
}
