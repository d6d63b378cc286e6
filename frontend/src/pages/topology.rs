//! The network as a picture, and beside it the same as a list.

use crate::client::cluster::{Scope, query_part, scope};
use crate::client::live::{self, Query};
use crate::client::{links, stream};
use crate::components::icon::{Icon, icon};
use crate::components::state::Mark;
use crate::components::table::phone;
use crate::words::{Word, plural, t};
use leptos::ev;
use leptos::prelude::*;
use longshore_page_model::kube::{Node, Pod, Service};
use longshore_page_model::link::{Link, link_sentence};
use longshore_page_model::read::Read;
use longshore_page_model::table::Whole;
use longshore_page_model::topology::{self, Links, Place};
use longshore_page_model::workload;
use wasm_bindgen::JsCast;

/// Workloads of one node that the list names.
const NAMED: usize = 40;

#[component]
pub fn Topology() -> impl IntoView {
    let scope = scope();
    let nodes = live::watch::<Node>(move || Some(Query::new(&scope.cluster.get(), "/api/v1/nodes")));
    let path = move |plural: &str| match scope.namespace.get() {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/{plural}"),
        None => format!("/api/v1/{plural}"),
    };
    let pods = live::watch::<Pod>(move || Some(Query::new(&scope.cluster.get(), path("pods"))));
    let services = live::watch::<Whole>(move || Some(Query::new(&scope.cluster.get(), path("services"))));
    let (chosen, choose) = query_part("node");
    let places = Memo::new(move |_| {
        let nodes: Vec<_> = nodes.data.with(|n| n.items.values().cloned().collect());
        let workloads = workload::group(pods.data.with(|p| p.items.values().cloned().collect::<Vec<_>>()).into_iter());
        let services: Vec<_> = services.data.with(|s| s.items.values().map(|w| Service::read(&w.tree)).collect());
        topology::places(&nodes, &workloads, &services, stream::server_now())
    });
    let of_chosen = move || Some(chosen.get()).filter(|name| !name.is_empty());
    let followed = Memo::new(move |_| places.with(|p| topology::followed(p, of_chosen().as_deref())));
    let links = links::watch(scope, followed);
    let narrow = phone();
    let picture =
        Memo::new(move |_| places.with(|p| links.with(|l| topology::picture(p, l, of_chosen().as_deref(), narrow))));
    let toggle = Callback::new(move |name: String| {
        choose(if chosen.with_untracked(|c| *c == name) { String::new() } else { name })
    });
    // A press on a node in the picture; keys and readers have the list.
    let press = move |event: ev::MouseEvent| {
        let element = event.target().and_then(|t| t.dyn_into::<web_sys::Element>().ok());
        let place =
            element.and_then(|e| e.closest("[data-node]").ok().flatten()).and_then(|e| e.get_attribute("data-node"));
        if let Some(name) = place {
            toggle.run(name);
        }
    };
    let painted =
        Memo::new(move |_| places.with(|p| picture.with(|drawn| topology::paint(drawn, p, of_chosen().as_deref()))));
    let frame = move || picture.with(|p| format!("0 0 {} {}", p.width, p.height));
    let hidden = move || {
        let hidden = picture.with(|p| p.hidden);
        (hidden > 0).then(|| view! { <p class="quiet small-text">{plural(Word::NodesNotDrawn, hidden as i64)}</p> })
    };
    let names = Memo::new(move |_| places.with(|p| p.iter().map(|place| place.name.clone()).collect::<Vec<_>>()));
    let empty = Memo::new(move |_| nodes.loaded() && places.with(Vec::is_empty));
    let quiet_links =
        Memo::new(move |_| picture.with(|p| p.lines.is_empty()) && links.with(|l| l.values().all(Vec::is_empty)));
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::Topology)}</h1>
                <span class="count">{move || places.with(|p| format!("{}, {}", plural(Word::NodeCount, p.len() as i64), plural(Word::Pods, p.iter().map(|p| p.pods as i64).sum())))}</span>
                <span class="grow"></span>
                <a class="button" href=move || scope.page("/reach")>{icon(Icon::Route)}{t(Word::Reach)}</a></header>
            <Show when=move || !empty.get() fallback=move || view! {
                <div class="empty"><h2>{t(Word::FirstNode)}</h2><p class="quiet">{t(Word::FirstNodeText)}</p>
                    <a class="button primary" href=scope.page("/add-node")>{icon(Icon::Plus)}{t(Word::AddNode)}</a></div> }>
                <div class="topology-page">
                    <section class="card" aria-busy=move || (!nodes.loaded()).to_string()>
                        <svg class="topology" viewBox=frame aria-hidden="true" on:click=press inner_html=move || painted.get()></svg>
                        {hidden}
                        <p class="legend quiet small-text" aria-hidden="true"><span><i class="key"></i>{t(Word::LinkDirect)}</span><span><i class="key relayed"></i>{t(Word::LinkRelayed)}</span><span><i class="key tunnel"></i>{t(Word::Tunnel)}</span><span><u class="key-name">"web"</u>{t(Word::HasService)}</span></p>
                        <p class="quiet small-text">{move || if places.with(Vec::len) > topology::ROOMY && of_chosen().is_none() { t(Word::ChooseNode) } else if quiet_links.get() { t(Word::NoLinks) } else { "" }}</p>
                    </section>
                    <ul class="places" data-testid="places"><For each=move || names.get() key=String::clone let:name>
                        <PlaceRow name places links chosen toggle/>
                    </For></ul>
                </div>
            </Show>
        </div>
    }
}

/// A node in the list; its button stays itself while what it says changes, so that it keeps the focus.
#[component]
fn PlaceRow(
    name: String,
    places: Memo<Vec<Place>>,
    links: RwSignal<Links>,
    chosen: Memo<String>,
    toggle: Callback<String>,
) -> impl IntoView {
    let scope = scope();
    let name = StoredValue::new(name);
    let place = Memo::new(move |_| {
        places.with(|p| p.iter().find(|place| name.with_value(|n| *n == place.name)).cloned()).unwrap_or_default()
    });
    let open = Memo::new(move |_| chosen.with(|c| name.with_value(|n| n == c)));
    let state = Signal::derive(move || place.with(|p| p.state));
    let about = move || place.with(|p| if p.connected { p.state.word() } else { t(Word::NotConnected) });
    let inside = move || {
        open.get().then(|| {
            let told = links.with(|links| name.with_value(|n| links.get(n).cloned())).unwrap_or_default();
            place_view(scope, place.get(), told)
        })
    };
    view! {
        <li class="place-row"><button aria-expanded=move || open.get().to_string() on:click=move |_| toggle.run(name.get_value())>
            <Mark state=state/><span class="mono">{name.get_value()}</span><span class="quiet grow">{about}</span><span class="quiet number">{move || plural(Word::Pods, place.with(|p| p.pods) as i64)}</span></button>
            {inside}</li>
    }
}

fn place_view(scope: Scope, place: Place, links: Vec<Link>) -> AnyView {
    let told = links.iter().map(|link| {
        let said = link_sentence(link);
        view! { <li><Mark state=said.state/><span class="mono">{link.node.clone()}</span><span>{said.what}</span><span class="quiet">{said.how}</span><span class="quiet mono">{said.traffic}</span></li> }
    });
    let more = place.groups.len().saturating_sub(NAMED);
    let groups = place.groups.iter().take(NAMED).map(|group| {
        let worst = group.states.iter().max().copied().unwrap_or_default();
        let services = group.services.iter().map(|service| view! {
            <a class="chip mono" href=scope.object("services", &group.namespace, service)>{icon(Icon::Network)}{service.clone()}</a>
        });
        view! { <li><Mark state=worst/><span class="mono">{group.name.clone()}</span><span class="quiet mono">{group.namespace.clone()}</span><span class="quiet">{plural(Word::Pods, group.states.len() as i64)}</span>{services.collect_view()}</li> }
    });
    view! {
        <p><a class="quiet" href=scope.object("nodes", "", &place.name)>{t(Word::OpenNode)}</a></p>
        <ul class="containers">{told.collect_view()}</ul>
        <ul class="containers">{groups.collect_view()}</ul>
        {(more > 0).then(|| view! { <p class="quiet">{plural(Word::MoreWorkloads, more as i64)}</p> })}
    }
    .into_any()
}
