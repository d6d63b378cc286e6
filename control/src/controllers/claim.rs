//! Adoption: whom a controller manages, whom it takes in, whom it lets go.
//!
//! Kubernetes's rule: what names us as its controller and meets our selector is ours; what names us and doesn't is let go;
//! what nobody manages and meets the selector is taken in. Who is being deleted neither adopts nor is adopted.

use super::{Change, controller_reference};
use crate::action::Action;
use crate::projection::Meta;
use crate::view::{Item, Kind, View};
use longshore_api::selector::LabelSelector;
use serde_json::json;

pub(super) struct Claimer<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub owner: &'a Meta,
    pub selector: &'a LabelSelector,
}

pub(super) struct Claimed<K> {
    pub owned: Vec<Item<K>>,
    /// Adoptions and releases to be made. Who is adopted isn't in `owned` before that is written.
    pub actions: Vec<Action>,
}

impl Claimer<'_> {
    pub fn claim<K: Kind>(&self, view: &View) -> Claimed<K> {
        let (mut owned, mut actions) = (Vec::new(), Vec::new());
        for item in view.controlled::<K>(&self.owner.uid) {
            let Some(record) = view.record(&item.key) else { continue };
            if record.meta().namespace != self.owner.namespace {
                continue;
            }
            if self.selector.matches(&record.meta().labels) {
                owned.push(item);
            } else if !self.owner.is_terminating() {
                let reference = json!([{"$patch": "delete", "uid": self.owner.uid}]);
                actions.push(Change::of(record).strategic(None, owners(reference, &record.meta().uid)));
            }
        }
        if !self.owner.is_terminating() && !self.selector.0.is_empty() {
            for item in view.strays::<K>(&self.owner.namespace) {
                let Some(record) = view.record(&item.key) else { continue };
                if !record.meta().is_terminating() && self.selector.matches(&record.meta().labels) {
                    let me = controller_reference(self.api_version, self.kind, &self.owner.name, &self.owner.uid);
                    actions.push(Change::of(record).strategic(None, owners(json!([me]), &record.meta().uid)));
                }
            }
        }
        Claimed { owned, actions }
    }
}

fn owners(references: serde_json::Value, uid: &str) -> serde_json::Value {
    json!({"metadata": {"ownerReferences": references, "uid": uid}})
}
