//! Policies as a table of who may reach whom; a cell leads to why.

use super::reach::{Judged, href};
use crate::client::cluster::scope;
use crate::components::icon::{Icon, icon};
use crate::words::{Word, plural, t};
use leptos::prelude::*;
use longshore_page_model::reach::matrix::{Party, matrix};
use longshore_page_model::workload;

#[component]
pub fn Policies() -> impl IntoView {
    let scope = scope();
    let judged = Judged::watch(scope);
    let shown = Memo::new(move |_| {
        let wanted = scope.namespace.get();
        let pods: Vec<_> = judged.pods.data.with(|p| p.items.values().cloned().collect());
        let here = pods.into_iter().filter(|pod| wanted.as_ref().is_none_or(|ns| *ns == pod.metadata.namespace));
        matrix(&workload::group(here), &judged.namespaces(), &judged.policies())
    });
    let painted = Memo::new(move |_| {
        let with_namespace = scope.namespace.get().is_none();
        shown.with(|shown| shown.paint(with_namespace, |from: &Party, to: &Party| href(scope, &from.key(), &to.key())))
    });
    let hidden = move || {
        let hidden = shown.with(|m| m.hidden);
        (hidden > 0).then(|| view! { <p class="inline-warning">{plural(Word::MatrixHidden, hidden as i64)}</p> })
    };
    let empty = Memo::new(move |_| judged.loaded() && shown.with(|m| m.parties.len() < 2));
    view! {
        <div class="page matrix-page">
            <header class="page-head"><h1>{t(Word::Matrix)}</h1><span class="grow"></span>
                <a class="button" href=move || scope.list("networkpolicies")>{icon(Icon::Shield)}{t(Word::PolicyList)}</a>
                <a class="button" href=move || scope.page("/reach")>{icon(Icon::Route)}{t(Word::Reach)}</a></header>
            <p class="quiet">{t(Word::MatrixText)}</p>
            {hidden}
            <Show when=move || !empty.get() fallback=|| view! { <div class="empty"><h2>{t(Word::NoPods)}</h2></div> }>
                <div class="table-scroll" tabindex="0" role="region" aria-label=t(Word::Matrix)>
                    <table class="matrix" data-testid="matrix" aria-busy=move || (!judged.loaded()).to_string() inner_html=move || painted.get()></table>
                </div>
            </Show>
        </div>
    }
}
