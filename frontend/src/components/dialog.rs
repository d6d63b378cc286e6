//! Dialogs, confirmations and passing notes.

use super::icon::{Icon, icon};
use crate::client::http::Failure;
use crate::words::{Word, t};
use leptos::ev;
use leptos::html;
use leptos::prelude::*;
use std::time::Duration;

/// A note that goes by itself; a failure stays until it is put away.
#[derive(Clone, Debug, PartialEq)]
pub struct Toast {
    id: u32,
    failed: bool,
    text: String,
    /// What to quote when asking about it.
    request_id: Option<String>,
}

#[derive(Clone, Copy)]
struct ToastList(RwSignal<Vec<Toast>>);

pub fn provide() {
    provide_context(ToastList(RwSignal::new(Vec::new())));
}

/// Says something: from event handlers, whose context is gone, through a handle taken before.
#[derive(Clone, Copy)]
pub struct Say(RwSignal<Vec<Toast>>);

pub fn say() -> Say {
    Say(expect_context::<ToastList>().0)
}

impl Say {
    pub fn done(self, text: impl Into<String>) {
        let id = self.push(false, text.into(), None);
        set_timeout(move || self.drop_note(id), Duration::from_secs(5));
    }
    pub fn failed(self, failure: &Failure) {
        self.push(true, failure.message(), failure.request_id.clone());
    }
    fn push(self, failed: bool, text: String, request_id: Option<String>) -> u32 {
        let id = self.0.with_untracked(|all| all.last().map_or(0, |t| t.id + 1));
        self.0.update(|all| {
            all.push(Toast { id, failed, text, request_id });
            // A page that fails over and over must not fill the screen.
            if all.len() > 4 {
                all.remove(0);
            }
        });
        id
    }
    fn drop_note(self, id: u32) {
        self.0.update(|all| all.retain(|t| t.id != id));
    }
}

#[component]
pub fn Toasts() -> impl IntoView {
    let toasts = say();
    view! {
        <div class="toasts" role="region" aria-live="polite" aria-label=t(Word::Notes)>
            <For each=move || toasts.0.get() key=|toast| toast.id let:toast>
                <div class="toast" class:failed=toast.failed role=if toast.failed { "alert" } else { "status" }>
                    {icon(if toast.failed { Icon::CircleAlert } else { Icon::CircleCheck })}
                    <div>
                        <p>{toast.text.clone()}</p>
                        {toast.request_id.clone().map(|id| view! { <p class="quiet mono">{Word::RequestId.with(&[("id", &id)])}</p> })}
                    </div>
                    <button class="icon-button" aria-label=t(Word::Dismiss) on:click=move |_| toasts.drop_note(toast.id)>
                        {icon(Icon::X)}
                    </button>
                </div>
            </For>
        </div>
    }
}

/// A modal dialog, the browser's own: it keeps the focus, closes on Escape and gives the focus back.
#[component]
pub fn Dialog(
    open: RwSignal<bool>,
    #[prop(into)] title: Signal<String>,
    #[prop(default = false)] wide: bool,
    children: ChildrenFn,
) -> impl IntoView {
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
        <dialog node_ref=node class="dialog" class:wide=wide aria-label=move || title.get()
            on:close=move |_| open.set(false)
            on:click=move |event: ev::MouseEvent| {
                // A press on the backdrop is one on the dialog element itself.
                let target = event.target().and_then(|t| wasm_bindgen::JsCast::dyn_into::<web_sys::HtmlDialogElement>(t).ok());
                if target.is_some() { open.set(false); }
            }>
            <Show when=move || open.get()>
                <div class="dialog-body">
                    <header class="dialog-head">
                        <h2>{move || title.get()}</h2>
                        <button class="icon-button" aria-label=t(Word::Close) on:click=move |_| open.set(false)>{icon(Icon::X)}</button>
                    </header>
                    {children()}
                </div>
            </Show>
        </dialog>
    }
}

/// Asks before something is lost: the name has to be typed where `typed` is given.
#[component]
pub fn Confirm(
    open: RwSignal<bool>,
    #[prop(into)] title: Signal<String>,
    #[prop(into)] text: Signal<String>,
    #[prop(into)] button: Signal<String>,
    /// Empty: a press is enough.
    #[prop(optional, into)]
    typed: String,
    on_confirm: Callback<()>,
) -> impl IntoView {
    let given = RwSignal::new(String::new());
    Effect::new(move |_| {
        if open.get() {
            given.set(String::new());
        }
    });
    let typed = StoredValue::new(Some(typed).filter(|name| !name.is_empty()));
    let allowed = move || typed.with_value(|typed| typed.as_ref().is_none_or(|name| given.with(|g| g.trim() == name)));
    let confirm = move || {
        if allowed() {
            open.set(false);
            on_confirm.run(());
        }
    };
    view! {
        <Dialog open title>
            <form method="dialog" class="form" on:submit=move |event| { event.prevent_default(); confirm(); }>
                <p>{move || text.get()}</p>
                {typed.get_value().map(|name| view! {
                    <label class="field">
                        <span>{Word::TypeName.with(&[("name", &name)])}</span>
                        <input class="input mono" data-testid="confirm-name" autocomplete="off" autofocus spellcheck="false"
                            on:input=move |e| given.set(event_target_value(&e)) prop:value=given/>
                    </label>
                })}
                <footer class="dialog-foot">
                    <button type="button" class="button" on:click=move |_| open.set(false)>{t(Word::Cancel)}</button>
                    <button type="submit" class="button danger" data-testid="confirm" disabled=move || !allowed()>{move || button.get()}</button>
                </footer>
            </form>
        </Dialog>
    }
}

/// A button that copies a text and says so.
#[component]
pub fn Copy(
    #[prop(into)] text: Signal<String>,
    /// Written beside the icon.
    #[prop(optional)]
    label: Option<Word>,
    /// What it is called where there is no label.
    #[prop(default = Word::Copy)]
    name: Word,
) -> impl IntoView {
    let copied = RwSignal::new(false);
    let copy = move |_| {
        let text = text.get_untracked();
        leptos::task::spawn_local(async move {
            // A page over plain HTTP from another machine has no clipboard.
            let clipboard = window().navigator().clipboard();
            if wasm_bindgen::JsValue::from(clipboard.clone()).is_undefined() {
                return;
            }
            if wasm_bindgen_futures::JsFuture::from(clipboard.write_text(&text)).await.is_ok() {
                copied.set(true);
                set_timeout(
                    move || {
                        copied.try_set(false);
                    },
                    Duration::from_secs(2),
                );
            }
        });
    };
    let class = if label.is_some() { "button" } else { "icon-button" };
    view! {
        <button type="button" class=class on:click=copy
            aria-label=move || t(if copied.get() { Word::Copied } else { name })
            title=label.is_none().then(|| t(name))>
            {move || icon(if copied.get() { Icon::Check } else { Icon::Copy })}
            {label.map(|l| move || t(if copied.get() { Word::Copied } else { l }))}
        </button>
    }
}
