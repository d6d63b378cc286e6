//! Applying documents: all are tried on the server first; only when it accepts each of them anything is changed.

use super::cluster::Scope;
use super::http::{self, Failure, MERGE_PATCH, YAML};
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::apply::{self, Subject};
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::yaml::{self, Document, Mark};

/// What became of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub title: String,
    pub word: Word,
    pub href: String,
    pub warnings: Vec<String>,
}

/// Applies them, or (not `for_real`) only tries; an error is what is wrong, at its lines.
pub async fn apply_all(scope: Scope, source: &str, for_real: bool) -> Result<Vec<Done>, Vec<Mark>> {
    let documents = yaml::read(source).map_err(|e| vec![Mark { line: e.line, message: e.message }])?;
    if documents.is_empty() {
        return Err(vec![Mark { line: 1, message: t(Word::NothingToApply).into() }]);
    }
    let (mut wrong, mut tried) = (Vec::new(), Vec::new());
    for document in &documents {
        match apply_one(scope, document, true).await {
            Ok(done) => tried.push(done),
            Err(marks) => wrong.extend(marks),
        }
    }
    if !wrong.is_empty() {
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
        vec![Mark {
            line,
            message: Word::UnknownKind.with(&[("kind", &subject.kind), ("version", &subject.api_version)]),
        }]
    })?;
    let namespace = match (kind.namespaced, subject.namespace.as_str()) {
        (false, _) => String::new(),
        (true, "") => scope.namespace.get_untracked().unwrap_or_else(|| "default".into()),
        (true, given) => given.to_string(),
    };
    let query =
        format!("?fieldValidation=Strict&fieldManager=longshore-page{}", if dry_run { "&dryRun=All" } else { "" });
    let list = kind.list_path(Some(&namespace));
    let path = format!("{list}/{}", segment(&subject.name));
    let mut warnings = Vec::new();
    if dry_run {
        // As written, so that it is the server's own reading of the text that is tried, with its words on each field. That
        // it exists already is said last of all.
        match scope.send("POST", &format!("{list}{query}"), Some((YAML, document.text.clone()))).await {
            Ok(answer) => warnings = answer.warnings,
            Err(failure) if failure.code() == 409 => {}
            Err(failure) => return Err(at(failure)),
        }
    }
    let live = match subject.name.as_str() {
        "" => None,
        _ => match scope.get::<serde_json::Value>(&path).await {
            Ok(live) => Some(live),
            Err(failure) if failure.code() == 404 => None,
            Err(failure) => return Err(at(failure)),
        },
    };
    let patch = live.as_ref().map(|live| apply::to_patch(&document.value, live));
    let (word, answer) = match patch {
        None if dry_run => (Word::Created, None),
        None => {
            let body = apply::to_create(&document.value).to_string();
            (
                Word::Created,
                Some(scope.send("POST", &format!("{list}{query}"), Some((http::JSON, body))).await.map_err(at)?),
            )
        }
        Some(Some(patch)) => {
            (Word::Changed, Some(scope.patch(&format!("{path}{query}"), MERGE_PATCH, patch).await.map_err(at)?))
        }
        Some(None) => (Word::Unchanged, None),
    };
    warnings.extend(answer.map(|a| a.warnings).unwrap_or_default());
    Ok(Done {
        title: format!("{} {}", subject.kind, subject.name),
        word,
        href: untrack(|| scope.object(&kind.slug(), &namespace, &subject.name)),
        warnings,
    })
}
