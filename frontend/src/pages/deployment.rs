//! A Deployment: how it is doing, its pods, its revisions, and what one can do with it.

use super::object::Subject;
use crate::client::http::{JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH};
use crate::client::live::{self, Query};
use crate::components::dialog::Dialog;
use crate::components::icon::{Icon, icon};
use crate::components::state::{Ago, Banner, ReadyBar};
use crate::components::table::ResourceTable;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::deployment::{Progress, history, roll_back, sentence};
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::{Deployment, Pod, ReplicaSet};
use longshore_page_model::state::Action;
use longshore_page_model::table::Row;
use serde_json::json;

fn of(subject: Subject, slug: &str) -> Query {
    let path =
        Kind::by_slug(slug, &[]).map(|k| subject.namespace.with_value(|ns| k.list_path(Some(ns)))).unwrap_or_default();
    Query::new(&subject.scope.cluster.get(), path)
}

/// The selector as a query, once the Deployment is known; it never changes.
fn selector(subject: Subject) -> Memo<Option<String>> {
    let deployment = subject.read::<Deployment>();
    Memo::new(move |_| deployment.with(|d| d.as_ref().map(|d| d.spec.selector.query())))
}

#[component]
pub fn Overview(subject: Subject) -> impl IntoView {
    let deployment = subject.read::<Deployment>();
    let selector = selector(subject);
    let pods = live::watch::<Pod>(move || Some(of(subject, "pods").labels(selector.get()?)));
    let rows = live::watch::<Row>(move || Some(of(subject, "pods").labels(selector.get()?).table()));
    let said = Memo::new(move |_| {
        let pods: Vec<_> = pods.data.with(|p| p.items.values().cloned().collect());
        deployment.with(|d| d.as_ref().map(|d| sentence(d, &pods, live::now()))).unwrap_or_default()
    });
    let progress = Memo::new(move |_| deployment.with(|d| d.as_ref().map(Progress::of)).unwrap_or_default());
    let act = Callback::new(move |action: Action| match action {
        Action::RollBack => subject.open_tab.run("history".into()),
        Action::EditYaml | Action::ChangeImage => subject.open_tab.run("yaml".into()),
        Action::Resume => pause(subject, false),
        _ => {}
    });
    let pods_kind = Kind::by_slug("pods", &[]);
    view! {
        <Banner sentence=said on_action=act/>
        <dl class="facts card">
            <div><dt>{t(Word::Ready)}</dt><dd data-testid="ready"><ReadyBar ready=Signal::derive(move || { let p = progress.get(); (p.ready, p.wanted) })/></dd></div>
            <div><dt>{t(Word::Updated)}</dt><dd><ReadyBar ready=Signal::derive(move || { let p = progress.get(); (p.updated, p.wanted) })/></dd></div>
            <div><dt>{t(Word::Images)}</dt><dd class="mono">{move || deployment.with(|d| d.as_ref().map(|d| d.spec.template.spec.containers.iter().map(|c| c.image.clone()).collect::<Vec<_>>().join(", ")))}</dd></div>
            <div><dt>{t(Word::Strategy)}</dt><dd>{move || deployment.with(|d| d.as_ref().map(|d| d.spec.strategy.r#type.clone()))}</dd></div>
            <div><dt>{t(Word::Made)}</dt><dd><Ago time=Signal::derive(move || deployment.with(|d| d.as_ref().map(|d| d.metadata.creation_timestamp.clone())).unwrap_or_default())/></dd></div>
        </dl>
        <section class="card"><h2>{t(Word::PodsTitle)}</h2>
            {pods_kind.map(|kind| view! { <ResourceTable kind live=rows filter=Signal::derive(String::new) embedded=true empty=|| view! { <p class="quiet">{t(Word::NoPods)}</p> }/> })}
        </section>
        <super::object::Events subject heading=true/>
    }
}

fn pause(subject: Subject, paused: bool) {
    subject.patch(
        subject.path(),
        MERGE_PATCH,
        json!({"spec": {"paused": paused}}),
        t(if paused { Word::Paused } else { Word::Resumed }),
    );
}

#[component]
pub fn Actions(subject: Subject) -> impl IntoView {
    let deployment = subject.read::<Deployment>();
    let (scaling, imaging) = (RwSignal::new(false), RwSignal::new(false));
    let replicas = RwSignal::new(String::new());
    let image = RwSignal::new(String::new());
    let paused = Memo::new(move |_| deployment.with(|d| d.as_ref().is_some_and(|d| d.spec.paused)));
    let restart = move |_| {
        let now = js_sys::Date::new_0().to_iso_string().as_string().unwrap_or_default();
        let body =
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
        subject.patch(subject.path(), MERGE_PATCH, body, t(Word::Restarting));
    };
    let first = move || {
        deployment
            .with_untracked(|d| d.as_ref().and_then(|d| d.spec.template.spec.containers.first().cloned()))
            .unwrap_or_default()
    };
    let scale = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if let Ok(n) = replicas.get_untracked().trim().parse::<u32>() {
            scaling.set(false);
            subject.patch(
                format!("{}/scale", subject.path()),
                MERGE_PATCH,
                json!({"spec": {"replicas": n}}),
                t(Word::Scaling),
            );
        }
    };
    let change = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        imaging.set(false);
        let body = json!({"spec": {"template": {"spec": {"containers": [{"name": first().name, "image": image.get_untracked().trim()}]}}}});
        subject.patch(subject.path(), STRATEGIC_PATCH, body, t(Word::RollingOut));
    };
    view! {
        <button class="button" data-testid="scale" on:click=move |_| {
            replicas.set(deployment.with_untracked(|d| d.as_ref().and_then(|d| d.spec.replicas)).unwrap_or(1).to_string());
            scaling.set(true);
        }>{icon(Icon::Scaling)}{t(Word::Scale)}</button>
        <button class="button" data-testid="change-image" on:click=move |_| { image.set(first().image); imaging.set(true); }>{icon(Icon::Image)}{t(Word::ActionChangeImage)}</button>
        <button class="button" data-testid="restart" on:click=restart>{icon(Icon::RotateCw)}{t(Word::Restart)}</button>
        <button class="button" on:click=move |_| pause(subject, !paused.get_untracked())>
            {move || if paused.get() { icon(Icon::Play) } else { icon(Icon::Pause) }}{move || t(if paused.get() { Word::ActionResume } else { Word::PauseRollout })}</button>
        <Dialog open=scaling title=t(Word::Scale).to_string()>
            <form class="form" on:submit=scale>
                <label class="field"><span>{t(Word::Replicas)}</span><input class="input" type="number" min="0" max="10000" autofocus
                    data-testid="replicas" prop:value=replicas on:input=move |e| replicas.set(event_target_value(&e))/></label>
                <footer class="dialog-foot"><button type="button" class="button" on:click=move |_| scaling.set(false)>{t(Word::Cancel)}</button>
                    <button class="button primary" type="submit" data-testid="scale-confirm">{t(Word::Scale)}</button></footer>
            </form>
        </Dialog>
        <Dialog open=imaging title=t(Word::ActionChangeImage).to_string()>
            <form class="form" on:submit=change>
                <label class="field"><span>{t(Word::Image)}</span><input class="input mono" autofocus spellcheck="false"
                    data-testid="image" prop:value=image on:input=move |e| image.set(event_target_value(&e))/></label>
                <footer class="dialog-foot"><button type="button" class="button" on:click=move |_| imaging.set(false)>{t(Word::Cancel)}</button>
                    <button class="button primary" type="submit" data-testid="image-confirm">{t(Word::RollOut)}</button></footer>
            </form>
        </Dialog>
    }
}

#[component]
pub fn History(subject: Subject) -> impl IntoView {
    let deployment = subject.read::<Deployment>();
    let selector = selector(subject);
    let sets = live::watch::<ReplicaSet>(move || Some(of(subject, "replicasets").labels(selector.get()?)));
    let revisions = Memo::new(move |_| {
        let sets: Vec<_> = sets.data.with(|s| s.items.values().cloned().collect());
        deployment.with(|d| d.as_ref().map(|d| history(d, &sets))).unwrap_or_default()
    });
    let notes = crate::components::dialog::say();
    let back = move |name: String| {
        leptos::task::spawn_local(async move {
            let path = Kind::by_slug("replicasets", &[])
                .map(|k| subject.namespace.with_value(|ns| k.object_path(ns, &name)))
                .unwrap_or_default();
            let result = match subject.scope.get::<serde_json::Value>(&path).await {
                Ok(set) => subject.scope.patch(&subject.path(), JSON_PATCH, roll_back(&set).unwrap_or_default()).await,
                Err(failure) => Err(failure),
            };
            match result {
                Ok(_) => notes.done(t(Word::RollingBack)),
                Err(failure) => notes.failed(&failure),
            }
        });
    };
    view! {
        <section class="card"><ul class="revisions" data-testid="revisions">{move || revisions.get().into_iter().map(|r| {
            let name = r.replica_set.clone();
            view! {
                <li>
                    <span class="number">{Word::RevisionNumber.with(&[("n", &r.number)])}</span>
                    <span class="mono">{r.images.join(", ")}</span>
                    <span class="quiet">{r.cause}</span>
                    <span class="quiet"><Ago time=r.made/></span>
                    <span class="grow"></span>
                    {if r.current { view! { <span class="chip">{t(Word::Current)}</span> }.into_any() } else {
                        view! { <button class="button small" data-testid="roll-back" on:click=move |_| back(name.clone())>{icon(Icon::Undo2)}{t(Word::ActionRollBack)}</button> }.into_any()
                    }}
                </li>
            }
        }).collect_view()}</ul></section>
    }
}
