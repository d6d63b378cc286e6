//! Applying YAML: several documents, tried on the server first, its errors at their lines.

use crate::client::apply::{Done, apply_all};
use crate::client::cluster::scope;
use crate::components::editor::Editor;
use crate::components::icon::{Icon, icon};
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::yaml::Mark;

const EXAMPLE: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: hello\nspec:\n  replicas: 3\n  selector:\n    matchLabels:\n      app: hello\n  template:\n    metadata:\n      labels:\n        app: hello\n    spec:\n      containers:\n      - name: hello\n        image: longshore/hello:v1\n        imagePullPolicy: IfNotPresent\n        ports:\n        - containerPort: 8080\n";

/// YAML on its way from another page to this one.
#[derive(Clone, Copy)]
pub struct Draft(pub RwSignal<Option<String>>);

#[component]
pub fn Apply() -> impl IntoView {
    let scope = scope();
    let draft = expect_context::<Draft>().0.try_update(Option::take).flatten();
    let text = RwSignal::new(draft.unwrap_or_else(|| EXAMPLE.to_string()));
    let marks = RwSignal::new(Vec::<Mark>::new());
    let done = RwSignal::new(Vec::<Done>::new());
    let busy = RwSignal::new(false);
    let run = move |for_real: bool| {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        done.set(Vec::new());
        leptos::task::spawn_local(async move {
            let source = text.get_untracked();
            let result = apply_all(scope, &source, for_real).await;
            busy.try_set(false);
            match result {
                Ok(all) => {
                    marks.try_set(Vec::new());
                    done.try_set(all);
                }
                Err(found) => {
                    marks.try_set(found);
                }
            }
        });
    };
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::DeployYaml)}</h1><span class="grow"></span>
                <a class="button" href=move || scope.page("/new")>{icon(Icon::Layers)}{t(Word::DeployForm)}</a></header>
            <p class="quiet">{move || Word::ApplyInto.with(&[("namespace", &scope.namespace.get().unwrap_or_else(|| "default".into()))])}</p>
            <Editor text marks label=t(Word::Yaml)/>
            <div class="toolbar">
                <button class="button" disabled=move || busy.get() data-testid="dry-run" on:click=move |_| run(false)>{t(Word::DryRun)}</button>
                <button class="button primary" disabled=move || busy.get() data-testid="apply" on:click=move |_| run(true)>{icon(Icon::Check)}{t(Word::Apply)}</button>
            </div>
            <ul class="applied" role="status" data-testid="applied">{move || done.get().into_iter().map(|d| view! {
                <li>{icon(Icon::CircleCheck)}<a href=d.href>{d.title}</a><span class="quiet">{t(d.word)}</span>
                    {d.warnings.into_iter().map(|w| view! { <p class="warning">{w}</p> }).collect_view()}</li>
            }).collect_view()}</ul>
        </div>
    }
}
