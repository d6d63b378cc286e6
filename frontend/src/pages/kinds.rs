//! Every kind that the cluster has: custom ones too, as good as ours.

use crate::client::cluster::scope;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::kinds::Kind;

#[component]
pub fn Kinds() -> impl IntoView {
    let scope = scope();
    let kinds = move || {
        let found = scope.discovered.get();
        if found.is_empty() { Kind::all_known() } else { found }
    };
    view! {
        <div class="page">
            <header class="page-head"><h1>{t(Word::AllKinds)}</h1></header>
            <ul class="kinds">
                {move || kinds().into_iter().filter(|k| k.can("list")).map(|k| view! {
                    <li><a href=scope.list(&k.slug())><span>{k.kind.clone()}</span><span class="quiet mono">{k.api_version()}</span></a></li>
                }).collect_view()}
            </ul>
        </div>
    }
}
