//! A new app from a form: what will be applied stands beside it as YAML, and goes on there when the form is too small.

use super::apply::Draft;
use crate::client::apply::apply_all;
use crate::client::cluster::scope;
use crate::components::editor::Editor;
use crate::components::icon::{Icon, icon};
use crate::words::{Word, t};
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use longshore_page_model::new_app::Form;
use longshore_page_model::yaml::Mark;

/// The sample that `make up` puts on the local node.
const SAMPLE: &str = "longshore/hello:v1";

fn empty() -> Form {
    Form { replicas: "3".into(), service: true, ..Form::default() }
}

#[component]
pub fn NewApp() -> impl IntoView {
    let scope = scope();
    let form = RwSignal::new(empty());
    let text = RwSignal::new(String::new());
    let marks = RwSignal::new(Vec::<Mark>::new());
    let busy = RwSignal::new(false);
    let draft = expect_context::<Draft>().0;
    Effect::new(move |_| {
        text.set(form.with(|f| if f.image.trim().is_empty() { String::new() } else { f.yaml() }));
        marks.set(Vec::new());
    });
    let navigate = use_navigate();
    let to_yaml = {
        let navigate = navigate.clone();
        move |_| {
            draft.set(Some(text.get_untracked()).filter(|text| !text.is_empty()));
            navigate(&untrack(|| scope.page("/apply")), Default::default());
        }
    };
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let navigate = navigate.clone();
        leptos::task::spawn_local(async move {
            match apply_all(scope, &text.get_untracked(), true).await {
                Ok(done) => {
                    if let Some(first) = done.first() {
                        navigate(&first.href, Default::default());
                    }
                }
                Err(found) => {
                    marks.try_set(found);
                }
            }
            busy.try_set(false);
        });
    };
    let input = move |word: Word,
                      testid: &'static str,
                      placeholder: &'static str,
                      get: fn(&mut Form) -> &mut String| {
        view! {
            <label class="field"><span>{t(word)}</span>
                <input class="input mono" data-testid=testid placeholder=placeholder autocomplete="off" spellcheck="false" autocapitalize="off"
                    prop:value=move || { let mut f = form.get(); std::mem::take(get(&mut f)) }
                    on:input=move |e| form.update(|f| *get(f) = event_target_value(&e))/></label>
        }
    };
    let incomplete = move || form.with(|f| f.image.trim().is_empty());
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::NewApp)}</h1><span class="grow"></span>
                <button class="button" data-testid="to-yaml" on:click=to_yaml>{icon(Icon::FileText)}{t(Word::ConfigureYaml)}</button></header>
            <div class="halves">
                <form class="card form" on:submit=submit>
                    {input(Word::Image, "new-image", SAMPLE, |f| &mut f.image)}
                    {input(Word::Name, "new-name", t(Word::NameHint), |f| &mut f.name)}
                    <div class="pair">
                        {input(Word::Replicas, "new-replicas", "1", |f| &mut f.replicas)}
                        {input(Word::Port, "new-port", t(Word::PortHint), |f| &mut f.port)}
                    </div>
                    <label class="toggle"><input type="checkbox" prop:checked=move || form.with(|f| f.service)
                        on:change=move |e| form.update(|f| f.service = event_target_checked(&e))/>
                        <span>{move || Word::Reachable.with(&[("name", &form.with(|f| match f.name() { name if name.is_empty() => "…".into(), name => name }))])}</span></label>
                    <label class="field"><span>{t(Word::Environment)}</span>
                        <textarea class="input mono" rows="4" spellcheck="false" autocapitalize="off" data-testid="new-environment"
                            prop:value=move || form.with(|f| f.environment.clone())
                            on:input=move |e| form.update(|f| f.environment = event_target_value(&e))></textarea>
                        <span class="quiet small-text hint">{t(Word::EnvironmentHint)}</span></label>
                    <div class="pair">
                        {input(Word::Cpu, "new-cpu", "250m", |f| &mut f.cpu)}
                        {input(Word::Memory, "new-memory", "128Mi", |f| &mut f.memory)}
                    </div>
                    <p class="quiet small-text">{t(Word::ResourcesHint)}</p>
                    <footer class="dialog-foot">
                        <button type="button" class="button" on:click=move |_| form.set(Form { image: SAMPLE.into(), port: "8080".into(), ..empty() })>{t(Word::SampleApp)}</button>
                        <button type="submit" class="button primary" data-testid="deploy" disabled=move || busy.get() || incomplete()>{icon(Icon::Check)}{t(Word::Deploy)}</button>
                    </footer>
                </form>
                <section class="preview" aria-label=t(Word::Preview)>
                    <h2>{t(Word::Preview)}</h2>
                    <Editor text marks label=t(Word::Preview) readonly=true/>
                </section>
            </div>
        </div>
    }
}
