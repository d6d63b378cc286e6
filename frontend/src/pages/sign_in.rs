//! Signing in, and what stands where the server can't be reached.

use crate::client::session;
use crate::components::icon::{Icon, icon};
use crate::words::{Word, t};
use leptos::prelude::*;
use std::time::Duration;

#[component]
pub fn SignIn(expired: bool) -> impl IntoView {
    let (email, password) = (RwSignal::new(String::new()), RwSignal::new(String::new()));
    let busy = RwSignal::new(false);
    let problem = RwSignal::new(expired.then(|| t(Word::SessionExpired).to_string()));
    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        leptos::task::spawn_local(async move {
            let answer = session::sign_in(email.get_untracked().trim().to_string(), password.get_untracked()).await;
            if let Err(failure) = answer {
                busy.try_set(false);
                let text = if failure.code() == 401 { t(Word::WrongPassword).to_string() } else { failure.message() };
                problem.try_set(Some(text));
            }
        });
    };
    view! {
        <main class="sign-in">
            <form class="card form" on:submit=submit>
                <h1 class="brand">{icon(Icon::Anchor)}<span>"Longshore"</span></h1>
                {move || problem.get().map(|text| view! { <p class="inline-error" role="alert">{icon(Icon::CircleAlert)}{text}</p> })}
                <label class="field"><span>{t(Word::Email)}</span>
                    <input class="input" type="email" name="email" autocomplete="username" required autofocus
                        on:input=move |e| email.set(event_target_value(&e))/></label>
                <label class="field"><span>{t(Word::Password)}</span>
                    <input class="input" type="password" name="password" autocomplete="current-password" required
                        on:input=move |e| password.set(event_target_value(&e))/></label>
                <button class="button primary" type="submit" disabled=move || busy.get() data-testid="sign-in">{t(Word::SignIn)}</button>
                <p class="quiet small-text">{t(Word::SignInHelp)}</p>
            </form>
        </main>
    }
}

#[component]
pub fn Unreachable() -> impl IntoView {
    // It comes back by itself: whoever waits should not have to press anything.
    let again = set_interval_with_handle(|| leptos::task::spawn_local(session::load()), Duration::from_secs(3));
    on_cleanup(move || {
        if let Ok(again) = &again {
            again.clear()
        }
    });
    view! {
        <main class="sign-in">
            <div class="card form">
                <p class="inline-error" role="alert">{icon(Icon::CircleAlert)}{t(Word::ServerUnreachable)}</p>
                <button class="button" on:click=move |_| leptos::task::spawn_local(session::load())>{t(Word::TryAgain)}</button>
            </div>
        </main>
    }
}
