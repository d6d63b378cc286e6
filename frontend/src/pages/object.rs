//! One object: its sentence first, then what its kind shows, its events and its YAML, all live.

use super::{deployment, node, part, pod, service};
use crate::client::cluster::{Scope, parameter, query_part, scope};
use crate::client::live::{self, Query};
use crate::components::dialog::{Confirm, Copy, say};
use crate::components::icon::{Icon, icon};
use crate::components::state::Ago;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::Event;
use longshore_page_model::read::Read;
use longshore_page_model::table::Whole;
use std::sync::Arc;

/// What the parts of an object's page share.
#[derive(Clone, Copy)]
pub struct Subject {
    pub scope: Scope,
    pub kind: StoredValue<Kind>,
    pub namespace: StoredValue<String>,
    pub name: StoredValue<String>,
    pub whole: Memo<Option<Arc<Whole>>>,
    /// Goes to a tab.
    pub open_tab: Callback<String>,
}

impl Subject {
    /// The object's own path.
    pub fn path(self) -> String {
        self.kind.with_value(|k| self.namespace.with_value(|ns| self.name.with_value(|n| k.object_path(ns, n))))
    }
    /// The object as a small struct; none while it isn't there.
    pub fn read<T: Read + PartialEq + Send + Sync + 'static>(self) -> Memo<Option<T>> {
        Memo::new(move |_| self.whole.get().map(|w| T::read(&w.tree)))
    }
    /// Changes it, and says how it went.
    pub fn patch(self, path: String, kind: &'static str, body: serde_json::Value, done: &'static str) {
        let say = say();
        leptos::task::spawn_local(async move {
            match self.scope.patch(&path, kind, body).await {
                Ok(_) => say.done(done),
                Err(failure) => say.failed(&failure),
            }
        });
    }
}

#[component]
pub fn ObjectPage() -> impl IntoView {
    let scope = scope();
    let (slug, namespace, name) = (parameter("kind"), parameter("namespace"), parameter("name"));
    let kind = Memo::new(move |_| scope.kind(&slug.get()));
    view! {
        {move || match kind.get() {
            Some(kind) => {
                let namespace = namespace.get();
                let namespace = if namespace == "-" { String::new() } else { namespace };
                view! { <Object kind namespace name=name.get()/> }.into_any()
            }
            None if scope.discovered.with(Vec::is_empty) => view! { <p class="quiet" aria-busy="true">{t(Word::Loading)}</p> }.into_any(),
            None => view! { <super::NotFound what=t(Word::NoSuchKind)/> }.into_any(),
        }}
    }
}

#[component]
fn Object(kind: Kind, namespace: String, name: String) -> impl IntoView {
    let scope = scope();
    let (list, selector) = (kind.list_path(Some(&namespace)), format!("metadata.name={name}"));
    let live =
        live::watch::<Whole>(move || Some(Query::new(&scope.cluster.get(), list.clone()).fields(selector.clone())));
    let (tab, set_tab) = query_part("tab");
    let (key_namespace, key_name) = (namespace.clone(), name.clone());
    let whole = Memo::new(move |_| live.data.with(|d| d.get(&key_namespace, &key_name).cloned()));
    let subject = Subject {
        scope,
        kind: StoredValue::new(kind.clone()),
        namespace: StoredValue::new(namespace.clone()),
        name: StoredValue::new(name.clone()),
        whole,
        open_tab: Callback::new(move |tab: String| set_tab(if tab == "overview" { String::new() } else { tab })),
    };
    provide_context(subject);
    let mut tabs = vec![("overview", Word::Overview)];
    match kind.kind.as_str() {
        "Pod" => tabs.push(("logs", Word::Logs)),
        "Deployment" => tabs.push(("history", Word::History)),
        _ => {}
    }
    tabs.extend([("events", Word::Events), ("yaml", Word::Yaml)]);
    let current = Memo::new(move |_| if tab.with(String::is_empty) { "overview".to_string() } else { tab.get() });
    let deleting = RwSignal::new(false);
    let notes = say();
    let delete = Callback::new(move |()| {
        leptos::task::spawn_local(async move {
            match scope.delete(&subject.path()).await {
                Ok(_) => notes.done(t(Word::DeletionStarted)),
                Err(failure) => notes.failed(&failure),
            }
        });
    });
    let slug = kind.slug();
    let gone = Memo::new(move |_| live.loaded() && whole.with(Option::is_none));
    let kind_name = StoredValue::new(kind.kind.clone());
    let body = move || match (current.get().as_str(), kind_name.get_value().as_str()) {
        ("events", _) => view! { <Events subject/> }.into_any(),
        ("yaml", _) => part::yaml(subject),
        ("logs", "Pod") => view! { <pod::PodLogs subject/> }.into_any(),
        ("history", "Deployment") => view! { <deployment::History subject/> }.into_any(),
        (_, "Deployment") => view! { <deployment::Overview subject/> }.into_any(),
        (_, "Pod") => view! { <pod::Overview subject/> }.into_any(),
        (_, "Node") => view! { <node::Overview subject/> }.into_any(),
        (_, "Ingress") => part::domain(subject),
        (_, "Service") => view! { <service::Overview subject/> }.into_any(),
        _ => view! { <General subject/> }.into_any(),
    };
    let reach_key = matches!(kind.kind.as_str(), "Pod" | "Service")
        .then(|| format!("{}:{namespace}/{name}", kind.kind.to_lowercase()));
    let typed = (kind.kind != "Pod").then(|| name.clone()).unwrap_or_default();
    let kubectl = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
    let kubectl = format!("kubectl get {}/{name}{kubectl} -o yaml", kind.full_name());
    let (title, crumb) = (name.clone(), super::list::title(&kind));
    view! {
        <div class="page">
            <nav class="crumbs"><a href=move || scope.list(&slug)>{crumb}</a>{(!namespace.is_empty()).then(|| view! { <span class="quiet mono">{namespace.clone()}</span> })}</nav>
            <header class="page-head">
                <h1 class="mono" data-testid="object-name">{title}</h1>
                <Copy text=kubectl name=Word::CopyKubectl/>
                <span class="grow"></span>
                {(kind.kind == "Deployment").then(|| view! { <deployment::Actions subject/> })}
                {reach_key.map(|to| view! { <a class="button" href=move || super::reach::href(scope, "", &to)>{icon(Icon::Route)}{t(Word::ReachIt)}</a> })}
                {(kind.kind == "Service").then(|| part::give_domain(subject))}
                {(kind.kind == "Node").then(|| view! { <node::Actions subject/> })}
                <button class="button danger-quiet" data-testid="delete" on:click=move |_| deleting.set(true)>{icon(Icon::Trash2)}{t(Word::Delete)}</button>
            </header>
            <Show when=move || !gone.get() fallback=|| view! { <div class="empty" data-testid="gone"><h2>{t(Word::Gone)}</h2></div> }>
                <div class="tabs" role="tablist">{tabs.iter().map(|&(id, word)| view! {
                    <button role="tab" class="tab" aria-selected=move || (current.get() == id).to_string() data-testid=format!("tab-{id}")
                        on:click=move |_| subject.open_tab.run(id.into())>{t(word)}</button>
                }).collect_view()}</div>
                <div role="tabpanel">{body}</div>
            </Show>
            <Confirm open=deleting title=Word::DeleteTitle.with(&[("name", &name)]) text=t(Word::DeleteText).to_string()
                button=t(Word::Delete).to_string() typed=typed on_confirm=delete/>
        </div>
    }
}

/// What every object has.
#[component]
pub fn General(subject: Subject) -> impl IntoView {
    let revealed = RwSignal::new(false);
    let meta = move || subject.whole.get().map(|w| w.metadata.clone()).unwrap_or_default();
    let secret = subject.kind.with_value(|k| k.kind == "Secret");
    let data = move || {
        let tree = subject.whole.get()?;
        let map = tree.tree.get("data")?.as_object()?.clone();
        Some(
            map.into_iter()
                .map(|(key, value)| {
                    let text = value.as_str().unwrap_or_default().to_string();
                    let shown = move || {
                        if secret && !revealed.get() {
                            "••••••".into()
                        } else if secret {
                            decoded(&text)
                        } else {
                            text.clone()
                        }
                    };
                    view! { <div><dt class="mono">{key}</dt><dd><pre>{shown}</pre></dd></div> }
                })
                .collect_view(),
        )
    };
    view! {
        <section class="card">
            <dl class="facts">
                <div><dt>{t(Word::Made)}</dt><dd><Ago time=Signal::derive(move || meta().creation_timestamp)/></dd></div>
                <div><dt>{t(Word::Labels)}</dt><dd class="chips">{move || meta().labels.is_empty().then_some("–")}{move || meta().labels.into_iter().map(|(k, v)| view! { <span class="chip mono">{format!("{k}={v}")}</span> }).collect_view()}</dd></div>
            </dl>
        </section>
        <Show when=move || subject.whole.with(|w| w.as_ref().is_some_and(|w| w.tree.get("data").is_some()))>
            <section class="card"><h2>{t(Word::Data)}</h2>
                {secret.then(|| view! { <button class="button small" on:click=move |_| revealed.update(|r| *r = !*r)>
                    {move || icon(if revealed.get() { Icon::EyeOff } else { Icon::Eye })}{move || t(if revealed.get() { Word::Hide } else { Word::Reveal })}</button> })}
                <dl class="data">{data}</dl>
            </section>
        </Show>
    }
}

fn decoded(base64: &str) -> String {
    let bytes = window().atob(base64).unwrap_or_default();
    let bytes: Vec<u8> = bytes.chars().map(|c| c as u8).collect();
    String::from_utf8(bytes).unwrap_or_else(|bytes| Word::BinaryBytes.with(&[("n", &bytes.as_bytes().len())]))
}

/// Its events, newest first.
#[component]
pub fn Events(subject: Subject, #[prop(default = false)] heading: bool) -> impl IntoView {
    let (kind, namespace, name) =
        (subject.kind.with_value(|k| k.kind.clone()), subject.namespace.get_value(), subject.name.get_value());
    let namespace = if namespace.is_empty() { "default".to_string() } else { namespace };
    let path = Kind::by_slug("events", &[]).map(|k| k.list_path(Some(&namespace))).unwrap_or_default();
    let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let live = live::watch::<Event>(move || {
        Some(Query::new(&subject.scope.cluster.get(), path.clone()).fields(selector.clone()))
    });
    let events = Memo::new(move |_| {
        let mut all: Vec<_> = live.data.with(|d| d.items.values().cloned().collect());
        all.sort_by(|a, b| b.last_seen().cmp(a.last_seen()));
        all
    });
    view! { <section class="card">{heading.then(|| view! { <h2>{t(Word::Events)}</h2> })}<super::home::EventRows events own=true/></section> }
}
