//! Home: what needs somebody first, then how many of what, then what happened last.

use crate::client::cluster::scope;
use crate::client::live::{self, Query};
use crate::components::icon::{Icon, icon};
use crate::components::state::{Ago, Mark};
use crate::words::{Word, plural, t};
use leptos::prelude::*;
use longshore_page_model::attention::{self, Item};
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::kube::{Deployment, Event, Node};
use longshore_page_model::node;
use longshore_page_model::state::State;
use longshore_page_model::table::{Row, row_state};

/// Events shown; more are on their page.
const EVENTS: usize = 8;

#[component]
pub fn Home() -> impl IntoView {
    let scope = scope();
    let path = move |slug: &str| {
        Kind::by_slug(slug, &[]).map(|k| k.list_path(scope.namespace.get().as_deref())).unwrap_or_default()
    };
    let pods = live::watch::<Row>(move || Some(Query::new(&scope.cluster.get(), path("pods")).table()));
    let deployments = live::watch::<Deployment>(move || Some(Query::new(&scope.cluster.get(), path("deployments"))));
    let nodes = live::watch::<Node>(move || Some(Query::new(&scope.cluster.get(), path("nodes"))));
    let events = live::watch::<Event>(move || Some(Query::new(&scope.cluster.get(), path("events"))));
    let loaded = move || pods.loaded() && deployments.loaded() && nodes.loaded();
    let attention = Memo::new(move |_| {
        // Minutes are fine enough for what is old: the list is not made anew each second.
        let now = live::now() / 10_000 * 10_000;
        pods.data.with(|p| deployments.data.with(|d| nodes.data.with(|n| attention::items(p, d, n, now))))
    });
    let href = move |item: &Item| {
        let target = &item.target;
        match &target.filter {
            Some(filter) => {
                let list = scope.list(target.resource);
                let join = if list.contains('?') { '&' } else { '?' };
                format!("{list}{join}q={}", segment(filter))
            }
            None => scope.object(target.resource, &target.key.namespace, &target.key.name),
        }
    };
    let tiles = move || {
        let now = live::now() / 10_000 * 10_000;
        let pod_states: Vec<State> =
            pods.data.with(|p| p.items.values().filter_map(|r| row_state("Pod", r, &p.columns, now)).collect());
        let troubled = pods.data.with(|p| attention::troubled(p, now));
        let deployment_states: Vec<State> = deployments
            .data
            .with(|d| d.items.values().map(|d| attention::deployment_state(d, &troubled, now)).collect());
        let node_states: Vec<State> =
            nodes.data.with(|n| n.items.values().map(|n| node::sentence(n, None, now).state).collect());
        [
            ("deployments", Word::Deployments, Icon::Layers, deployment_states),
            ("pods", Word::PodsTitle, Icon::Box, pod_states),
            ("nodes", Word::Nodes, Icon::Server, node_states),
        ]
        .into_iter()
        .map(|(slug, word, shape, states)| {
            let mut counts: Vec<(State, usize)> = Vec::new();
            for state in states.iter().copied() {
                match counts.iter_mut().find(|(s, _)| *s == state) {
                    Some((_, n)) => *n += 1,
                    None => counts.push((state, 1)),
                }
            }
            counts.sort_by(|a, b| b.0.cmp(&a.0));
            view! {
                <a class="tile" href=scope.list(slug)>
                    <span class="tile-name">{icon(shape)}{t(word)}</span>
                    <span class="tile-count">{states.len()}</span>
                    <span class="tile-states">{counts.into_iter().map(|(state, n)| view! {
                        <span class="tile-state"><Mark state=state/>{n}" "{state.word()}</span>
                    }).collect_view()}</span>
                </a>
            }
        })
        .collect_view()
    };
    let recent = Memo::new(move |_| {
        let mut all: Vec<_> = events.data.with(|e| e.items.values().cloned().collect());
        all.sort_by(|a, b| b.last_seen().cmp(a.last_seen()));
        all.truncate(EVENTS);
        all
    });
    let fresh = Memo::new(move |_| nodes.loaded() && nodes.data.with(|n| n.items.is_empty()));
    let idle = Memo::new(move |_| {
        loaded()
            && !fresh.get()
            && pods.data.with(|p| p.items.is_empty())
            && deployments.data.with(|d| d.items.is_empty())
    });
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::Home)}</h1></header>
            <Show when=move || fresh.get()>
                <section class="empty"><h2>{t(Word::FirstNode)}</h2><p class="quiet">{t(Word::FirstNodeText)}</p>
                    <a class="button primary" href=move || scope.page("/add-node")>{icon(Icon::Plus)}{t(Word::AddNode)}</a></section>
            </Show>
            <Show when=move || idle.get()>
                <section class="empty"><h2>{t(Word::FirstApp)}</h2><p class="quiet">{t(Word::FirstAppText)}</p>
                    <a class="button primary" href=move || scope.page("/new")>{icon(Icon::Plus)}{t(Word::Deploy)}</a></section>
            </Show>
            <section class="card" aria-label=t(Word::NeedsAttention) data-testid="attention">
                <h2>{t(Word::NeedsAttention)}</h2>
                {move || if !loaded() {
                    view! { <crate::components::table::Skeleton/> }.into_any()
                } else if attention.with(Vec::is_empty) {
                    view! { <p class="all-well"><Mark state=State::Good/>{t(Word::AllWell)}</p> }.into_any()
                } else {
                    view! { <ul class="attention">{attention.get().into_iter().take(12).map(|item| view! {
                        <li><a href=href(&item)><Mark state=item.state/><span class="attention-title">{item.title.clone()}</span><span class="quiet">{item.detail.clone()}</span></a></li>
                    }).collect_view()}</ul> }.into_any()
                }}
            </section>
            <div class="tiles">{tiles}</div>
            <section class="card"><h2>{t(Word::RecentEvents)}</h2><EventRows events=recent/></section>
        </div>
    }
}

/// Events, newest first.
#[component]
pub fn EventRows(
    #[prop(into)] events: Signal<Vec<std::sync::Arc<Event>>>,
    /// All of one object, which needs not be named again.
    #[prop(default = false)]
    own: bool,
) -> impl IntoView {
    let scope = scope();
    let object = move |event: &Event| {
        let about = &event.involved_object;
        let text = format!("{}/{}", about.kind, about.name);
        let kind = scope.discovered.with(|d| Kind::named(&about.kind, d));
        match kind {
            Some(kind) => view! { <a class="quiet mono" href=scope.object(&kind.slug(), &about.namespace, &about.name)>{text}</a> }.into_any(),
            None => view! { <span class="quiet mono">{text}</span> }.into_any(),
        }
    };
    view! {
        <Show when=move || !events.with(Vec::is_empty) fallback=|| view! { <p class="quiet">{t(Word::NoEvents)}" "{t(Word::NoEventsText)}</p> }>
            <ul class="events">{move || events.get().into_iter().map(|event| view! {
                <li>
                    <Mark state=if event.r#type == "Warning" { State::Degraded } else { State::Idle }/>
                    <span class="event-reason">{event.reason.clone()}</span>
                    <span class="event-text">{event.message.clone()}</span>
                    {(!own).then(|| object(&event))}
                    <span class="quiet">{(event.times() > 1).then(|| plural(Word::Times, event.times()))}" "<Ago time=event.last_seen().to_string()/></span>
                </li>
            }).collect_view()}</ul>
        </Show>
    }
}
