//! The dashboard: a client of the public API, in the browser.
//!
//! `client` is the wire (requests, the one stream, live collections), `components` are the parts, `pages` put them together.
//! What is decided without a browser lives in the crate `longshore-page-model`. Every list is a watch; nothing here polls.

mod app;
mod client;
mod components;
mod pages;
mod words {
    pub use longshore_page_model::words::*;
}

fn main() {
    console_error_panic_hook::set_once();
    leptos::mount::mount_to_body(app::App);
    // The skeleton that index.html painted has done its part.
    if let Some(skeleton) = leptos::prelude::document().get_element_by_id("skeleton") {
        skeleton.remove();
    }
}
