//! Why A reaches B, or doesn't: one chooses the two, the page walks the way and says where it stops.

use crate::client::cluster::{Scope, query_part, scope};
use crate::client::links;
use crate::client::live::{self, Live, Query};
use crate::components::icon::{Icon, icon};
use crate::components::state::{Banner, Mark};
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_api::network::Protocol;
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::kube::{EndpointSlice, Ingress, NetworkPolicy, Node, Pod, Service};
use longshore_page_model::reach::policy::{Labels, Policy};
use longshore_page_model::reach::why::{Party, Step, World, why};
use longshore_page_model::read::Read;
use longshore_page_model::state::{Sentence, State};
use longshore_page_model::table::{Row, Whole};
use std::collections::BTreeMap;

/// Suggestions at most: who looks for more types a letter.
const OFFERED: usize = 2_000;

/// All of a kind, in all namespaces: policies look across them.
pub fn everywhere(scope: Scope, slug: &str) -> Query {
    Query::new(&scope.cluster.get(), Kind::by_slug(slug, &[]).map(|k| k.list_path(None)).unwrap_or_default())
}

/// What policies are judged by.
#[derive(Clone, Copy)]
pub struct Judged {
    pub pods: Live<Pod>,
    namespaces: Live<Row>,
    policies: Live<Whole>,
}

impl Judged {
    pub fn watch(scope: Scope) -> Self {
        Self {
            pods: live::watch(move || Some(everywhere(scope, "pods"))),
            namespaces: live::watch(move || Some(everywhere(scope, "namespaces").table())),
            policies: live::watch(move || Some(everywhere(scope, "networkpolicies"))),
        }
    }
    pub fn loaded(&self) -> bool {
        self.pods.loaded() && self.namespaces.loaded() && self.policies.loaded()
    }
    pub fn namespaces(&self) -> BTreeMap<String, Labels> {
        self.namespaces
            .data
            .with(|n| n.items.values().map(|n| (n.metadata.name.clone(), n.metadata.labels.clone())).collect())
    }
    pub fn policies(&self) -> Vec<Policy> {
        all::<NetworkPolicy>(self.policies).iter().map(Policy::read).collect()
    }
}

fn all<T: Read>(live: Live<Whole>) -> Vec<T> {
    live.data.with(|data| data.items.values().map(|whole| T::read(&whole.tree)).collect())
}

/// The page for two ends; an empty one is still to be chosen.
pub fn href(scope: Scope, from: &str, to: &str) -> String {
    let page = scope.page("/reach");
    let join = if page.contains('?') { '&' } else { '?' };
    format!("{page}{join}from={}&to={}", segment(from), segment(to))
}

#[component]
pub fn Reach() -> impl IntoView {
    let scope = scope();
    let judged = Judged::watch(scope);
    let services = live::watch::<Whole>(move || Some(everywhere(scope, "services")));
    let ingresses = live::watch::<Whole>(move || Some(everywhere(scope, "ingresses")));
    let slices = live::watch::<EndpointSlice>(move || Some(everywhere(scope, "endpointslices")));
    let nodes = live::watch::<Node>(move || Some(everywhere(scope, "nodes")));
    let (from, set_from) = query_part("from");
    let (to, set_to) = query_part("to");
    let (port, set_port) = query_part("port");
    let (protocol, set_protocol) = query_part("protocol");
    let asking = Memo::new(move |_| {
        let Some(Party::Pod(namespace, name)) = from.with(|f| Party::parse(f)) else { return Vec::new() };
        let node = judged.pods.data.with(|p| p.get(&namespace, &name).map(|pod| pod.spec.node_name.clone()));
        node.into_iter().filter(|node| !node.is_empty()).collect()
    });
    let links = links::watch(scope, asking);
    let loaded =
        move || judged.loaded() && services.loaded() && ingresses.loaded() && slices.loaded() && nodes.loaded();
    let answer = Memo::new(move |_| -> Option<(Sentence, Vec<Step>)> {
        let (from, to) = (from.with(|f| Party::parse(f))?, to.with(|f| Party::parse(f))?);
        if !loaded() {
            return None;
        }
        let pods: Vec<_> = judged.pods.data.with(|p| p.items.values().cloned().collect());
        let slices: Vec<_> = slices.data.with(|s| s.items.values().cloned().collect());
        let nodes: Vec<_> = nodes.data.with(|n| n.items.values().cloned().collect());
        let protocol = if protocol.with(|p| p == "UDP") { Protocol::Udp } else { Protocol::Tcp };
        let port = port.with(|p| p.trim().parse().ok());
        links.with(|links| {
            let world = World {
                pods: &pods,
                namespaces: &judged.namespaces(),
                policies: &judged.policies(),
                services: &all::<Service>(services),
                slices: &slices,
                nodes: &nodes,
                ingresses: &all::<Ingress>(ingresses),
                links,
            };
            Some(why(&world, &from, &to, protocol, port))
        })
    });
    let offered = move || {
        let name =
            |kind: &str, key: &longshore_page_model::table::Key| format!("{kind}:{}/{}", key.namespace, key.name);
        let services: Vec<String> = services.data.with(|s| s.items.keys().map(|key| name("service", key)).collect());
        let pods: Vec<String> = judged.pods.data.with(|p| p.items.keys().map(|key| name("pod", key)).collect());
        let all = std::iter::once("outside".to_string()).chain(services).chain(pods).take(OFFERED);
        all.map(|value| view! { <option value=value></option> }).collect_view()
    };
    let choose = move |word: Word, testid: &'static str, value: Memo<String>, set: Callback<String>| {
        let wrong = move || value.with(|v| !v.is_empty() && Party::parse(v).is_none());
        view! {
            <label class="field"><span>{t(word)}</span>
                <input class="input mono" list="parties" data-testid=testid placeholder=t(Word::PartyHint) autocomplete="off" autocapitalize="off" spellcheck="false"
                    aria-invalid=move || wrong().to_string() prop:value=value on:change=move |e| set.run(event_target_value(&e).trim().to_string())/></label>
        }
    };
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::Reach)}</h1><span class="grow"></span>
                <a class="button" href=move || scope.page("/policies")>{icon(Icon::Shield)}{t(Word::Matrix)}</a></header>
            <div class="card reach-form">
                {choose(Word::PartyA, "reach-from", from, Callback::new(set_from))}
                {choose(Word::PartyB, "reach-to", to, Callback::new(set_to))}
                <label class="field"><span>{t(Word::Port)}</span><input class="input" inputmode="numeric" data-testid="reach-port" placeholder=t(Word::AnyPort) prop:value=port
                    on:change=move |e| set_port(event_target_value(&e).trim().to_string())/></label>
                <label class="field"><span>{t(Word::Protocol)}</span><select class="select" on:change=move |e| set_protocol(event_target_value(&e))>
                    <option value="" selected=move || protocol.with(|p| p != "UDP")>"TCP"</option><option value="UDP" selected=move || protocol.with(|p| p == "UDP")>"UDP"</option></select></label>
                <datalist id="parties">{offered}</datalist>
            </div>
            <div aria-live="polite" data-testid="reach">{move || match answer.get() {
                Some((sentence, steps)) => view! { <Banner sentence=sentence/>
                    <ol class="steps card">{steps.into_iter().map(|step| step_view(scope, step)).collect_view()}</ol> }.into_any(),
                None => view! { <p class="quiet">{t(if loaded() { Word::ChooseParties } else { Word::Loading })}</p> }.into_any(),
            }}</div>
        </div>
    }
}

fn step_view(scope: Scope, step: Step) -> AnyView {
    let policies = step.policies.into_iter().map(|(namespace, name)| {
        view! { <a class="chip mono" href=scope.object("networkpolicies", &namespace, &name)>{name.clone()}</a> }
    });
    let state = if step.state == State::Idle { State::Unknown } else { step.state };
    view! {
        <li><Mark state=state/><div><h2>{t(step.what)}</h2><p>{step.text}</p>
            {step.details.into_iter().map(|detail| view! { <p class="quiet small-text">{detail}</p> }).collect_view()}
            {step.next.map(|next| view! { <p class="step-next">{next}</p> })}
            <p class="chips">{policies.collect_view()}</p></div></li>
    }
    .into_any()
}
