//! YAML to write in: a plain text area with line numbers and marks, which every keyboard and screen reader knows.

use crate::words::{Word, plural, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use longshore_page_model::yaml::Mark;

/// Lines that the gutter draws at most; no document that a person edits here is longer.
const MOST_LINES: usize = 20_000;

#[component]
pub fn Editor(
    text: RwSignal<String>,
    #[prop(into)] marks: Signal<Vec<Mark>>,
    #[prop(into)] label: String,
    /// Shows what something else writes.
    #[prop(default = false)]
    readonly: bool,
) -> impl IntoView {
    let gutter = NodeRef::<html::Div>::new();
    let area = NodeRef::<html::Textarea>::new();
    let count = Memo::new(move |_| text.with(|t| t.split('\n').count().min(MOST_LINES)));
    let follow = move |_| {
        if let (Some(gutter), Some(area)) = (gutter.get_untracked(), area.get_untracked()) {
            gutter.set_scroll_top(area.scroll_top());
        }
    };
    // The value is set only where it differs, or the caret would jump with each letter.
    Effect::new(move |_| {
        let text = text.get();
        if let Some(area) = area.get().filter(|a| a.value() != text) {
            area.set_value(&text);
        }
    });
    let keys = move |event: ev::KeyboardEvent| {
        // Two spaces, as YAML wants; Escape first lets Tab leave the editor.
        let Some(area) = area.get_untracked().filter(|_| !readonly) else { return };
        match event.key().as_str() {
            "Tab" if !event.shift_key() && area.dataset_escaped() => {}
            "Tab" if !event.shift_key() => {
                event.prevent_default();
                let (start, end) = (
                    area.selection_start().ok().flatten().unwrap_or(0),
                    area.selection_end().ok().flatten().unwrap_or(0),
                );
                if area.set_range_text_with_start_and_end("  ", start, end).is_ok() {
                    let _ = area.set_selection_range(start + 2, start + 2);
                    text.set(area.value());
                }
            }
            "Escape" => area.set_escaped(true),
            _ => area.set_escaped(false),
        }
    };
    let jump = move |line: usize| {
        if let Some(area) = area.get_untracked() {
            let start: usize =
                area.value().split('\n').take(line.saturating_sub(1)).map(|l| l.encode_utf16().count() + 1).sum();
            let _ = area.focus();
            let _ = area.set_selection_range(start as u32, start as u32);
            let height = area.scroll_height() / (count.get_untracked().max(1) as i32);
            area.set_scroll_top((line as i32 - 4).max(0) * height);
        }
    };
    view! {
        <div class="editor">
            <div class="editor-gutter" node_ref=gutter aria-hidden="true">
                {move || {
                    let marked: Vec<usize> = marks.with(|m| m.iter().map(|m| m.line).collect());
                    (1..=count.get()).map(|n| view! { <span class:marked=marked.contains(&n)>{n}</span> }).collect_view()
                }}
            </div>
            <textarea class="editor-text" node_ref=area aria-label=label spellcheck="false" autocapitalize="off" autocomplete="off"
                data-testid="editor" readonly=readonly aria-invalid=move || (!marks.with(Vec::is_empty)).to_string()
                on:input=move |e| text.set(event_target_value(&e)) on:scroll=follow on:keydown=keys></textarea>
        </div>
        <Show when=move || !marks.with(Vec::is_empty)>
            <section class="marks" role="alert" data-testid="marks">
                <h2>{move || plural(Word::Errors, marks.with(Vec::len) as i64)}</h2>
                <ul>{move || marks.get().into_iter().map(|mark| view! {
                    <li><button class="mark-line" on:click=move |_| jump(mark.line)>{Word::Line.with(&[("n", &mark.line)])}</button><span>{mark.message}</span></li>
                }).collect_view()}</ul>
            </section>
        </Show>
        {(!readonly).then(|| view! { <p class="quiet small-text">{t(Word::EditorHint)}</p> })}
    }
}

/// Whether Escape was pressed last, kept on the element itself.
trait Escaped {
    fn dataset_escaped(&self) -> bool;
    fn set_escaped(&self, escaped: bool);
}

impl Escaped for web_sys::HtmlTextAreaElement {
    fn dataset_escaped(&self) -> bool {
        self.has_attribute("data-escaped")
    }
    fn set_escaped(&self, escaped: bool) {
        let _ = if escaped { self.set_attribute("data-escaped", "") } else { self.remove_attribute("data-escaped") };
    }
}
