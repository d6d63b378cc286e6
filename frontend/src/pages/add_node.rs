//! Adding a node: the line to paste, and the new machine appearing with its checks.

use crate::client::cluster::scope;
use crate::client::http;
use crate::client::live::{self, Query};
use crate::components::dialog::Copy;
use crate::components::icon::{Icon, icon};
use crate::components::state::Mark;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_api::accounts::{JoinToken, NewJoinToken};
use longshore_page_model::kube::Node;
use longshore_page_model::node::{checks, sentence};
use longshore_page_model::state::State;
use longshore_page_model::time;

#[component]
pub fn AddNode() -> impl IntoView {
    let scope = scope();
    let token = RwSignal::new(None::<Result<JoinToken, String>>);
    let cluster = scope.cluster.get_untracked();
    leptos::task::spawn_local(async move {
        let path = format!("/v1/clusters/{cluster}/join-tokens");
        let answer = http::post::<JoinToken>(&path, &NewJoinToken::default()).await;
        token.try_set(Some(answer.map_err(|failure| failure.message())));
    });
    let nodes = live::watch::<Node>(move || Some(Query::new(&scope.cluster.get(), "/api/v1/nodes")));
    // Those that were there before are no news.
    let before = StoredValue::new(None::<Vec<String>>);
    let new = Memo::new(move |_| {
        if !nodes.loaded() {
            return Vec::new();
        }
        nodes.data.with(|data| {
            let known = before.with_value(Clone::clone).unwrap_or_else(|| {
                let names: Vec<String> = data.items.values().map(|n| n.metadata.uid.clone()).collect();
                before.set_value(Some(names.clone()));
                names
            });
            data.items.values().filter(|n| !known.contains(&n.metadata.uid)).cloned().collect::<Vec<_>>()
        })
    });
    view! {
        <div class="page narrow">
            <header class="page-head"><h1>{t(Word::AddNode)}</h1></header>
            <section class="card">
                <h2>{t(Word::PasteLine)}</h2>
                <p class="quiet">{t(Word::PasteLineText)}</p>
                {move || match token.get() {
                    None => view! { <p class="quiet" aria-busy="true">{t(Word::Loading)}</p> }.into_any(),
                    Some(Err(message)) => view! { <p class="inline-error" role="alert">{icon(Icon::CircleAlert)}{message}</p> }.into_any(),
                    Some(Ok(token)) => view! {
                        <div class="paste"><code data-testid="join-line">{token.command.clone()}</code><Copy text=token.command label=Word::Copy/></div>
                        {token.expires_at.map(|time| view! { <p class="quiet small-text">{move || Word::TokenFor.with(&[("span", &time::until(&time, live::now()))])}</p> })}
                    }.into_any(),
                }}
            </section>
            <section class="card" aria-live="polite" data-testid="new-nodes">
                <h2>{t(Word::NewNodes)}</h2>
                <Show when=move || new.with(Vec::is_empty)><p class="waiting-line"><Mark state=State::Progressing/>{t(Word::WaitingForNode)}</p></Show>
                {move || new.get().into_iter().map(|node| {
                    let said = sentence(&node, None, live::now());
                    view! {
                        <article class="new-node">
                            <h3><Mark state=said.state/><a href=scope.object("nodes", "", &node.metadata.name)>{node.metadata.name.clone()}</a></h3>
                            <p>{said.text}</p>
                            <ul class="checks">{checks(&node).into_iter().map(|check| {
                                let state = match check.holds { Some(true) => State::Good, Some(false) => State::Failing, None => State::Progressing };
                                view! { <li><Mark state=state/>{t(check.name)}<span class="quiet mono">{check.shown}</span></li> }
                            }).collect_view()}</ul>
                        </article>
                    }
                }).collect_view()}
            </section>
        </div>
    }
}
