//! Applying YAML: several documents, tried on the server first, its errors at their lines.

use crate::client::cluster::{Scope, scope};
use crate::client::http::{self, Failure, MERGE_PATCH, YAML};
use crate::components::editor::Editor;
use crate::components::icon::{Icon, icon};
use crate::words::{Word, plural, t};
use leptos::prelude::*;
use longshore_page_model::apply::{self, Subject};
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::yaml::{self, Document, Mark};

const EXAMPLE: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: hello\nspec:\n  replicas: 3\n  selector:\n    matchLabels:\n      app: hello\n  template:\n    metadata:\n      labels:\n        app: hello\n    spec:\n      containers:\n      - name: hello\n        image: longshore/hello:1\n        imagePullPolicy: IfNotPresent\n        ports:\n        - containerPort: 8080\n";

/// What became of a document.
#[derive(Clone, Debug, PartialEq)]
struct Done {
    title: String,
    word: Word,
    href: String,
    warnings: Vec<String>,
}

#[component]
pub fn Apply() -> impl IntoView {
    let scope = scope();
    let text = RwSignal::new(EXAMPLE.to_string());
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
            <header class="page-head"><h1>{t(Word::DeployYaml)}</h1></header>
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

/// All documents are tried first; only when the server accepts each of them anything is changed.
async fn apply_all(scope: Scope, source: &str, for_real: bool) -> Result<Vec<Done>, Vec<Mark>> {
    let documents = yaml::read(source).map_err(|e| vec![Mark { line: e.line, message: e.message }])?;
    if documents.is_empty() {
        return Err(vec![Mark { line: 1, message: t(Word::NothingToApply).into() }]);
    }
    let mut wrong = Vec::new();
    let mut tried = Vec::new();
    for document in &documents {
        match apply_one(scope, document, true).await {
            Ok(done) => tried.push(done),
            Err(marks) => wrong.extend(marks),
        }
    }
    if !wrong.is_empty() {
        wrong.insert(0, Mark { line: wrong[0].line, message: plural(Word::Errors, wrong.len() as i64) });
        return Err(wrong);
    }
    if !for_real {
        return Ok(tried.into_iter().map(|d| Done { word: Word::WouldApply, ..d }).collect());
    }
    let mut done = Vec::new();
    for document in &documents {
        done.push(apply_one(scope, document, false).await?);
    }
    Ok(done)
}

async fn apply_one(scope: Scope, document: &Document, dry_run: bool) -> Result<Done, Vec<Mark>> {
    let at = |failure: Failure| yaml::marks(document, &failure.status);
    let here = |message: String| vec![Mark { line: document.line, message }];
    let subject = Subject::of(&document.value).map_err(|field| here(Word::FieldMissing.with(&[("field", &field)])))?;
    let kind = scope.discovered.with_untracked(|d| Kind::of(&subject.api_version, &subject.kind, d));
    let kind = kind.ok_or_else(|| {
        let line = document.line_of("kind");
        vec![Mark { line, message: Word::UnknownKind.with(&[("kind", &subject.kind), ("version", &subject.api_version)]) }]
    })?;
    let namespace = match (kind.namespaced, subject.namespace.as_str()) {
        (false, _) => String::new(),
        (true, "") => scope.namespace.get_untracked().unwrap_or_else(|| "default".into()),
        (true, given) => given.to_string(),
    };
    let query = format!("?fieldValidation=Strict&fieldManager=longshore-page{}", if dry_run { "&dryRun=All" } else { "" });
    let path = format!("{}/{}", kind.list_path(Some(&namespace)), segment(&subject.name));
    let live = match subject.name.as_str() {
        "" => None,
        _ => match scope.get::<serde_json::Value>(&path).await {
            Ok(live) => Some(live),
            Err(failure) if failure.code() == 404 => None,
            Err(failure) => return Err(at(failure)),
        },
    };
    let (word, answer) = match &live {
        None => {
            // A dry run sends the text as written, so that the server's reading is the one that is tried.
            let body = if dry_run { (YAML, document.text.clone()) } else { (http::JSON, apply::to_create(&document.value).to_string()) };
            let path = format!("{}{query}", kind.list_path(Some(&namespace)));
            (Word::Created, Some(scope.send("POST", &path, Some(body)).await.map_err(at)?))
        }
        Some(live) => match apply::to_patch(&document.value, live) {
            Some(patch) => (Word::Changed, Some(scope.patch(&format!("{path}{query}"), MERGE_PATCH, patch).await.map_err(at)?)),
            None => (Word::Unchanged, None),
        },
    };
    Ok(Done {
        title: format!("{} {}", subject.kind, subject.name),
        word,
        href: scope.object(&kind.slug(), &namespace, &subject.name),
        warnings: answer.map(|a| a.warnings).unwrap_or_default(),
    })
}
