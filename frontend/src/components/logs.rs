//! A container's output, live: follow, pause with "12 new lines", the container before it died, how far back.

use super::icon::{Icon, icon};
use crate::client::cluster::scope;
use crate::client::stream::{self, Message, Subscription};
use crate::words::{Word, plural, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use longshore_api::stream::{ClientFrame, Logs};
use longshore_page_model::kinds::{Kind, segment};
use longshore_page_model::lines::{Line, Lines};
use send_wrapper::SendWrapper;
use std::collections::BTreeMap;
use std::time::Duration;

/// How far back, in lines.
const TAILS: [u32; 3] = [200, 1_000, 5_000];

#[component]
pub fn LogView(
    #[prop(into)] namespace: String,
    #[prop(into)] pod: String,
    /// The pod's containers by name, init containers first.
    #[prop(into)]
    containers: Signal<Vec<String>>,
    container: RwSignal<String>,
    previous: RwSignal<bool>,
) -> impl IntoView {
    let scope = scope();
    let path = Kind::by_slug("pods", &[]).map(|k| k.object_path(&namespace, &pod)).unwrap_or_default() + "/log";
    let path = StoredValue::new(path);
    let tail = RwSignal::new(TAILS[0]);
    let times = RwSignal::new(false);
    let wrap = RwSignal::new(true);
    let lines = RwSignal::new(Lines::default());
    let ended = RwSignal::new(None::<Option<String>>);
    let following = RwSignal::new(true);
    // The line up to which a paused view shows; later ones count as new.
    let paused_at = RwSignal::new(None::<u64>);
    let held: StoredValue<Option<SendWrapper<Subscription>>> = StoredValue::new(None);
    let restart = Trigger::new();

    Effect::new(move |_| {
        restart.track();
        let (container, previous, tail) = (container.get(), previous.get(), tail.get());
        held.set_value(None);
        lines.set(Lines::default());
        ended.set(None);
        paused_at.set(None);
        if container.is_empty() {
            return;
        }
        let mut query = BTreeMap::from([
            ("container".to_string(), container),
            ("tailLines".into(), tail.to_string()),
            ("timestamps".into(), "true".into()),
        ]);
        if previous {
            query.insert("previous".into(), "true".into());
        } else {
            query.insert("follow".into(), "true".into());
        }
        let cluster = scope.cluster.get();
        let frame = |id| ClientFrame::Logs(Logs { id, cluster, path: path.get_value(), query });
        let waiting = StoredValue::new(String::new());
        let subscription = stream::subscribe(frame, move |message| match message {
            Message::Log(text) => {
                // A burst of frames is one repaint.
                let first = waiting.try_update_value(|w| {
                    let first = w.is_empty();
                    w.push_str(text);
                    first
                });
                if first == Some(true) {
                    set_timeout(
                        move || {
                            let text = waiting.try_update_value(std::mem::take).unwrap_or_default();
                            lines.try_update(|l| l.push(&text));
                        },
                        Duration::from_millis(40),
                    );
                }
            }
            Message::End(status) => {
                set_timeout(
                    move || {
                        lines.try_update(Lines::end);
                        ended.try_set(Some(status.as_ref().map(|s| s.message.clone())));
                    },
                    Duration::from_millis(60),
                );
            }
            // The connection was lost: what was missed is unknown, so the tail is asked for again.
            Message::Resumed => {
                lines.try_set(Lines::default());
            }
            _ => {}
        });
        held.set_value(Some(SendWrapper::new(subscription)));
    });
    on_cleanup(move || held.set_value(None));

    let scroller = NodeRef::<html::Div>::new();
    let to_end = move || {
        if let Some(element) = scroller.get_untracked() {
            element.set_scroll_top(element.scroll_height());
        }
    };
    Effect::new(move |_| {
        lines.track();
        if following.get() {
            request_animation_frame(to_end);
        }
    });
    let pause = move || {
        if following.get_untracked() {
            following.set(false);
            paused_at.set(lines.with_untracked(|l| l.lines.back().map(|line| line.number)));
        }
    };
    let follow = move || {
        paused_at.set(None);
        following.set(true);
        request_animation_frame(to_end);
    };
    let scrolled = move |_: ev::Event| {
        if let Some(element) = scroller.get_untracked() {
            let at_end = element.scroll_top() + element.client_height() >= element.scroll_height() - 4;
            match (at_end, following.get_untracked()) {
                (false, true) if element.scroll_height() > element.client_height() => pause(),
                (true, false) => follow(),
                _ => {}
            }
        }
    };
    let new_lines = Memo::new(move |_| {
        let at = paused_at.get()?;
        let newest = lines.with(|l| l.lines.back().map(|line| line.number))?;
        (newest > at).then(|| (newest - at) as i64)
    });
    let shown = move || lines.with(|l| l.lines.iter().cloned().collect::<Vec<Line>>());
    let download = move |_| {
        let name = format!("{pod}-{}.log", container.get_untracked());
        save(&name, &lines.with_untracked(Lines::text));
    };
    view! {
        <section class="logs" aria-label=t(Word::Logs)>
            <div class="toolbar">
                <select class="select" aria-label=t(Word::Container) data-testid="log-container" on:change=move |e| container.set(event_target_value(&e))>
                    {move || containers.get().into_iter().map(|name| {
                        let own = name.clone();
                        view! { <option value=name.clone() selected=move || container.get() == own>{name.clone()}</option> }
                    }).collect_view()}
                </select>
                <select class="select" aria-label=t(Word::HowFarBack) on:change=move |e| { if let Ok(n) = event_target_value(&e).parse() { tail.set(n); } }>
                    {TAILS.iter().map(|n| view! { <option value=n.to_string()>{Word::LastLines.with(&[("n", n)])}</option> }).collect_view()}
                </select>
                <label class="toggle"><input type="checkbox" prop:checked=previous on:change=move |e| previous.set(event_target_checked(&e))/>{t(Word::Previous)}</label>
                <label class="toggle"><input type="checkbox" prop:checked=times on:change=move |e| times.set(event_target_checked(&e))/>{t(Word::Timestamps)}</label>
                <label class="toggle"><input type="checkbox" prop:checked=wrap on:change=move |e| wrap.set(event_target_checked(&e))/>{t(Word::Wrap)}</label>
                <span class="grow"></span>
                <button class="button small" data-testid="log-follow" on:click=move |_| if following.get_untracked() { pause() } else { follow() }>
                    {move || if following.get() { icon(Icon::Pause) } else { icon(Icon::Play) }}
                    {move || t(if following.get() { Word::Pause } else { Word::Follow })}
                </button>
                <button class="icon-button" aria-label=t(Word::Download) on:click=download>{icon(Icon::Download)}</button>
            </div>
            <div class="log-lines" class:wrap=wrap class:times=times node_ref=scroller on:scroll=scrolled tabindex="0" role="log" data-testid="log">
                <Show when=move || lines.with(|l| l.dropped > 0)>
                    <p class="log-note">{move || Word::LinesDropped.with(&[("n", &lines.with(|l| l.dropped))])}</p>
                </Show>
                <For each=shown key=|line| line.number let:line>
                    <div class="log-line"><time>{line.time.clone()}</time><span>{line.text.clone()}</span></div>
                </For>
                {move || match (ended.get(), lines.with(|l| l.lines.is_empty())) {
                    (Some(Some(message)), _) => Some(view! { <p class="log-note failed" role="alert">{message}
                        <button class="button small" on:click=move |_| restart.notify()>{t(Word::TryAgain)}</button></p> }.into_any()),
                    (Some(None), _) => Some(view! { <p class="log-note">{t(Word::LogEnded)}</p> }.into_any()),
                    (None, true) => Some(view! { <p class="log-note">{t(Word::LogNothingYet)}</p> }.into_any()),
                    _ => None,
                }}
            </div>
            {move || new_lines.get().map(|n| view! {
                <button class="new-lines" data-testid="new-lines" on:click=move |_| follow()>{icon(Icon::ArrowDown)}{plural(Word::NewLines, n)}</button>
            })}
        </section>
    }
}

/// Hands a text to the browser as a file.
pub fn save(name: &str, text: &str) {
    use wasm_bindgen::JsCast;
    let parts = js_sys::Array::of1(&text.into());
    let Ok(blob) = web_sys::Blob::new_with_str_sequence(&parts) else { return };
    let Ok(url) = web_sys::Url::create_object_url_with_blob(&blob) else { return };
    if let Some(link) =
        document().create_element("a").ok().and_then(|e| e.dyn_into::<web_sys::HtmlAnchorElement>().ok())
    {
        link.set_href(&url);
        link.set_download(&segment(name));
        link.click();
    }
    let _ = web_sys::Url::revoke_object_url(&url);
}
