//! A live table of any kind: the server's columns, sorted, filtered, drawn only where it is looked at.

use super::icon::{Icon, icon};
use super::shell::is_typing;
use super::state::{Badge, Mark, ReadyBar};
use crate::client::cluster::{Scope, query_part, scope};
use crate::client::live::{self, Live};
use crate::words::{Word, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use longshore_page_model::kinds::Kind;
use longshore_page_model::state::State;
use longshore_page_model::table::{self, Column, Key, Row, Sort};
use longshore_page_model::time;
use std::sync::Arc;

/// Up to so many rows all are drawn, so that the browser's own search finds them.
const DRAWN_WHOLE: usize = 200;
/// Row heights by the style sheet (`--row`), in pixels: wide and phone.
const ROW_WIDE: f64 = 40.0;
const ROW_PHONE: f64 = 64.0;

/// What the table shows of one column.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    /// Its place in the row's cells; none for the namespace, which the page adds.
    index: Option<usize>,
    column: Column,
}

/// Columns with priority 0, and those that are worth their place although kubectl only shows them with `-o wide`.
fn shown_columns(kind: &str, columns: &[Column], with_namespace: bool) -> Vec<Shown> {
    let worth =
        |name: &str| matches!((kind, name), ("Deployment", "Images") | ("Pod", "Node") | ("Node", "Internal-IP"));
    let mut shown: Vec<Shown> = columns
        .iter()
        .enumerate()
        .filter(|(_, c)| c.priority == 0 || worth(&c.name))
        .map(|(index, column)| Shown { index: Some(index), column: column.clone() })
        .collect();
    if with_namespace {
        let column = Column { name: "Namespace".into(), r#type: "string".into(), ..Column::default() };
        shown.insert(1.min(shown.len()), Shown { index: None, column });
    }
    shown
}

#[component]
pub fn ResourceTable(
    kind: Kind,
    live: Live<Row>,
    /// Words to filter by.
    #[prop(into)]
    filter: Signal<String>,
    /// Part of another page: no keys, no sorting by address, grows with its rows.
    #[prop(default = false)]
    embedded: bool,
    /// What stands where there are no rows at all.
    #[prop(into)]
    empty: ViewFn,
) -> impl IntoView {
    let scope = scope();
    let namespaced = kind.namespaced;
    let kind_name = StoredValue::new(kind.kind.clone());
    let slug = StoredValue::new(kind.slug());
    let (sort_text, set_sort) = query_part("sort");
    let sort = Memo::new(move |_| if embedded { None } else { Sort::parse(&sort_text.get()) });
    let columns = Memo::new(move |_| {
        let with_namespace = namespaced && scope.namespace.get().is_none() && !embedded;
        live.data.with(|d| kind_name.with_value(|k| shown_columns(k, &d.columns, with_namespace)))
    });
    let keys = Memo::new(move |_| {
        let (filter, sort) = (filter.get(), sort.get());
        live.data.with(|data| {
            let mut rows: Vec<Arc<Row>> = data.items.values().filter(|r| table::matches(r, &filter)).cloned().collect();
            if let Some(sort) = &sort {
                table::sort(&mut rows, &data.columns, sort);
            }
            rows.iter()
                .map(|r| Key { namespace: r.metadata.namespace.clone(), name: r.metadata.name.clone() })
                .collect::<Vec<_>>()
        })
    });
    let height = if phone() { ROW_PHONE } else { ROW_WIDE };
    let (top, view) = (RwSignal::new(0.0), RwSignal::new(1200.0));
    let window = Memo::new(move |_| {
        let count = keys.with(Vec::len);
        if count <= DRAWN_WHOLE { (0, count) } else { table::window(count, height, top.get(), view.get()) }
    });
    let scroller = NodeRef::<html::Div>::new();
    let measure = move || {
        if let Some(element) = scroller.get_untracked() {
            top.set(f64::from(element.scroll_top()));
            view.set(f64::from(element.client_height()).max(400.0));
        }
    };
    let resized = window_event_listener(ev::resize, move |_| measure());
    on_cleanup(move || resized.remove());

    let chosen = RwSignal::new(None::<usize>);
    if !embedded {
        let navigate = use_navigate();
        let reveal = move |index: usize| {
            if let Some(element) = scroller.get_untracked() {
                let (start, end) = (index as f64 * height, (index + 2) as f64 * height);
                let (top, view) = (f64::from(element.scroll_top()), f64::from(element.client_height()));
                if start < top {
                    element.set_scroll_top(start as i32);
                } else if end > top + view {
                    element.set_scroll_top((end - view) as i32);
                }
            }
        };
        let pressed = window_event_listener(ev::keydown, move |event| {
            if is_typing(&event) || event.ctrl_key() || event.meta_key() || event.alt_key() {
                return;
            }
            let count = keys.with_untracked(Vec::len);
            let at = chosen.get_untracked();
            let open = |query: &str| {
                let key = at.and_then(|i| keys.with_untracked(|k| k.get(i).cloned()));
                if let Some(key) = key {
                    let href = slug.with_value(|s| scope.object(s, &key.namespace, &key.name));
                    let join = if query.is_empty() {
                        ""
                    } else if href.contains('?') {
                        "&"
                    } else {
                        "?"
                    };
                    navigate(&format!("{href}{join}{query}"), Default::default());
                }
            };
            match event.key().as_str() {
                "j" | "ArrowDown" if count > 0 => {
                    let next = at.map_or(0, |i| (i + 1).min(count - 1));
                    chosen.set(Some(next));
                    reveal(next);
                }
                "k" | "ArrowUp" if count > 0 => {
                    let next = at.map_or(0, |i| i.saturating_sub(1));
                    chosen.set(Some(next));
                    reveal(next);
                }
                "Enter" if at.is_some() && !on_control(&event) => open(""),
                "l" if kind_name.with_value(|k| k == "Pod") => open("tab=logs"),
                "Escape" => chosen.set(None),
                _ => return,
            }
            event.prevent_default();
        });
        on_cleanup(move || pressed.remove());
    }

    let head = move || {
        let set_sort = set_sort.clone();
        columns
            .get()
            .into_iter()
            .map(move |shown| head_cell(shown.column, sort, embedded, set_sort.clone()))
            .collect_view()
    };
    let span = move || columns.with(Vec::len).to_string();
    let before = move || format!("height:{}px", window.get().0 as f64 * height);
    let after =
        move || format!("height:{}px", (keys.with(Vec::len) - window.get().1.min(keys.with(Vec::len))) as f64 * height);
    let visible = move || {
        let (start, end) = window.get();
        keys.with(|k| (start..end.min(k.len())).map(|i| (i, k[i].clone())).collect::<Vec<_>>())
    };
    let is_empty = Memo::new(move |_| live.loaded() && live.data.with(|d| d.items.is_empty()));
    let none_match = Memo::new(move |_| !is_empty.get() && live.loaded() && keys.with(Vec::is_empty));
    let refused = move || live.trouble.get().filter(|_| !live.loaded());
    view! {
        {move || refused().map(|status| view! {
            <p class="inline-error" role="alert">{icon(Icon::CircleAlert)}{status.message}</p>
        })}
        <Show when=move || !is_empty.get() fallback={let empty = empty.clone(); move || empty.run()}>
            <div class="table-scroll" class:embedded=embedded node_ref=scroller on:scroll=move |_| measure()>
                <table class="table" data-kind=kind_name.get_value() aria-rowcount=move || keys.with(Vec::len).to_string()
                    aria-busy=move || (!live.loaded()).to_string()>
                    <thead><tr>{head.clone()}</tr></thead>
                    <tbody>
                        <tr class="spacer" aria-hidden="true" style=before><td colspan=span></td></tr>
                        <For each=visible key=|(_, key)| key.clone() let:item>
                            <TableRow key=item.1.clone() live kind=kind_name columns slug scope
                                chosen=Signal::derive(move || chosen.get().is_some_and(|at| keys.with(|k| k.get(at) == Some(&item.1))))/>
                        </For>
                        <tr class="spacer" aria-hidden="true" style=after><td colspan=span></td></tr>
                    </tbody>
                </table>
                <Show when=move || !live.loaded() && keys.with(Vec::is_empty) && live.trouble.with(Option::is_none)>
                    <Skeleton/>
                </Show>
                <Show when=move || none_match.get()><p class="table-none">{t(Word::NothingMatches)}</p></Show>
            </div>
        </Show>
    }
}

/// Grey lines where rows will be.
#[component]
pub fn Skeleton() -> impl IntoView {
    view! { <div class="skeleton-rows" aria-hidden="true">{(0..6).map(|_| view! { <div class="skeleton-row"><i></i><i></i><i></i></div> }).collect_view()}</div> }
}

pub fn phone() -> bool {
    window().match_media("(max-width: 720px)").ok().flatten().is_some_and(|m| m.matches())
}

/// Enter on a link or a button is theirs.
fn on_control(event: &ev::KeyboardEvent) -> bool {
    use wasm_bindgen::JsCast;
    let element = event.target().and_then(|t| t.dyn_into::<web_sys::Element>().ok());
    element.is_some_and(|e| matches!(e.tag_name().as_str(), "A" | "BUTTON"))
}

fn head_cell(
    column: Column,
    sort: Memo<Option<Sort>>,
    embedded: bool,
    set_sort: impl Fn(String) + Clone + Send + Sync + 'static,
) -> AnyView {
    let name = column.name.clone();
    if embedded {
        return view! { <th scope="col">{name}</th> }.into_any();
    }
    let by = move |name: &str| sort.with(|s| s.as_ref().filter(|s| s.column == name).map(|s| s.descending));
    let (shown, pressed, label) = (name.clone(), name.clone(), name.clone());
    let aria = move || match by(&shown) {
        None => "none",
        Some(false) => "ascending",
        Some(true) => "descending",
    };
    let press = move |_| {
        let descending = by(&pressed) == Some(false);
        set_sort(Sort { column: pressed.clone(), descending }.text());
    };
    let arrow = move || by(&name).map(|descending| icon(if descending { Icon::ArrowDown } else { Icon::ArrowUp }));
    view! {
        <th scope="col" aria-sort=aria title=column.description.clone()>
            <button class="sort" on:click=press>{label}{arrow}</button>
        </th>
    }
    .into_any()
}

#[component]
fn TableRow(
    key: Key,
    live: Live<Row>,
    kind: StoredValue<String>,
    columns: Memo<Vec<Shown>>,
    slug: StoredValue<String>,
    scope: Scope,
    chosen: Signal<bool>,
) -> impl IntoView {
    let href = {
        let key = key.clone();
        move || slug.with_value(|s| scope.object(s, &key.namespace, &key.name))
    };
    let name = key.name.clone();
    let namespace = StoredValue::new(key.namespace.clone());
    let row = Memo::new(move |_| live.data.with(|d| d.items.get(&key).cloned()));
    let young = Memo::new(move |_| {
        let made = row.with(|r| r.as_ref().and_then(|r| time::parse(&r.metadata.creation_timestamp)));
        made.is_some_and(|made| live::now() - made < 90_000)
    });
    let state = Memo::new(move |_| {
        let row = row.get()?;
        // What was just made may be on its way; which of the two it is changes with the clock.
        let now = if young.get() { live::now() } else { i64::MAX };
        live.data.with(|d| kind.with_value(|k| table::row_state(k, &row, &d.columns, now)))
    });
    let leaving = move || row.with(|r| r.as_ref().is_some_and(|r| r.metadata.deletion_timestamp.is_some()));
    let cells = move || {
        let (href, name) = (href.clone(), name.clone());
        columns
            .get()
            .into_iter()
            .enumerate()
            .map(move |(place, shown)| {
                if place == 0 {
                    let (href, name) = (href.clone(), name.clone());
                    // One mark a row: where a column says the state in words, it stands there.
                    let elsewhere = columns.with_untracked(|c| c.iter().any(|c| c.column.name == "Status"));
                    let mark = move || {
                        state
                            .get()
                            .filter(|_| !elsewhere)
                            .map(|_| view! { <Mark state=Signal::derive(move || state.get().unwrap_or_default())/> })
                    };
                    return view! { <td class="cell-name"><a href=href>{mark}<span>{name}</span></a></td> }.into_any();
                }
                cell_view(shown, row, state, namespace)
            })
            .collect_view()
    };
    view! { <tr class="row" class:chosen=chosen class:leaving=leaving aria-selected=move || chosen.get().to_string()>{cells}</tr> }
}

fn cell_view(
    shown: Shown,
    row: Memo<Option<Arc<Row>>>,
    state: Memo<Option<State>>,
    namespace: StoredValue<String>,
) -> AnyView {
    let name = shown.column.name.clone();
    let Some(index) = shown.index else {
        return view! { <td class="cell-text quiet" data-label=name>{namespace.get_value()}</td> }.into_any();
    };
    let column = StoredValue::new(shown.column);
    let text = Memo::new(move |_| {
        let row = row.get().unwrap_or_default();
        column.with_value(|c| {
            // Only ages go on by themselves: the other cells don't listen to the clock.
            let now = if c.name == "Age" { live::now() } else { 0 };
            table::cell(&row, index, c, now)
        })
    });
    match name.as_str() {
        "Status" => {
            let state = Signal::derive(move || state.get().unwrap_or_default());
            view! { <td class="cell-status" data-label=name><Badge state text=text/></td> }.into_any()
        }
        "Ready" => {
            let ratio = Memo::new(move |_| table::ratio(&text.get()));
            let bar = move || match ratio.get() {
                Some(_) => {
                    view! { <ReadyBar ready=Signal::derive(move || ratio.get().unwrap_or_default())/> }.into_any()
                }
                None => view! { {move || text.get()} }.into_any(),
            };
            view! { <td class="cell-ready" data-label=name>{bar}</td> }.into_any()
        }
        "Hosts" => {
            view! { <td class="cell-hosts mono" data-label=name title=move || text.get()>{move || text.get()}</td> }
                .into_any()
        }
        "Age" | "Last Seen" => {
            let made = move || row.with(|r| r.as_ref().map(|r| r.metadata.creation_timestamp.clone()));
            view! { <td class="cell-number quiet" data-label=name title=made>{move || text.get()}</td> }.into_any()
        }
        _ => {
            let number = matches!(column.with_value(|c| c.r#type.clone()).as_str(), "integer" | "number");
            let class = if number { "cell-number" } else { "cell-text mono" };
            let absent = move || text.with(|t| matches!(t.as_str(), "" | "<none>" | "<unknown>"));
            let shown = move || if absent() { "–".to_string() } else { text.get() };
            view! { <td class=class class:quiet=absent data-label=name title=move || text.get()>{shown}</td> }
                .into_any()
        }
    }
}
