//! The part of the way that a Service is: its name, what leads in from outside, who is behind it.

use super::{DETAILS, Target, Walk};
use crate::kube::{EndpointSlice, Ingress, Service, ServicePort};
use crate::reach::policy::{self, Direction, End, Identity, Labels};
use crate::state::State;
use crate::words::{Word, t};
use longshore_api::network::Protocol;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Walk<'_> {
    /// Walks to a Service: its name, the way in from outside, who is behind its port.
    pub(super) fn service(&mut self, service: &Service, port: Option<u16>) -> bool {
        let spec = &service.spec;
        let name = format!("{}.{}", service.metadata.name, service.metadata.namespace);
        if spec.r#type == "ExternalName" {
            let text = Word::ReachAnotherName.with(&[("name", &name), ("other", &spec.external_name)]);
            self.names(State::Good, text);
            return self.outside(None, Protocol::Tcp, port.unwrap_or(443));
        }
        let by_edge = if self.sender.is_some() {
            let address = if spec.cluster_ip == "None" { t(Word::ReachItsPods) } else { &spec.cluster_ip };
            self.names(State::Good, Word::ReachName.with(&[("name", &name), ("address", &address)]));
            false
        } else {
            self.service_entrance(service)
        };
        let wanted = port.map(i64::from);
        let found = spec.ports.iter().find(|p| wanted.is_none_or(|wanted| p.port == wanted));
        let Some(found) = found else {
            let have: Vec<String> = spec.ports.iter().map(|p| p.port.to_string()).collect();
            let text = Word::ReachNoPort.with(&[("port", &wanted.unwrap_or_default()), ("ports", &have.join(", "))]);
            return self.stop(Word::StepService, text, Word::NextPort);
        };
        let protocol = policy::protocol(&found.protocol).unwrap_or(Protocol::Tcp);
        if let Some(end) = answered_by_node(service, self.world.namespaces) {
            let text = Word::ReachByNode.with(&[("name", &service.metadata.name)]);
            self.say(Word::StepService, State::Good, text);
            let port = u16::try_from(found.port).unwrap_or_default();
            let target = Target { name: service.metadata.name.clone(), end, pod: None, port };
            self.policies(Direction::Egress, &[target], protocol);
            return true;
        }
        let targets = self.endpoints(service, found);
        !targets.is_empty() && self.finish(&targets, protocol, by_edge)
    }

    /// Whether the sender may ask for names, and what the answer is.
    fn names(&mut self, state: State, text: String) {
        let world = self.world;
        let dns =
            world.services.iter().find(|s| s.metadata.name == "kube-dns" && s.metadata.namespace == "kube-system");
        if let (Some((_, own)), Some(end)) = (&self.sender, dns.and_then(|dns| answered_by_node(dns, world.namespaces)))
        {
            let judged = policy::judge(world.policies, Direction::Egress, own, &end);
            if !judged.isolating.is_empty() && judged.by(Protocol::Udp, 53).is_none() {
                let namespace = own.pod.as_ref().map(|pod| pod.namespace.clone()).unwrap_or_default();
                let text = Word::ReachNoNames.with(&[("policies", &judged.isolating.join(", "))]);
                self.stop(Word::StepName, text, Word::NextNames);
                if let Some(step) = self.steps.last_mut() {
                    step.policies = judged.isolating.into_iter().map(|name| (namespace.clone(), name)).collect();
                }
                return;
            }
        }
        self.say(Word::StepName, state, text);
    }

    /// What leads from outside to a Service; whether it is the edge.
    fn service_entrance(&mut self, service: &Service) -> bool {
        let meta = &service.metadata;
        let leads = |ingress: &&Ingress| {
            let paths = ingress.spec.rules.iter().flat_map(|rule| &rule.http.paths).map(|path| &path.backend);
            let mut backends = paths.chain(&ingress.spec.default_backend);
            ingress.metadata.namespace == meta.namespace && backends.any(|b| b.service.name == meta.name)
        };
        if let Some(ingress) = self.world.ingresses.iter().find(leads) {
            let served = !ingress.status.load_balancer.ingress.is_empty();
            let word = if served { Word::ReachIngress } else { Word::ReachIngressIdle };
            let text = word.with(&[("name", &ingress.metadata.name)]);
            let state = if served { State::Good } else { State::Failing };
            self.say(Word::StepEntrance, state, text).details = vec![t(Word::ReachIngressFree).into()];
            return true;
        }
        let ports: Vec<i64> = service.spec.ports.iter().filter_map(|p| p.node_port).filter(|port| *port > 0).collect();
        match ports.first() {
            Some(port) => {
                self.say(Word::StepEntrance, State::Good, Word::ReachNodePort.with(&[("port", port)]));
            }
            None => {
                self.stop(Word::StepEntrance, t(Word::ReachNoEntrance), Word::NextEntrance);
            }
        }
        false
    }

    /// Those of a Service's port that take connections.
    fn endpoints(&mut self, service: &Service, port: &ServicePort) -> Vec<Target> {
        let meta = &service.metadata;
        let of_service = |slice: &&Arc<EndpointSlice>| {
            let labels = &slice.metadata.labels;
            slice.metadata.namespace == meta.namespace
                && labels.get("kubernetes.io/service-name").is_some_and(|name| *name == meta.name)
        };
        let (mut targets, mut all, mut elsewhere) = (Vec::new(), 0, 0);
        let local = service.spec.internal_traffic_policy == "Local";
        let own_node = self.sender.as_ref().map(|(pod, _)| pod.spec.node_name.clone());
        for slice in self.world.slices.iter().filter(of_service) {
            let Some(number) = slice.ports.iter().find(|p| p.name == port.name).and_then(|p| p.port) else { continue };
            for endpoint in &slice.endpoints {
                all += 1;
                if !endpoint.conditions.ready.unwrap_or(true) {
                    continue;
                }
                if local && own_node.as_ref().is_some_and(|node| *node != endpoint.node_name) {
                    elsewhere += 1;
                    continue;
                }
                let about = &endpoint.target_ref;
                let pod = self.pod(&about.namespace, &about.name).filter(|_| about.kind == "Pod");
                let address = endpoint.addresses.first().cloned().unwrap_or_default();
                let end = match &pod {
                    Some(pod) => End::of(pod, self.world.namespaces),
                    None => End { address: address.parse().ok(), pod: None },
                };
                let name = if pod.is_some() { about.name.clone() } else { address };
                targets.push(Target { name, end, pod, port: u16::try_from(number).unwrap_or_default() });
            }
        }
        if !targets.is_empty() {
            let text = Word::ReachEndpoints.with(&[("ready", &targets.len()), ("all", &all)]);
            let details = targets.iter().take(DETAILS).map(|t| format!("{}:{}", t.name, t.port)).collect();
            self.say(Word::StepService, State::Good, text).details = details;
        } else if elsewhere > 0 {
            self.stop(Word::StepService, t(Word::ReachNotLocal), Word::NextLocal);
        } else if all > 0 {
            self.stop(Word::StepService, Word::ReachNoneReady.with(&[("all", &all)]), Word::NextLookAtPods);
        } else {
            self.stop(Word::StepService, t(Word::ReachNoEndpoints), Word::NextSelector);
        }
        targets
    }
}

/// The API and the name server have no pods here: nodes answer at the Service's address. The name server passes for a pod
/// with the labels that everybody writes into policies.
fn answered_by_node(service: &Service, namespaces: &BTreeMap<String, Labels>) -> Option<End> {
    let meta = &service.metadata;
    let address = service.spec.cluster_ip.parse().ok();
    match (meta.namespace.as_str(), meta.name.as_str()) {
        ("default", "kubernetes") => Some(End { address, pod: None }),
        ("kube-system", "kube-dns") => {
            let identity = Identity {
                namespace: meta.namespace.clone(),
                namespace_labels: namespaces.get(&meta.namespace).cloned().unwrap_or_default(),
                labels: Labels::from([("k8s-app".into(), "kube-dns".into())]),
                ports: vec![("dns".into(), Protocol::Udp, 53), ("dns-tcp".into(), Protocol::Tcp, 53)],
            };
            Some(End { address, pod: Some(identity) })
        }
        _ => None,
    }
}
