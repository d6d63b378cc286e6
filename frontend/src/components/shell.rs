//! The frame around every page: rail, top bar with switchers, palette and the live dot, profile.

use super::icon::{Icon, icon};
use super::palette::Palette;
use super::theme::{self, Theme};
use crate::client::cluster::{Scope, provide_scope, query_part};
use crate::client::live::{self, Query};
use crate::client::session;
use crate::client::stream::{self, Freshness};
use crate::words::{Word, t};
use leptos::ev;
use leptos::prelude::*;
use leptos_router::hooks::use_location;
use longshore_page_model::table::Row;
use longshore_page_model::time;

/// What the rail leads to: icon, word, address, whether the phone's bottom bar has it.
const PLACES: &[(Icon, Word, &str, bool)] = &[
    (Icon::House, Word::Home, "", true),
    (Icon::Layers, Word::Deployments, "deployments", true),
    (Icon::Box, Word::PodsTitle, "pods", true),
    (Icon::Network, Word::Services, "services", false),
    (Icon::Globe, Word::Domains, "ingresses", false),
    (Icon::Waypoints, Word::Topology, "topology", false),
    (Icon::Shield, Word::Policies, "policies", false),
    (Icon::FileText, Word::ConfigMaps, "configmaps", false),
    (Icon::KeyRound, Word::Secrets, "secrets", false),
    (Icon::Server, Word::Nodes, "nodes", true),
    (Icon::Activity, Word::Events, "events", false),
    (Icon::Shapes, Word::AllKinds, "kinds", false),
];

/// What many parts want to open.
#[derive(Clone, Copy)]
pub struct Overlays {
    pub palette: RwSignal<bool>,
    pub keys: RwSignal<bool>,
    drawer: RwSignal<bool>,
}

#[component]
pub fn Shell(children: Children) -> impl IntoView {
    let scope = provide_scope();
    let overlays = Overlays { palette: RwSignal::new(false), keys: RwSignal::new(false), drawer: RwSignal::new(false) };
    provide_context(overlays);
    provide_context(crate::pages::apply::Draft(RwSignal::new(None)));
    let handle = window_event_listener(ev::keydown, move |event| shortcuts(&event, overlays));
    on_cleanup(move || handle.remove());
    let location = use_location();
    Effect::new(move |_| {
        location.pathname.track();
        overlays.drawer.set(false);
    });
    view! {
        <a class="skip" href="#main">{t(Word::SkipToContent)}</a>
        <div class="shell">
            <Rail scope overlays/>
            <div class="column">
                <TopBar scope overlays/>
                <main id="main" tabindex="-1">{children()}</main>
            </div>
        </div>
        <Palette open=overlays.palette/>
        <Keys open=overlays.keys/>
    }
}

/// Keys that work everywhere but where one types.
fn shortcuts(event: &ev::KeyboardEvent, overlays: Overlays) {
    if (event.ctrl_key() || event.meta_key()) && event.key().eq_ignore_ascii_case("k") {
        event.prevent_default();
        overlays.palette.update(|open| *open = !*open);
    } else if event.key() == "?" && !is_typing(event) {
        event.prevent_default();
        overlays.keys.set(true);
    }
}

/// Whether a key goes into a text, or a dialog is open.
pub fn is_typing(event: &ev::KeyboardEvent) -> bool {
    use wasm_bindgen::JsCast;
    let element = event.target().and_then(|t| t.dyn_into::<web_sys::Element>().ok());
    let in_text = element.is_some_and(|e| matches!(e.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT"));
    in_text || document().query_selector("dialog[open]").ok().flatten().is_some()
}

#[component]
fn Rail(scope: Scope, overlays: Overlays) -> impl IntoView {
    let location = use_location();
    let current = Memo::new(move |_| location.pathname.with(|p| p.split('/').nth(3).unwrap_or_default().to_string()));
    let link = move |(shape, word, slug, _): &(Icon, Word, &'static str, bool)| {
        let (shape, word, slug) = (*shape, *word, *slug);
        let href = move || if slug.is_empty() { scope.home() } else { scope.list(slug) };
        let here = move || current.with(|c| c == slug).then_some("page");
        view! { <a class="rail-link" href=href aria-current=here>{icon(shape)}<span>{t(word)}</span></a> }
    };
    view! {
        <nav class="rail" class:open=move || overlays.drawer.get() aria-label=t(Word::Navigation)>
            <a class="brand" href=move || scope.home()>{icon(Icon::Anchor)}<span>"Longshore"</span></a>
            <div class="rail-links">{PLACES.iter().map(link).collect_view()}</div>
            <a class="button primary rail-apply" href=move || scope.page("/new") data-testid="rail-deploy">{icon(Icon::Plus)}{t(Word::Deploy)}</a>
        </nav>
        <div class="scrim" class:open=move || overlays.drawer.get() on:click=move |_| overlays.drawer.set(false)></div>
        <nav class="bottom-bar" aria-label=t(Word::Navigation)>
            {PLACES.iter().filter(|place| place.3).map(link).collect_view()}
            <button class="rail-link" aria-expanded=move || overlays.drawer.get().to_string()
                on:click=move |_| overlays.drawer.update(|open| *open = !*open)>{icon(Icon::Menu)}<span>{t(Word::More)}</span></button>
        </nav>
    }
}

#[component]
fn TopBar(scope: Scope, overlays: Overlays) -> impl IntoView {
    view! {
        <header class="top">
            <ClusterName scope/>
            <NamespaceSwitch scope/>
            <button class="search-button" on:click=move |_| overlays.palette.set(true) aria-label=t(Word::Palette) data-testid="open-palette">
                {icon(Icon::Search)}<span>{t(Word::PaletteHint)}</span><kbd>"Ctrl K"</kbd>
            </button>
            <LiveDot/>
            <Profile overlays/>
        </header>
    }
}

#[component]
fn ClusterName(scope: Scope) -> impl IntoView {
    let navigate = leptos_router::hooks::use_navigate();
    let clusters = move || {
        let session = session::session().map(|s| s.organizations).unwrap_or_default();
        session
            .into_iter()
            .flat_map(|o| {
                let name = o.name.clone();
                o.clusters.into_iter().map(move |c| (name.clone(), c))
            })
            .collect::<Vec<_>>()
    };
    view! {
        {move || {
            let all = clusters();
            let navigate = navigate.clone();
            if all.len() > 1 {
                view! {
                    <select class="select" aria-label=t(Word::Cluster)
                        on:change=move |e| navigate(&format!("/c/{}", event_target_value(&e)), Default::default())>
                        {all.into_iter().map(|(organization, c)| {
                            let id = c.id.clone();
                            view! { <option value=c.id.to_string() selected=move || scope.cluster.get() == id>{format!("{organization} / {}", c.name)}</option> }
                        }).collect_view()}
                    </select>
                }.into_any()
            } else {
                let shown = scope.place().map(|(o, c)| if o.name == c.name { c.name } else { format!("{} / {}", o.name, c.name) });
                view! { <span class="place">{shown}</span> }.into_any()
            }
        }}
    }
}

#[component]
fn NamespaceSwitch(scope: Scope) -> impl IntoView {
    let namespaces = live::watch::<Row>(move || Some(Query::new(&scope.cluster.get(), "/api/v1/namespaces").table()));
    let (_, set) = query_part("ns");
    let names =
        Memo::new(move |_| namespaces.data.with(|d| d.items.keys().map(|k| k.name.clone()).collect::<Vec<_>>()));
    let options = move || {
        let chosen = scope.namespace.get();
        let mut names = names.get();
        // A namespace that is gone stays chosen, so that the page says what it shows.
        if let Some(chosen) = chosen.as_ref().filter(|c| !names.contains(c)) {
            names.push(chosen.clone());
        }
        names
            .into_iter()
            .map(|name| {
                let selected = chosen.as_ref() == Some(&name);
                view! { <option value=name.clone() selected=selected>{name.clone()}</option> }
            })
            .collect_view()
    };
    view! {
        <select class="select" aria-label=t(Word::Namespace) data-testid="namespace" on:change=move |e| set(event_target_value(&e))>
            <option value="" selected=move || scope.namespace.get().is_none()>{t(Word::AllNamespaces)}</option>
            {options}
        </select>
    }
}

/// Live, reconnecting, or stale since: on every page.
#[component]
fn LiveDot() -> impl IntoView {
    let freshness = stream::freshness();
    let class = move || match freshness.get() {
        Freshness::Live => "live-dot live",
        Freshness::Connecting => "live-dot connecting",
        Freshness::Reconnecting { .. } => "live-dot stale",
    };
    let text = Memo::new(move |_| match freshness.get() {
        Freshness::Live => t(Word::Live).to_string(),
        Freshness::Connecting => t(Word::Connecting).to_string(),
        Freshness::Reconnecting { since } => {
            live::now();
            let silent = js_sys::Date::now() - since;
            if silent < 5_000.0 {
                t(Word::Reconnecting).into()
            } else {
                Word::StaleSince.with(&[("span", &time::span(silent as i64))])
            }
        }
    });
    view! {
        <span class=class role="status" data-testid="live">
            <svg viewBox="0 0 16 16" aria-hidden="true">
                <circle class="live-ring" cx="8" cy="8" r="6"/><circle class="live-core" cx="8" cy="8" r="3.5"/>
            </svg>
            <span class="live-word">{move || text.get()}</span>
        </span>
    }
}

#[component]
fn Profile(overlays: Overlays) -> impl IntoView {
    let open = RwSignal::new(false);
    let theme = theme::theme();
    let email = move || session::session().map(|s| s.user.email).unwrap_or_default();
    let choice = move |value: Theme, shape: Icon, word: Word| {
        view! {
            <button class="menu-item" role="menuitemradio" aria-checked=move || (theme.get() == value).to_string()
                on:click=move |_| theme.set(value)>{icon(shape)}{t(word)}</button>
        }
    };
    view! {
        <div class="menu-anchor" on:keydown=move |e| if e.key() == "Escape" { open.set(false) }
            on:focusout=move |e: ev::FocusEvent| {
                use wasm_bindgen::JsCast;
                let inside = e.current_target().zip(e.related_target())
                    .and_then(|(menu, next)| Some(menu.dyn_into::<web_sys::Node>().ok()?.contains(next.dyn_ref::<web_sys::Node>())));
                if inside != Some(true) { open.set(false); }
            }>
            <button class="icon-button" aria-haspopup="menu" aria-expanded=move || open.get().to_string() aria-label=t(Word::Profile)
                data-testid="profile" on:click=move |_| open.update(|o| *o = !*o)>{icon(Icon::CircleUser)}</button>
            <Show when=move || open.get()>
                <div class="menu" role="menu" tabindex="-1">
                    <p class="menu-head">{email}</p>
                    {choice(Theme::System, Icon::Monitor, Word::ThemeSystem)}
                    {choice(Theme::Light, Icon::Sun, Word::ThemeLight)}
                    {choice(Theme::Dark, Icon::Moon, Word::ThemeDark)}
                    <hr/>
                    <button class="menu-item" role="menuitem" on:click=move |_| { open.set(false); overlays.keys.set(true); }>
                        {icon(Icon::Keyboard)}{t(Word::Shortcuts)}</button>
                    <button class="menu-item" role="menuitem" data-testid="sign-out"
                        on:click=move |_| leptos::task::spawn_local(session::sign_out())>{icon(Icon::LogOut)}{t(Word::SignOut)}</button>
                </div>
            </Show>
        </div>
    }
}

#[component]
fn Keys(open: RwSignal<bool>) -> impl IntoView {
    const KEYS: &[(&str, Word)] = &[
        ("Ctrl K", Word::KeyPalette),
        ("/", Word::KeyFilter),
        ("j k", Word::KeyMove),
        ("Enter", Word::KeyOpen),
        ("l", Word::KeyLogs),
        ("?", Word::KeyHelp),
        ("Esc", Word::KeyClose),
    ];
    view! {
        <super::dialog::Dialog open title=t(Word::Shortcuts).to_string()>
            <dl class="keys">
                {KEYS.iter().map(|(key, word)| view! { <div><dt><kbd>{*key}</kbd></dt><dd>{t(*word)}</dd></div> }).collect_view()}
            </dl>
        </super::dialog::Dialog>
    }
}
