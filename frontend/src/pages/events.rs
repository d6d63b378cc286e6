//! What happened lately, newest first: one list for the cluster or a namespace, live, folded as the server folds it.

use super::home::EventRows;
use crate::client::cluster::{query_part, scope};
use crate::client::live::{self, Query};
use crate::components::table::Skeleton;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::kinds::Kind;
use longshore_page_model::kube::Event;

/// More than this nobody scrolls through: a filter finds what is older.
const SHOWN: usize = 300;

#[component]
pub fn Events(kind: Kind) -> impl IntoView {
    let scope = scope();
    let live = live::watch::<Event>(move || {
        Some(Query::new(&scope.cluster.get(), kind.list_path(scope.namespace.get().as_deref())))
    });
    let (filter, set_filter) = query_part("q");
    let events = Memo::new(move |_| {
        let filter = filter.get().to_lowercase();
        let mut all: Vec<_> = live.data.with(|d| d.items.values().filter(|e| e.mentions(&filter)).cloned().collect());
        all.sort_by(|a, b| b.last_seen().cmp(a.last_seen()));
        all.truncate(SHOWN);
        all
    });
    let count = move || live.loaded().then(|| live.data.with(|d| d.items.len()));
    view! {
        <div class="page">
            <header class="page-head">
                <h1>{t(Word::Events)}</h1>
                <span class="count">{count}</span>
                <span class="grow"></span>
                <input class="input filter" type="search" placeholder=t(Word::FilterWords) aria-label=t(Word::FilterWords)
                    data-testid="filter" prop:value=filter on:input=move |e| set_filter(event_target_value(&e))/>
            </header>
            <section class="card" data-testid="events" aria-busy=move || (!live.loaded()).to_string()>
                <Show when=move || live.loaded() fallback=Skeleton><EventRows events/></Show>
            </section>
        </div>
    }
}
