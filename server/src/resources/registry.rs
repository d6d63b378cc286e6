//! All kinds there are, and how they are found.

use super::*;

/// The kinds in the order in which discovery lists them.
static KINDS: &[&Resource] = &[
    &config_map::RESOURCE,
    &endpoints::RESOURCE,
    &event::RESOURCE,
    &namespace::RESOURCE,
    &node::RESOURCE,
    &pod::RESOURCE,
    &secret::RESOURCE,
    &service_account::RESOURCE,
    &service::RESOURCE,
    &event::EVENTS_V1,
    &deployment::RESOURCE,
    &replica_set::RESOURCE,
    &priority_class::RESOURCE,
    &lease::RESOURCE,
    &endpoint_slice::RESOURCE,
    &ingress::RESOURCE,
    &ingress_class::RESOURCE,
    &network_policy::RESOURCE,
];

static REGISTRY: Registry = Registry { kinds: KINDS };

pub fn registry() -> &'static Registry {
    &REGISTRY
}

/// Every kind this API serves. There are few: a walk over them is quicker than hashing.
pub struct Registry {
    kinds: &'static [&'static Resource],
}

impl Registry {
    /// By the parts of a path: `apps`, `v1`, `deployments`.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.find(|r| r.plural == plural && r.group == group && r.version == version)
    }

    /// By what an object says of itself.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        self.find(|r| r.kind == kind && r.group == group && r.version == version)
    }

    /// By the store's name (`deployments.apps`): always the kind that is stored, never another view of it.
    pub fn by_name(&self, store_name: &str) -> Option<&'static Resource> {
        let (plural, group) = store_name.split_once('.').unwrap_or((store_name, ""));
        self.find(|r| r.plural == plural && r.group == group && r.stored.is_none())
    }

    pub fn all(&self) -> impl Iterator<Item = &'static Resource> {
        self.kinds.iter().copied()
    }

    fn find(&self, wanted: impl Fn(&Resource) -> bool) -> Option<&'static Resource> {
        self.all().find(|r| wanted(r))
    }
}

/// What the store asks of kinds when it makes objects out of rows.
impl crate::store::Kinds for Registry {
    fn fields(&self, resource: &str, tree: &Value) -> BTreeMap<&'static str, String> {
        self.by_name(resource).map_or_else(BTreeMap::new, |r| (r.fields)(tree))
    }

    fn sealed(&self, resource: &str) -> bool {
        // A kind that is no longer known is better sealed than not.
        self.by_name(resource).is_none_or(|r| r.sealed)
    }
}

/// What the store has to know of kinds.
impl crate::store::Kinds for &'static Registry {
    fn fields(&self, resource: &str, tree: &Value) -> BTreeMap<&'static str, String> {
        self.by_name(resource).map(|kind| (kind.fields)(tree)).unwrap_or_default()
    }

    fn sealed(&self, resource: &str) -> bool {
        self.by_name(resource).is_some_and(|kind| kind.sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn finds_each_kind_by_each_of_its_names() {
        for r in registry().all() {
            assert!(std::ptr::eq(registry().by_path(r.group, r.version, r.plural).unwrap(), r), "{}", r.kind);
            assert!(std::ptr::eq(registry().by_kind(r.group, r.version, r.kind).unwrap(), r), "{}", r.kind);
            let stored = r.stored.map_or(r, |s| s.resource);
            assert!(std::ptr::eq(registry().by_name(&r.store_name()).unwrap(), stored), "{}", r.kind);
        }
        assert!(registry().by_name("events.events.k8s.io").is_none());
    }

    #[test]
    fn no_two_kinds_share_a_name() {
        let core: Vec<_> = registry().all().filter(|r| r.stored.is_none()).collect();
        let names: BTreeSet<_> =
            core.iter().flat_map(|r| [r.plural, r.singular].into_iter().chain(r.short_names.iter().copied())).collect();
        let all: usize = core.iter().map(|r| 1 + usize::from(r.singular != r.plural) + r.short_names.len()).sum();
        assert_eq!(names.len(), all);
        for r in core {
            assert_eq!(r.list_kind, format!("{}List", r.kind));
            assert!(r.type_name.ends_with(&format!(".{}.{}", r.version, r.kind)));
        }
    }
}
