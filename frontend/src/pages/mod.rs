//! The pages, one file each.

pub mod add_node;
pub mod apply;
pub mod deployment;
pub mod domain;
pub mod events;
pub mod home;
pub mod kinds;
pub mod list;
pub mod new_app;
pub mod node;
pub mod object;
pub mod part;
pub mod pod;
pub mod policies;
pub mod reach;
pub mod service;
pub mod sign_in;
pub mod topology;
pub mod yaml;

use crate::components::icon::{Icon, icon};
use leptos::prelude::*;

/// Something that isn't there, said kindly.
#[component]
pub fn NotFound(#[prop(into)] what: String) -> impl IntoView {
    view! { <div class="empty">{icon(Icon::Search)}<h1>{what}</h1></div> }
}
