//! The list of a kind, whichever: live, filtered by `/`, sorted by its heads.

use crate::client::cluster::{parameter, query_part, scope};
use crate::client::live::{self, Query};
use crate::components::icon::{Icon, icon};
use crate::components::shell::is_typing;
use crate::components::table::ResourceTable;
use crate::words::{Word, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use longshore_page_model::kinds::Kind;
use longshore_page_model::table::Row;

#[component]
pub fn List() -> impl IntoView {
    let slug = parameter("kind");
    let scope = scope();
    let kind = Memo::new(move |_| scope.kind(&slug.get()));
    view! {
        {move || match kind.get() {
            // Their names mean nothing, and the newest come first.
            Some(kind) if kind.kind == "Event" => view! { <super::events::Events kind/> }.into_any(),
            Some(kind) => view! { <KindList kind/> }.into_any(),
            None if scope.discovered.with(Vec::is_empty) => view! { <p class="quiet" aria-busy="true">{t(Word::Loading)}</p> }.into_any(),
            None => view! { <super::NotFound what=t(Word::NoSuchKind)/> }.into_any(),
        }}
    }
}

/// What a kind's list is called.
pub fn title(kind: &Kind) -> String {
    let word = match kind.kind.as_str() {
        "Deployment" => Word::Deployments,
        "Pod" => Word::PodsTitle,
        "Service" => Word::Services,
        "Ingress" => Word::Domains,
        "ConfigMap" => Word::ConfigMaps,
        "Secret" => Word::Secrets,
        "Node" => Word::Nodes,
        "Event" => Word::Events,
        _ => return kind.kind.clone(),
    };
    t(word).into()
}

#[component]
fn KindList(kind: Kind) -> impl IntoView {
    let scope = scope();
    let listed = kind.clone();
    let live = live::watch::<Row>(move || {
        Some(Query::new(&scope.cluster.get(), listed.list_path(scope.namespace.get().as_deref())).table())
    });
    let (filter, set_filter) = query_part("q");
    let input = NodeRef::<html::Input>::new();
    let pressed = window_event_listener(ev::keydown, move |event| {
        if event.key() == "/" && !is_typing(&event) {
            event.prevent_default();
            if let Some(input) = input.get_untracked() {
                let _ = input.focus();
            }
        }
    });
    on_cleanup(move || pressed.remove());
    let count = move || live.loaded().then(|| live.data.with(|d| d.items.len()));
    let (nodes, deployments, kind_name) = (kind.kind == "Node", kind.kind == "Deployment", kind.kind.clone());
    let name = title(&kind);
    let heading = name.clone();
    let empty = move || {
        view! {
            <div class="empty" data-testid="empty">
                {icon(if nodes { Icon::Server } else { Icon::Layers })}
                <h2>{Word::NoneYet.with(&[("what", &name.to_lowercase())])}</h2>
                {match kind_name.as_str() {
                    "Node" => view! { <p class="quiet">{t(Word::FirstNodeText)}</p>
                        <a class="button primary" href=scope.page("/add-node")>{icon(Icon::Plus)}{t(Word::AddNode)}</a> }.into_any(),
                    "Deployment" | "Pod" => view! { <p class="quiet">{t(Word::FirstAppText)}</p>
                        <a class="button primary" href=scope.page("/new")>{icon(Icon::Plus)}{t(Word::Deploy)}</a> }.into_any(),
                    "Ingress" => view! { <p class="quiet">{t(Word::FirstDomainText)}</p>
                        <a class="button primary" href=scope.list("services")>{icon(Icon::Network)}{t(Word::Services)}</a> }.into_any(),
                    _ => view! { <a class="button" href=scope.page("/apply")>{icon(Icon::FileText)}{t(Word::DeployYaml)}</a> }.into_any(),
                }}
            </div>
        }
    };
    view! {
        <div class="page list-page">
            <header class="page-head">
                <h1>{heading}</h1>
                <span class="count">{count}</span>
                <span class="grow"></span>
                <input class="input filter" node_ref=input type="search" placeholder=t(Word::Filter) aria-label=t(Word::Filter)
                    data-testid="filter" prop:value=filter on:input=move |e| set_filter(event_target_value(&e))/>
                {nodes.then(|| view! { <a class="button primary" href=move || scope.page("/add-node")>{icon(Icon::Plus)}{t(Word::AddNode)}</a> })}
                {deployments.then(|| view! { <a class="button primary" href=move || scope.page("/new")>{icon(Icon::Plus)}{t(Word::Deploy)}</a> })}
            </header>
            <ResourceTable kind live filter empty/>
        </div>
    }
}
