//! A Pod: why it is as it is, its containers in words, its conditions, its logs.

use super::object::Subject;
use crate::client::live::{self, Query};
use crate::components::logs::LogView;
use crate::components::state::{Ago, Badge, Banner};
use crate::words::{Word, plural, t};
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::kube::{Node, Pod, condition};
use longshore_page_model::read::Read;
use longshore_page_model::scheduling::Scheduling;
use longshore_page_model::state::Action;
use longshore_page_model::{node, pod};

#[component]
pub fn Overview(subject: Subject) -> impl IntoView {
    let scope = subject.scope;
    let this = subject.read::<Pod>();
    let on_node =
        Memo::new(move |_| this.with(|p| p.as_ref().map(|p| p.spec.node_name.clone()).filter(|n| !n.is_empty())));
    let nodes = live::watch::<Node>(move || {
        Some(Query::new(&scope.cluster.get(), "/api/v1/nodes").fields(format!("metadata.name={}", on_node.get()?)))
    });
    let said = Memo::new(move |_| {
        let silent = nodes.data.with(|n| n.items.values().find_map(|n| node::silent_since(n).map(str::to_string)));
        this.with(|p| p.as_ref().map(|p| pod::sentence(p, silent.as_deref(), live::now()))).unwrap_or_default()
    });
    let navigate = use_navigate();
    let act = Callback::new(move |action: Action| match action {
        Action::Logs => subject.open_tab.run("logs".into()),
        Action::PreviousLogs => subject.open_tab.run("logs-previous".into()),
        Action::ShowNodes => navigate(&scope.list("nodes"), Default::default()),
        Action::AddNode => navigate(&scope.page("/add-node"), Default::default()),
        _ => subject.open_tab.run("yaml".into()),
    });
    let containers = move || {
        let Some(pod) = this.get() else { return Vec::new() };
        let all = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        all.map(|c| {
            let (state, text) = pod::container(c, live::now());
            view! { <li><span class="mono">{c.name.clone()}</span><Badge state=state text=text/><span class="mono quiet">{c.image.clone()}</span>
                <span class="quiet">{plural(Word::Restarts, c.restart_count)}</span></li> }
        }).collect()
    };
    let why = scheduling(subject, this);
    view! {
        <Banner sentence=said on_action=act/>
        <dl class="facts card">
            <div><dt>{t(Word::Node)}</dt><dd>{move || on_node.get().map(|n| view! { <a class="mono" href=scope.object("nodes", "", &n)>{n.clone()}</a> })}</dd></div>
            {move || this.with(|p| p.as_ref().and_then(|p| p.metadata.controller().cloned())).map(|owner| {
                let slug = scope.discovered.with(|d| Kind::named(&owner.kind, d)).map(|k| k.slug()).unwrap_or_default();
                let href = scope.object(&slug, &subject.namespace.get_value(), &owner.name);
                view! { <div><dt>{t(Word::Owner)}</dt><dd><a class="mono" href=href>{format!("{}/{}", owner.kind, owner.name)}</a></dd></div> }
            })}
            <div><dt>{t(Word::Address)}</dt><dd class="mono">{move || this.with(|p| p.as_ref().map(|p| p.status.pod_ip.clone()))}</dd></div>
        </dl>
        <section class="card"><h2>{t(Word::Containers)}</h2><ul class="containers">{containers}</ul></section>
        {move || why.get().map(|why| view! { <section class="card" data-testid="why-here"><h2>{t(Word::WhyHere)}</h2><p class="quiet">{why.sentence()}</p><ul class="containers">
            {why.best.iter().map(|b| view! { <li><span class="mono">{b.node.clone()}</span><span>{b.score}</span><span class="quiet">{b.parts()}</span></li> }).collect_view()}
            {why.refused.iter().map(|r| view! { <li><span>{r.nodes}</span><span class="quiet">{r.reason.clone()}</span></li> }).collect_view()}
        </ul></section> })}
        <section class="card"><h2>{t(Word::Conditions)}</h2><ul class="conditions">{move || this.get().map(|p| p.status.conditions.into_iter().map(|c| view! {
            <li><span>{c.r#type}</span><span class="mono">{c.status}</span><span class="quiet">{c.reason}" "{c.message}</span><span class="quiet"><Ago time=c.last_transition_time/></span></li>
        }).collect_view())}</ul></section>
    }
}

/// Asks why it is where it is whenever that may have changed. Nothing where nobody knows any more.
fn scheduling(subject: Subject, pod: Memo<Option<Pod>>) -> RwSignal<Option<Scheduling>> {
    let why = RwSignal::new(None);
    let decided = Memo::new(move |_| {
        pod.with(|p| {
            let p = p.as_ref()?;
            let scheduled = condition(&p.status.conditions, "PodScheduled").map(|c| c.message.clone());
            Some((p.metadata.uid.clone(), p.spec.node_name.clone(), scheduled))
        })
    });
    Effect::new(move || {
        if decided.get().is_none() {
            return;
        }
        let (namespace, name) = (subject.namespace.get_value(), subject.name.get_value());
        let path =
            format!("/apis/longshore.dev/v1/namespaces/{}/pods/{}/scheduling", segment(&namespace), segment(&name));
        leptos::task::spawn_local(async move {
            let answer = subject.scope.get::<serde_json::Value>(&path).await.ok();
            why.try_set(answer.map(|tree| Scheduling::read(&tree)));
        });
    });
    why
}

#[component]
pub fn PodLogs(subject: Subject) -> impl IntoView {
    let this = subject.read::<Pod>();
    let containers = Memo::new(move |_| {
        this.with(|p| {
            p.as_ref()
                .map(|p| {
                    p.spec.init_containers.iter().chain(&p.spec.containers).map(|c| c.name.clone()).collect::<Vec<_>>()
                })
                .unwrap_or_default()
        })
    });
    let container = RwSignal::new(String::new());
    let previous = RwSignal::new(false);
    Effect::new(move |_| {
        let first = this.with(|p| p.as_ref().map(pod::log_container)).unwrap_or_default();
        if container.with_untracked(String::is_empty) && !first.is_empty() {
            container.set(first);
        }
    });
    view! { <LogView namespace=subject.namespace.get_value() pod=subject.name.get_value() containers container previous/> }
}
