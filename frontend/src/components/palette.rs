//! The command palette: go to anything by typing part of its name.
//!
//! Objects come from a search of what the cluster has, asked only while the palette is open: pods, deployments, services
//! and nodes as Tables, through the same stream as everything.

use super::icon::{Icon, icon};
use crate::client::cluster::{Scope, scope};
use crate::client::live::{self, Query};
use crate::words::{Word, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use longshore_page_model::kinds::Kind;
use longshore_page_model::table::Row;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    shape: Icon,
    title: String,
    detail: String,
    href: String,
}

/// More than this nobody reads: type another letter.
const SHOWN: usize = 12;

const OBJECTS: &[(Icon, &str)] = &[
    (Icon::Layers, "deployments"),
    (Icon::Box, "pods"),
    (Icon::Network, "services"),
    (Icon::Globe, "ingresses"),
    (Icon::Server, "nodes"),
];

#[component]
pub fn Palette(open: RwSignal<bool>) -> impl IntoView {
    let node = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let wanted = open.get();
        if let Some(dialog) = node.get() {
            if wanted && !dialog.open() {
                let _ = dialog.show_modal();
            } else if !wanted && dialog.open() {
                dialog.close();
            }
        }
    });
    view! {
        <dialog node_ref=node class="palette" aria-label=t(Word::Palette) on:close=move |_| open.set(false)
            on:click=move |event: ev::MouseEvent| {
                let on_backdrop = event.target().and_then(|t| wasm_bindgen::JsCast::dyn_into::<web_sys::HtmlDialogElement>(t).ok());
                if on_backdrop.is_some() { open.set(false); }
            }>
            <Show when=move || open.get()><Search open/></Show>
        </dialog>
    }
}

#[component]
fn Search(open: RwSignal<bool>) -> impl IntoView {
    let scope = scope();
    let text = RwSignal::new(String::new());
    let chosen = RwSignal::new(0usize);
    let sources: Vec<_> = OBJECTS
        .iter()
        .map(|(shape, slug)| {
            let rows = live::watch::<Row>(move || {
                let kind = Kind::by_slug(slug, &[])?;
                // Nothing is asked for before there is something to look for.
                (text.with(|t| t.trim().len()) > 1)
                    .then(|| Query::new(&scope.cluster.get(), kind.list_path(None)).table())
            });
            (*shape, *slug, rows)
        })
        .collect();
    let entries = Memo::new(move |_| {
        let wanted = text.with(|t| t.trim().to_lowercase());
        let mut found = places(scope, wanted.as_str());
        for (shape, slug, rows) in &sources {
            rows.data.with(|data| {
                let hits = data.items.keys().filter(|k| wanted.len() > 1 && fits(&k.name, &wanted));
                found.extend(hits.take(SHOWN).map(|k| Entry {
                    shape: *shape,
                    title: k.name.clone(),
                    detail: if k.namespace.is_empty() { (*slug).into() } else { format!("{slug} · {}", k.namespace) },
                    href: scope.object(slug, &k.namespace, &k.name),
                }));
            });
        }
        // What begins with the words comes first, then the short ones.
        found.sort_by_key(|e| (!e.title.to_lowercase().starts_with(&wanted), !wanted.is_empty() && e.title.len() > 60));
        found.truncate(SHOWN);
        found
    });
    let input = NodeRef::<html::Input>::new();
    Effect::new(move |_| {
        if let Some(input) = input.get() {
            let _ = input.focus();
        }
    });
    let navigate = use_navigate();
    let go = move |entry: Entry| {
        open.set(false);
        navigate(&entry.href, Default::default());
    };
    let go_chosen = go.clone();
    let keys = move |event: ev::KeyboardEvent| {
        let last = entries.with(Vec::len).saturating_sub(1);
        match event.key().as_str() {
            "ArrowDown" => chosen.update(|c| *c = (*c + 1).min(last)),
            "ArrowUp" => chosen.update(|c| *c = c.saturating_sub(1)),
            "Enter" => {
                if let Some(entry) = entries.with(|e| e.get(chosen.get_untracked()).cloned()) {
                    go_chosen(entry);
                }
            }
            _ => return,
        }
        event.prevent_default();
    };
    view! {
        <div class="palette-body" on:keydown=keys>
            <label class="palette-input">
                {icon(Icon::Search)}
                <input node_ref=input role="combobox" aria-expanded="true" aria-controls="palette-list" aria-label=t(Word::Palette)
                    placeholder=t(Word::PaletteHint) autocomplete="off" spellcheck="false" data-testid="palette-input"
                    aria-activedescendant=move || format!("palette-{}", chosen.get())
                    on:input=move |e| { text.set(event_target_value(&e)); chosen.set(0); }/>
            </label>
            <ul id="palette-list" role="listbox" class="palette-list">
                {move || {
                    let go = go.clone();
                    entries.get().into_iter().enumerate().map(move |(index, entry)| {
                        let (go, target) = (go.clone(), entry.clone());
                        view! {
                            <li id=format!("palette-{index}") role="option" class="palette-item"
                                aria-selected=move || (chosen.get() == index).to_string()
                                on:mousemove=move |_| chosen.set(index) on:click=move |_| go(target.clone())>
                                {icon(entry.shape)}<span class="palette-title">{entry.title}</span><span class="quiet">{entry.detail}</span>
                            </li>
                        }
                    }).collect_view()
                }}
            </ul>
            <Show when=move || entries.with(Vec::is_empty)><p class="palette-none">{t(Word::NothingFound)}</p></Show>
        </div>
    }
}

/// All letters, in order: `wbfr` finds `web-frontend`.
fn fits(name: &str, wanted: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    name.to_lowercase().contains(wanted) || wanted.len() > 2 && wanted.chars().all(|w| letters.any(|l| l == w))
}

/// Pages and kinds.
fn places(scope: Scope, wanted: &str) -> Vec<Entry> {
    let fixed = [
        (Icon::House, Word::Home, scope.home()),
        (Icon::Plus, Word::Deploy, scope.page("/new")),
        (Icon::FileText, Word::DeployYaml, scope.page("/apply")),
        (Icon::Server, Word::AddNode, scope.page("/add-node")),
        (Icon::Waypoints, Word::Topology, scope.list("topology")),
        (Icon::Shield, Word::Matrix, scope.list("policies")),
        (Icon::Route, Word::Reach, scope.list("reach")),
        (Icon::Shapes, Word::AllKinds, scope.list("kinds")),
    ];
    let mut all: Vec<Entry> = fixed
        .into_iter()
        .map(|(shape, word, href)| Entry { shape, title: t(word).into(), detail: t(Word::GoTo).into(), href })
        .collect();
    let discovered = scope.discovered.get();
    let kinds = if discovered.is_empty() { Kind::all_known() } else { discovered };
    all.extend(kinds.into_iter().filter(|k| k.can("list")).map(|kind| Entry {
        shape: Icon::Shapes,
        title: kind.plural.clone(),
        detail: kind.api_version(),
        href: scope.list(&kind.slug()),
    }));
    all.retain(|entry| wanted.is_empty() || fits(&entry.title, wanted));
    all
}
