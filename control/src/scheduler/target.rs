//! Which pods a term speaks of.

use crate::projection::{Pod, PodTerm};
use longshore_api::selector::LabelSelector;
use std::collections::{BTreeMap, HashMap};

pub(super) type Labels = BTreeMap<String, String>;

/// The labels of the namespaces there are.
pub(super) type Namespaces = HashMap<String, Labels>;

/// Pods of some namespaces with some labels. Equal targets are one, whoever names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// None matches nothing.
    selector: Option<LabelSelector>,
    /// Sorted.
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl Target {
    /// Of a term of a pod in `namespace`.
    pub fn of(term: &PodTerm, namespace: &str) -> Self {
        let mut namespaces = term.namespaces.clone();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_string());
        }
        namespaces.sort();
        namespaces.dedup();
        Self { selector: term.selector.clone(), namespaces, namespace_selector: term.namespace_selector.clone() }
    }

    /// Of a spread constraint: an empty selector counts nobody there, other than in a term.
    pub fn spread(selector: Option<&LabelSelector>, namespace: &str) -> Self {
        let selector = selector.filter(|s| !s.0.is_empty()).cloned();
        Self { selector, namespaces: vec![namespace.to_string()], namespace_selector: None }
    }

    /// Whether the answer depends on a namespace's labels.
    pub fn asks_namespaces(&self) -> bool {
        self.namespace_selector.as_ref().is_some_and(|s| !s.0.is_empty())
    }

    pub fn matches(&self, pod: &Pod, known: &Namespaces) -> bool {
        static NONE: Labels = Labels::new();
        let namespace = &pod.meta.namespace;
        let labelled = |s: &LabelSelector| s.matches(known.get(namespace).unwrap_or(&NONE));
        self.selector.as_ref().is_some_and(|s| s.matches(&pod.meta.labels))
            && (self.namespaces.binary_search(namespace).is_ok()
                || self.namespace_selector.as_ref().is_some_and(labelled))
    }
}
