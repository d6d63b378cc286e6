//! How states look: a shape and a word, never colour alone.

use crate::client::live;
use crate::words::{Word, t};
use leptos::prelude::*;
use longshore_page_model::state::{Action, Sentence, State};
use longshore_page_model::time;

/// The shape of a state: disc, half disc, triangle, square, dashed ring, ring.
fn shape(state: State) -> &'static str {
    match state {
        State::Good => r#"<circle cx="8" cy="8" r="5" fill="currentColor"/>"#,
        State::Progressing => {
            r#"<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2"/><path d="M8 3a5 5 0 0 1 0 10z" fill="currentColor"/>"#
        }
        State::Unknown => {
            r#"<circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" stroke-width="2" stroke-dasharray="2.2 1.8"/>"#
        }
        State::Degraded => {
            r#"<path d="M8 2.5 14 13H2z" fill="currentColor" stroke="currentColor" stroke-linejoin="round"/>"#
        }
        State::Failing => r#"<path d="M5.5 2.5h5l3 3v5l-3 3h-5l-3-3v-5z" fill="currentColor"/>"#,
        State::Idle => r#"<circle cx="8" cy="8" r="4.5" fill="none" stroke="currentColor" stroke-width="2"/>"#,
    }
}

/// The shape alone, named for screen readers.
#[component]
pub fn Mark(#[prop(into)] state: Signal<State>) -> impl IntoView {
    view! {
        <svg class=move || format!("mark {}", state.get().class()) viewBox="0 0 16 16" role="img"
            aria-label=move || state.get().word() inner_html=move || shape(state.get())></svg>
    }
}

/// Shape and word.
#[component]
pub fn Badge(#[prop(into)] state: Signal<State>, #[prop(into)] text: Signal<String>) -> impl IntoView {
    view! {
        <span class=move || format!("badge {}", state.get().class())>
            <svg class="mark" viewBox="0 0 16 16" aria-hidden="true" inner_html=move || shape(state.get())></svg>
            {move || text.get()}
        </span>
    }
}

/// The sentence that a detail page begins with; evidence and next step under it.
#[component]
pub fn Banner(
    #[prop(into)] sentence: Signal<Sentence>,
    /// What a press on the next step does; actions that it can't do stay words.
    #[prop(optional)]
    on_action: Option<Callback<Action>>,
) -> impl IntoView {
    let state = Memo::new(move |_| sentence.with(|s| s.state));
    view! {
        <section class=move || format!("banner {}", state.get().class()) role="status" data-testid="status-sentence">
            <Mark state=state/>
            <div class="banner-text">
                <p class="banner-sentence">{move || sentence.with(|s| s.text.clone())}</p>
                {move || sentence.with(|s| s.evidence.clone()).map(|e| view! { <p class="banner-evidence">{e}</p> })}
                {move || sentence.with(|s| s.next.clone()).map(|next| {
                    let button = next.action.zip(on_action).map(|(action, on_action)| view! {
                        <button class="button small" on:click=move |_| on_action.run(action)>{action_label(action)}</button>
                    });
                    view! { <p class="banner-next"><span>{next.text}</span>{button}</p> }
                })}
            </div>
        </section>
    }
}

fn action_label(action: Action) -> &'static str {
    t(match action {
        Action::PreviousLogs => Word::ActionPreviousLogs,
        Action::Logs => Word::ActionLogs,
        Action::EditYaml => Word::ActionEdit,
        Action::ChangeImage => Word::ActionChangeImage,
        Action::RollBack => Word::ActionRollBack,
        Action::Resume => Word::ActionResume,
        Action::AddNode => Word::AddNode,
        Action::ShowNodes => Word::ActionShowNodes,
        Action::ShowPods => Word::ActionShowPods,
        Action::Uncordon => Word::ActionUncordon,
    })
}

/// A time as one says it, with the exact one on hover and for readers; it goes on by itself.
#[component]
pub fn Ago(#[prop(into)] time: Signal<String>) -> impl IntoView {
    let text = Memo::new(move |_| time.with(|t| time::ago_text(t, live::now())));
    view! { <time datetime=move || time.get() title=move || time.get()>{move || text.get()}</time> }
}

/// How much of what is wanted is there, as a bar with its numbers.
#[component]
pub fn ReadyBar(#[prop(into)] ready: Signal<(i64, i64)>) -> impl IntoView {
    let share = move || {
        let (ready, wanted) = ready.get();
        if wanted > 0 { (ready.min(wanted) * 100 / wanted).max(0) } else { 0 }
    };
    view! {
        <span class="ready">
            <span class="number">{move || { let (ready, wanted) = ready.get(); format!("{ready}/{wanted}") }}</span>
            <progress class="ready-bar" max="100" value=share aria-hidden="true"></progress>
        </span>
    }
}
