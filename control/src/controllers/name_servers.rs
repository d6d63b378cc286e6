//! Tells whoever chose the cluster's name servers what is wrong with the choice: nodes go on with the one before, which
//! nobody would notice otherwise.

use super::{Change, Controller};
use crate::action::{Action, EventType, ObjectKey, Outcome};
use crate::projection::ConfigMap;
use crate::view::{Applied, Kind, View};
use jiff::Timestamp;
use longshore_api::name_servers;

pub struct NameServersController;

const NAME: &str = "name-servers-controller";
const REASON: &str = "InvalidNameServers";

impl Controller for NameServersController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn keys(&self, _view: &View, change: &Applied) -> Vec<ObjectKey> {
        let (namespace, name) = (name_servers::NAMESPACE, name_servers::NAME);
        let key = &change.key;
        let is_it = *key.resource == *ConfigMap::RESOURCE && key.namespace == namespace && key.name == name;
        is_it.then(|| (**key).clone()).into_iter().collect()
    }

    fn reconcile(&self, view: &View, key: &ObjectKey, _now: Timestamp) -> Outcome {
        let (Some(map), Some(record)) = (view.item::<ConfigMap>(key), view.record(key)) else {
            return Outcome::default();
        };
        let Some(Err(why)) = &map.name_servers else { return Outcome::default() };
        let message = format!("nodes go on with the name servers from before: {why}");
        let event = Change::of(record).event(NAME, EventType::Warning, REASON, message);
        Outcome { actions: vec![Action::Event(event)], again_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Projection;
    use crate::view::Change as Entry;
    use serde_json::{Value, json};

    /// What is done about a ConfigMap of this name and data.
    fn about(namespace: &str, data: Value) -> Vec<Action> {
        let mut view = View::default();
        let key = ObjectKey::new("configmaps", namespace, "kube-dns");
        let tree = json!({"metadata": {"name": "kube-dns", "namespace": namespace, "uid": "u"}, "data": data});
        let projection = Some(Projection::of("configmaps", &tree));
        let applied = view.apply(Entry { key, revision: 1, projection }, Timestamp::UNIX_EPOCH).unwrap();
        let keys = NameServersController.keys(&view, &applied);
        keys.iter().flat_map(|key| NameServersController.reconcile(&view, key, Timestamp::UNIX_EPOCH).actions).collect()
    }

    #[test]
    fn what_is_wrong_is_told_at_the_config_map() {
        let wrong = json!({"upstreamNameservers": "[\"dns\"]"});
        let actions = about("kube-system", wrong.clone());
        let [Action::Event(event)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!((event.kind, event.reason, event.uid.as_str()), (EventType::Warning, "InvalidNameServers", "u"));
        let words = "nodes go on with the name servers from before: upstreamNameservers: server \"dns\" is neither";
        assert!(event.message.starts_with(words), "{}", event.message);
        assert_eq!(about("default", wrong), [], "another ConfigMap of that name says nothing");
        for right in [json!({"upstreamNameservers": "[\"1.1.1.1\"]"}), json!({}), json!({"other": "{"})] {
            assert_eq!(about("kube-system", right), []);
        }
    }
}
