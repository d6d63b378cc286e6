//! The few fields of Kubernetes's objects that the page reads, as small structs.
//!
//! They are read leniently ([`crate::read`]); whole objects (for YAML) stay trees.

use crate::read::shape;
use longshore_api::selector::{SpecRequirement, SpecSelector};
use std::collections::BTreeMap;

shape!(Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    generation: i64,
    creation_timestamp: String,
    deletion_timestamp: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
    finalizers: Vec<String>,
});
shape!(Owner { api_version: String, kind: String, name: String, uid: String, controller: bool });
shape!(Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
    last_update_time: String,
    last_heartbeat_time: String,
});

shape!(
    /// Any object: what all of them have.
    Any { api_version: String, kind: String, metadata: Meta }
);

shape!(LabelSelector { match_labels: BTreeMap<String, String>, match_expressions: Vec<Expression> });
shape!(Expression { key: String, operator: String, values: Vec<String> });

impl LabelSelector {
    /// To match with. One that can't be read matches nothing: the server refuses such.
    pub fn compile(&self) -> Option<longshore_api::selector::LabelSelector> {
        let expressions = self.match_expressions.iter().cloned();
        let match_expressions =
            expressions.map(|e| SpecRequirement { key: e.key, operator: e.operator, values: e.values }).collect();
        SpecSelector { match_labels: self.match_labels.clone(), match_expressions }.compile().ok()
    }
    /// As a query parameter has it. `None` where it selects nothing that could be asked for.
    pub fn query(&self) -> String {
        let equal = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let others = self.match_expressions.iter().map(|e| match e.operator.as_str() {
            "In" => format!("{} in ({})", e.key, e.values.join(",")),
            "NotIn" => format!("{} notin ({})", e.key, e.values.join(",")),
            "DoesNotExist" => format!("!{}", e.key),
            _ => e.key.clone(),
        });
        equal.chain(others).collect::<Vec<_>>().join(",")
    }
}

shape!(Deployment { metadata: Meta, spec: DeploymentSpec, status: DeploymentStatus });
shape!(DeploymentSpec {
    replicas: Option<i64>,
    selector: LabelSelector,
    paused: bool,
    template: PodTemplate,
    strategy: Strategy,
    progress_deadline_seconds: Option<i64>,
});
shape!(Strategy { r#type: String });
shape!(DeploymentStatus {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    unavailable_replicas: i64,
    conditions: Vec<Condition>,
});
shape!(PodTemplate { metadata: Meta, spec: PodSpec });

shape!(ReplicaSet { metadata: Meta, spec: ReplicaSetSpec, status: ReplicaSetStatus });
shape!(ReplicaSetSpec { replicas: Option<i64>, template: PodTemplate });
shape!(ReplicaSetStatus { replicas: i64, ready_replicas: i64, available_replicas: i64 });

shape!(Pod { metadata: Meta, spec: PodSpec, status: PodStatus });
shape!(PodSpec {
    node_name: String,
    restart_policy: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    service_account_name: String,
    termination_grace_period_seconds: Option<i64>,
    host_network: bool,
});
shape!(Container { name: String, image: String, command: Vec<String>, args: Vec<String>, ports: Vec<ContainerPort>, env: Vec<EnvVar>, resources: Resources });
shape!(ContainerPort { name: String, container_port: i64, host_port: i64, protocol: String });
shape!(EnvVar { name: String, value: String });
shape!(Resources { requests: BTreeMap<String, String>, limits: BTreeMap<String, String> });
shape!(PodStatus {
    phase: String,
    reason: String,
    message: String,
    pod_ip: String,
    host_ip: String,
    start_time: String,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
});
shape!(ContainerStatus {
    name: String,
    image: String,
    container_id: String,
    ready: bool,
    restart_count: i64,
    state: ContainerState,
    last_state: ContainerState,
});
shape!(ContainerState { waiting: Option<Waiting>, running: Option<Running>, terminated: Option<Terminated> });
shape!(Waiting { reason: String, message: String });
shape!(Running { started_at: String });
shape!(Terminated {
    exit_code: i64,
    signal: i64,
    reason: String,
    message: String,
    started_at: String,
    finished_at: String
});

shape!(Node { metadata: Meta, spec: NodeSpec, status: NodeStatus });
shape!(NodeSpec {
    unschedulable: bool,
    taints: Vec<Taint>,
    pod_cidr: String,
});
shape!(Taint { key: String, value: String, effect: String, time_added: String });
shape!(NodeStatus {
    conditions: Vec<Condition>,
    addresses: Vec<Address>,
    capacity: BTreeMap<String, String>,
    allocatable: BTreeMap<String, String>,
    node_info: NodeInfo,
});
shape!(Address { r#type: String, address: String });
shape!(NodeInfo {
    kubelet_version: String,
    os_image: String,
    kernel_version: String,
    container_runtime_version: String,
    architecture: String,
    operating_system: String
});

shape!(Service { metadata: Meta, spec: ServiceSpec });
shape!(ServiceSpec {
    r#type: String,
    cluster_ip: String,
    external_name: String,
    ports: Vec<ServicePort>,
    selector: BTreeMap<String, String>,
    session_affinity: String,
    internal_traffic_policy: String,
});
shape!(ServicePort { name: String, protocol: String, port: i64, target_port: Option<serde_json::Value>, node_port: Option<i64> });
shape!(EndpointSlice { metadata: Meta, endpoints: Vec<Endpoint>, ports: Vec<EndpointPort> });
shape!(Endpoint { addresses: Vec<String>, conditions: EndpointConditions, node_name: String, target_ref: Reference });
shape!(EndpointConditions { ready: Option<bool>, serving: Option<bool>, terminating: Option<bool> });
shape!(EndpointPort { name: String, port: Option<i64>, protocol: String });
shape!(Reference { kind: String, namespace: String, name: String, uid: String });

shape!(Ingress { metadata: Meta, spec: IngressSpec, status: IngressStatus });
shape!(IngressSpec {
    ingress_class_name: String,
    default_backend: Option<IngressBackend>,
    rules: Vec<IngressRule>,
    tls: Vec<IngressTls>
});
shape!(IngressRule { host: String, http: IngressPaths });
shape!(IngressPaths { paths: Vec<IngressPath> });
shape!(IngressPath { path: String, path_type: String, backend: IngressBackend });
shape!(IngressBackend { service: IngressService });
shape!(IngressService { name: String, port: IngressPort });
shape!(IngressPort { name: String, number: i64 });
shape!(IngressTls { hosts: Vec<String>, secret_name: String });
shape!(IngressStatus { load_balancer: LoadBalancer });
shape!(LoadBalancer { ingress: Vec<Entrance> });
shape!(
    /// Where the world comes in.
    Entrance { ip: String, hostname: String, ports: Vec<EntrancePort> }
);
shape!(EntrancePort { port: i64 });

shape!(NetworkPolicy { metadata: Meta, spec: NetworkPolicySpec });
shape!(NetworkPolicySpec {
    pod_selector: LabelSelector,
    policy_types: Vec<String>,
    ingress: Vec<PolicyRule>,
    egress: Vec<PolicyRule>
});
shape!(PolicyRule { from: Vec<PolicyPeer>, to: Vec<PolicyPeer>, ports: Vec<PolicyPort> });
shape!(PolicyPeer {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<IpBlock>
});
shape!(IpBlock { cidr: String, except: Vec<String> });
shape!(PolicyPort { protocol: String, port: serde_json::Value, end_port: Option<i64> });

shape!(Event {
    metadata: Meta,
    involved_object: Reference,
    reason: String,
    message: String,
    r#type: String,
    count: i64,
    first_timestamp: String,
    last_timestamp: String,
    event_time: String,
    source: EventSource,
    reporting_component: String,
    series: EventSeries,
});
shape!(EventSource { component: String, host: String });
shape!(EventSeries { count: i64, last_observed_time: String });

impl Event {
    /// When it last happened, by whichever of the fields its recorder fills.
    pub fn last_seen(&self) -> &str {
        [&self.series.last_observed_time, &self.last_timestamp, &self.event_time, &self.first_timestamp]
            .into_iter()
            .find(|time| !time.is_empty())
            .unwrap_or(&self.metadata.creation_timestamp)
    }
    /// Whether it has all words of a filter, which is in lower case.
    pub fn mentions(&self, filter: &str) -> bool {
        let object = &self.involved_object;
        let said = [&self.reason, &self.message, &self.r#type, &object.kind, &object.name, &object.namespace];
        let said = said.map(|text| text.to_lowercase());
        filter.split_whitespace().all(|word| said.iter().any(|text| text.contains(word)))
    }
    pub fn times(&self) -> i64 {
        self.count.max(self.series.count).max(1)
    }
    pub fn component(&self) -> &str {
        if self.reporting_component.is_empty() { &self.source.component } else { &self.reporting_component }
    }
}

/// The condition of that type, if the object has it.
pub fn condition<'a>(conditions: &'a [Condition], r#type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.r#type == r#type)
}

impl Meta {
    /// The owner that controls it, if one does.
    pub fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|o| o.controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::json;

    #[test]
    fn nulls_and_missing_fields_are_defaults() {
        let pod = Pod::read(&json!({
            "metadata": {"name": "a", "creationTimestamp": null, "labels": null},
            "status": {"podIP": "10.0.0.1", "containerStatuses": null}
        }));
        assert_eq!(pod.metadata.name, "a");
        assert_eq!(pod.status.pod_ip, "10.0.0.1");
        assert!(pod.status.container_statuses.is_empty() && pod.metadata.labels.is_empty());
    }

    #[test]
    fn selectors_print_as_queries() {
        let selector = LabelSelector::read(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]
        }));
        assert_eq!(selector.query(), "app=web,tier in (a,b),!old");
    }
}
