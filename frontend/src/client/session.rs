//! Who is signed in.

use super::{http, stream};
use leptos::prelude::*;
use longshore_api::accounts::{Session, SignIn};
use std::cell::Cell;

#[derive(Clone, Debug, PartialEq)]
pub enum Signed {
    /// Not asked yet: the skeleton stays.
    Unknown,
    Out {
        expired: bool,
    },
    In(Session),
    /// The server could not be asked.
    Unreachable,
}

thread_local! {
    static SIGNED: Cell<Option<RwSignal<Signed>>> = const { Cell::new(None) };
}

/// The one signal of the page, made on first use.
pub fn signed() -> RwSignal<Signed> {
    SIGNED.with(|cell| {
        cell.get().unwrap_or_else(|| {
            let signal = RwSignal::new(Signed::Unknown);
            cell.set(Some(signal));
            signal
        })
    })
}

pub fn session() -> Option<Session> {
    match signed().get() {
        Signed::In(session) => Some(session),
        _ => None,
    }
}

/// Asks whether the cookie is still good.
pub async fn load() {
    match http::get::<Session>("/v1/session").await {
        Ok(session) => enter(session),
        Err(failure) if failure.code() == 401 || failure.code() == 403 => signed().set(Signed::Out { expired: false }),
        Err(_) => signed().set(Signed::Unreachable),
    }
}

pub async fn sign_in(email: String, password: String) -> Result<(), http::Failure> {
    let session = http::post::<Session>("/v1/session", &SignIn { email, password }).await?;
    enter(session);
    Ok(())
}

pub async fn sign_out() {
    // Whatever the answer: the page forgets who it was.
    let _ = http::delete("/v1/session").await;
    leave(false);
}

/// The server no longer knows the session.
pub fn expired() {
    if matches!(signed().get_untracked(), Signed::In(_)) {
        leave(true);
    }
}

fn enter(session: Session) {
    http::set_csrf(&session.csrf);
    signed().set(Signed::In(session));
    stream::open();
}

fn leave(expired: bool) {
    stream::close();
    http::set_csrf("");
    signed().set(Signed::Out { expired });
}
