//! Parts of the page that are fetched when they are first opened, so that the first page stays small: each is a piece of
//! WebAssembly of its own that `scripts/build-page` cuts off at the functions below. What several of them use comes in a
//! piece that they share; what the first page uses too stays in it.

use super::object::Subject;
use super::{apply, domain, new_app, policies, reach, topology, yaml};
use crate::components::icon::{Icon, icon};
use crate::words::{Word, t};
use leptos::prelude::*;
use leptos::wasm_split::{SplitLoaderError, wasm_split};
use send_wrapper::SendWrapper;

type Fetched = Result<AnyView, SplitLoaderError>;

/// `parts! { piece { name = view; name(subject) = view; } }`: for each name a function that shows the view as soon as its
/// piece is there.
macro_rules! parts {
    ($($piece:ident { $($name:ident$(($subject:ident))? = $view:expr;)* })*) => {
        mod pieces {
            use super::*;
            $($(
                #[wasm_split($piece, wasm_split_path = ::leptos::wasm_split, fallible)]
                pub fn $name($($subject: Subject)?) -> Fetched {
                    Ok($view.into_any())
                }
            )*)*
        }
        $($(
            pub fn $name($($subject: Subject)?) -> AnyView {
                shown(pieces::$name($($subject)?))
            }
        )*)*
    };
}

parts! {
    edit {
        apply = view! { <apply::Apply/> };
        new_app = view! { <new_app::NewApp/> };
        yaml(subject) = view! { <yaml::YamlTab subject/> };
        give_domain(subject) = view! { <domain::GiveDomain subject/> };
    }
    network {
        domain(subject) = view! { <domain::Overview subject/> };
        topology = view! { <topology::Topology/> };
        reach = view! { <reach::Reach/> };
        policies = view! { <policies::Policies/> };
    }
}

/// Empty until the piece is there; the style says that it is on its way.
fn shown<F: Future<Output = Fetched> + 'static>(piece: F) -> AnyView {
    let view = SendWrapper::new(async move { piece.await.unwrap_or_else(|_| missing().into_any()) });
    view! { <div class="part">{Suspend::new(view)}</div> }.into_any()
}

/// The piece isn't there: the network is away, or the server has a newer page than this one.
fn missing() -> impl IntoView {
    let again = |_| {
        let _ = window().location().reload();
    };
    view! { <div class="empty" role="alert"><h2>{t(Word::PartMissing)}</h2>
    <button class="button" on:click=again>{icon(Icon::RotateCw)}{t(Word::LoadPageAgain)}</button></div> }
}
