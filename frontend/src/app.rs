//! The root: what is provided once, and which page an address is.

use crate::client::session::{self, Signed};
use crate::client::{live, stream};
use crate::components::{dialog, shell::Shell, theme};
use crate::pages;
use crate::words::{Word, language, t};
use leptos::prelude::*;
use leptos_router::components::{FlatRoutes, Redirect, Route, Router};
use leptos_router::path;

#[component]
pub fn App() -> impl IntoView {
    stream::provide();
    live::provide_clock();
    theme::provide();
    dialog::provide();
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("lang", language().code);
        let _ = root.set_attribute("dir", language().direction);
    }
    let signed = session::signed();
    leptos::task::spawn_local(session::load());
    // What is signed in changes rarely and as a whole: the page below is made anew when it does.
    let stage = Memo::new(move |_| match signed.get() {
        Signed::Unknown => Stage::Waiting,
        Signed::Out { expired } => Stage::SignIn { expired },
        Signed::In(_) => Stage::Page,
        Signed::Unreachable => Stage::Unreachable,
    });
    view! {
        {move || match stage.get() {
            Stage::Waiting => view! { <div class="waiting" aria-busy="true"></div> }.into_any(),
            Stage::SignIn { expired } => view! { <pages::sign_in::SignIn expired/> }.into_any(),
            Stage::Unreachable => view! { <pages::sign_in::Unreachable/> }.into_any(),
            Stage::Page => view! { <Pages/> }.into_any(),
        }}
        <dialog::Toasts/>
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Waiting,
    SignIn { expired: bool },
    Page,
    Unreachable,
}

#[component]
fn Pages() -> impl IntoView {
    view! {
        <Router>
            <Shell>
                <FlatRoutes fallback=|| view! { <pages::NotFound what=t(Word::PageNotFound).to_string()/> }>
                    <Route path=path!("/") view=Start/>
                    <Route path=path!("/c/:cluster") view=pages::home::Home/>
                    <Route path=path!("/c/:cluster/new") view=pages::part::new_app/>
                    <Route path=path!("/c/:cluster/apply") view=pages::part::apply/>
                    <Route path=path!("/c/:cluster/add-node") view=pages::add_node::AddNode/>
                    <Route path=path!("/c/:cluster/kinds") view=pages::kinds::Kinds/>
                    <Route path=path!("/c/:cluster/policies") view=pages::part::policies/>
                    <Route path=path!("/c/:cluster/reach") view=pages::part::reach/>
                    <Route path=path!("/c/:cluster/topology") view=pages::part::topology/>
                    <Route path=path!("/c/:cluster/:kind") view=pages::list::List/>
                    <Route path=path!("/c/:cluster/:kind/:namespace/:name") view=pages::object::ObjectPage/>
                </FlatRoutes>
            </Shell>
        </Router>
    }
}

/// `/`: the first cluster there is.
#[component]
fn Start() -> impl IntoView {
    let first = session::session().and_then(|s| s.organizations.into_iter().flat_map(|o| o.clusters).next());
    match first {
        Some(cluster) => view! { <Redirect path=format!("/c/{}", cluster.id)/> }.into_any(),
        None => view! { <p class="empty">{t(Word::NoClusters)}</p> }.into_any(),
    }
}
