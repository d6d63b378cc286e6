//! How nodes reach each other, as they tell it, live.

use super::cluster::Scope;
use super::stream::{self, Message, Subscription};
use leptos::prelude::*;
use longshore_api::ids::ClusterId;
use longshore_api::stream::{ClientFrame, Logs};
use longshore_page_model::kinds::segment;
use longshore_page_model::link::newest_links;
use longshore_page_model::topology::Links;
use send_wrapper::SendWrapper;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The links of these nodes, as long as the calling owner lives. A node that says nothing is not in it.
pub fn watch(scope: Scope, nodes: Memo<Vec<String>>) -> RwSignal<Links> {
    let links = RwSignal::new(Links::new());
    let held: StoredValue<Vec<(String, SendWrapper<Subscription>)>> = StoredValue::new(Vec::new());
    Effect::new(move |_| {
        let (cluster, wanted) = (scope.cluster.get(), nodes.get());
        let mut all = held.try_update_value(std::mem::take).unwrap_or_default();
        all.retain(|(node, _)| wanted.contains(node));
        links.update(|links| links.retain(|node, _| wanted.contains(node)));
        for node in wanted {
            if !all.iter().any(|(known, _)| *known == node) {
                all.push((node.clone(), SendWrapper::new(follow(cluster.clone(), node, links))));
            }
        }
        held.set_value(all);
    });
    on_cleanup(move || held.set_value(Vec::new()));
    links
}

fn follow(cluster: ClusterId, node: String, links: RwSignal<Links>) -> Subscription {
    let path = format!("/api/v1/nodes/{}/proxy/links", segment(&node));
    let query = BTreeMap::from([("follow".to_string(), "true".to_string())]);
    let waiting = RefCell::new(String::new());
    stream::subscribe(
        move |id| ClientFrame::Logs(Logs { id, cluster, path, query }),
        move |message| match message {
            Message::Log(text) => {
                let told = newest_links(&mut waiting.borrow_mut(), text);
                if let Some(told) = told {
                    links.try_update(|links| links.insert(node.clone(), told));
                }
            }
            Message::Resumed => waiting.borrow_mut().clear(),
            _ => {}
        },
    )
}
