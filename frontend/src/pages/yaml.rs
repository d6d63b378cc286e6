//! An object as YAML.

use super::object::Subject;
use crate::client::http::{self, YAML};
use crate::components::dialog::say;
use crate::components::editor::Editor;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::{apply, yaml};

/// To read and to change: it is not overwritten while one types.
#[component]
pub fn YamlTab(subject: Subject) -> impl IntoView {
    let text = RwSignal::new(String::new());
    let base = RwSignal::new(String::new());
    let marks = RwSignal::new(Vec::new());
    let busy = RwSignal::new(false);
    let notes = say();
    let printed =
        Memo::new(move |_| subject.whole.get().map(|w| yaml::print(&apply::editable(&w.tree))).unwrap_or_default());
    Effect::new(move |_| {
        let printed = printed.get();
        if text.with_untracked(|t| base.with_untracked(|b| t == b)) {
            text.set(printed.clone());
            base.set(printed);
        }
    });
    let edited = Memo::new(move |_| text.with(|t| base.with(|b| t != b)));
    let newer = Memo::new(move |_| edited.get() && printed.with(|p| base.with(|b| p != b)));
    let reload = move |_| {
        let printed = printed.get_untracked();
        text.set(printed.clone());
        base.set(printed);
        marks.set(Vec::new());
    };
    let save = move |_| {
        busy.set(true);
        leptos::task::spawn_local(async move {
            let source = text.get_untracked();
            let path = subject.scope.url(&subject.path());
            let result = async {
                for query in ["?fieldValidation=Strict&dryRun=All", "?fieldValidation=Strict"] {
                    http::send("PUT", &format!("{path}{query}"), http::JSON, Some((YAML, source.clone()))).await?;
                }
                Ok::<_, http::Failure>(())
            };
            match (yaml::read(&source), result.await) {
                (_, Ok(())) => {
                    marks.set(Vec::new());
                    base.set(source);
                    notes.done(t(Word::Saved));
                }
                (Ok(documents), Err(failure)) if !documents.is_empty() => {
                    marks.set(yaml::marks(&documents[0], &failure.status))
                }
                (Err(error), Err(_)) => marks.set(vec![yaml::Mark { line: error.line, message: error.message }]),
                (_, Err(failure)) => notes.failed(&failure),
            }
            busy.set(false);
        });
    };
    view! {
        <Show when=move || newer.get()><p class="inline-warning" role="status">{t(Word::ChangedMeanwhile)}<button class="button small" on:click=reload>{t(Word::LoadNewest)}</button></p></Show>
        <Editor text marks label=t(Word::Yaml)/>
        <div class="toolbar"><button class="button primary" disabled=move || busy.get() || !edited.get() on:click=save data-testid="save">{t(Word::Save)}</button></div>
    }
}
