//! A Node: heard from or silent since when, its conditions and room, what runs there.

use super::object::Subject;
use crate::client::http::MERGE_PATCH;
use crate::client::links;
use crate::client::live::{self, Query};
use crate::components::icon::{Icon, icon};
use crate::components::state::{Ago, Banner, Mark};
use crate::components::table::ResourceTable;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_api::edge::EDGE_LABEL;
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::Node;
use longshore_page_model::link::{Link, link_sentence};
use longshore_page_model::node::{sentence, served_at};
use longshore_page_model::state::Action;
use longshore_page_model::table::Row;
use serde_json::json;

#[component]
pub fn Overview(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let this = subject.read::<Node>();
    let pods = live::watch::<Row>(move || {
        Some(
            Query::new(&scope.cluster.get(), "/api/v1/pods")
                .fields(format!("spec.nodeName={}", subject.name.get_value()))
                .table(),
        )
    });
    let said = Memo::new(move |_| {
        let count = pods.loaded().then(|| pods.data.with(|p| p.items.len()));
        this.with(|n| n.as_ref().map(|n| sentence(n, count, live::now()))).unwrap_or_default()
    });
    let act = Callback::new(move |action: Action| {
        if action == Action::Uncordon {
            cordon(subject, false);
        }
    });
    let fact = move |word: Word, value: fn(&Node) -> String| {
        view! {
            <div><dt>{t(word)}</dt><dd class="mono">{move || this.with(|n| n.as_ref().map(value))}</dd></div>
        }
    };
    view! {
        <Banner sentence=said on_action=act/>
        <dl class="facts card">
            {fact(Word::Cpu, |n| n.status.allocatable.get("cpu").cloned().unwrap_or_default())}
            {fact(Word::Memory, |n| n.status.allocatable.get("memory").cloned().unwrap_or_default())}
            {fact(Word::PodsTitle, |n| n.status.allocatable.get("pods").cloned().unwrap_or_default())}
            {fact(Word::Address, |n| n.status.addresses.iter().map(|a| a.address.clone()).collect::<Vec<_>>().join(", "))}
            {fact(Word::CheckRuntime, |n| n.status.node_info.container_runtime_version.clone())}
            {fact(Word::Version, |n| n.status.node_info.kubelet_version.clone())}
            {fact(Word::CheckRange, |n| n.spec.pod_cidr.clone())}
            {move || this.with(|n| n.as_ref().and_then(served_at)).map(|ports| view! { <div data-testid="served-at"><dt>{t(Word::DomainPorts)}</dt><dd class="mono">{ports}</dd></div> })}
        </dl>
        <section class="card"><h2>{t(Word::Conditions)}</h2><ul class="conditions">{move || this.get().map(|n| n.status.conditions.into_iter().map(|c| view! {
            <li><span>{c.r#type}</span><span class="mono">{c.status}</span><span class="quiet">{c.message}</span><span class="quiet"><Ago time=c.last_transition_time/></span></li>
        }).collect_view())}</ul></section>
        <Links subject/>
        <section class="card"><h2>{t(Word::PodsTitle)}</h2>
            {Kind::by_slug("pods", &[]).map(|kind| view! { <ResourceTable kind live=pods filter=Signal::derive(String::new) embedded=true empty=|| view! { <p class="quiet">{t(Word::NoPods)}</p> }/> })}
        </section>
    }
}

/// How the node reaches others, live.
#[component]
fn Links(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let name = Memo::new(move |_| vec![subject.name.get_value()]);
    let links = links::watch(scope, name);
    let one = move |link: Link| {
        let said = link_sentence(&link);
        view! {
            <li><Mark state=said.state/><a class="mono" href=scope.object("nodes", "", &link.node)>{link.node.clone()}</a>
                <span>{said.what}</span><span class="quiet">{said.how}</span><span class="quiet mono">{said.traffic}</span></li>
        }
    };
    view! {
        {move || links.get().into_values().next().map(|links| view! { <section class="card" data-testid="links"><h2>{t(Word::LinksTitle)}</h2>
            {if links.is_empty() { view! { <p class="quiet">{t(Word::LinkNone)}</p> }.into_any() } else {
                view! { <ul class="containers">{links.into_iter().map(one).collect_view()}</ul> }.into_any() }}
        </section> })}
    }
}

fn cordon(subject: Subject, unschedulable: bool) {
    let done = t(if unschedulable { Word::Cordoned } else { Word::Uncordoned });
    subject.patch(subject.path(), MERGE_PATCH, json!({"spec": {"unschedulable": unschedulable}}), done);
}

/// Makes the node an edge of its cluster, or none.
fn serve_domains(subject: Subject, serve: bool) {
    let done = t(if serve { Word::ServesDomains } else { Word::ServesDomainsNot });
    let labels = json!({(EDGE_LABEL): serve.then_some("true")});
    subject.patch(subject.path(), MERGE_PATCH, json!({"metadata": {"labels": labels}}), done);
}

#[component]
pub fn Actions(subject: Subject) -> impl IntoView {
    let this = subject.read::<Node>();
    let serves = Memo::new(move |_| this.with(|n| n.as_ref().is_some_and(|n| served_at(n).is_some())));
    let cordoned = Memo::new(move |_| this.with(|n| n.as_ref().is_some_and(|n| n.spec.unschedulable)));
    view! {
        <button class="button" data-testid="edge" on:click=move |_| serve_domains(subject, !serves.get_untracked())>
            {icon(Icon::Globe)}{move || t(if serves.get() { Word::ServeDomainsNot } else { Word::ServeDomains })}</button>
        <button class="button" data-testid="cordon" on:click=move |_| cordon(subject, !cordoned.get_untracked())>
            {icon(Icon::Ban)}{move || t(if cordoned.get() { Word::ActionUncordon } else { Word::Cordon })}</button>
    }
}
