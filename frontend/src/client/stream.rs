//! The page's one WebSocket (`longshore_api::stream`): subscriptions that survive it.
//!
//! Whoever subscribes gets messages until the subscription is dropped, whatever happens to the connection in between: it
//! is opened again with growing, jittered pauses, at once when the machine says it is online again or the tab is looked
//! at, and every watch is resumed from the last revision it saw.

use super::http;
use leptos::prelude::*;
use longshore_api::Status;
use longshore_api::accounts::StreamTicket;
use longshore_api::stream::{BEAT_SECONDS, ClientFrame, ServerFrame};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

/// How fresh what the page shows is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Freshness {
    /// Never connected yet.
    Connecting,
    Live,
    /// Lost at this time (the page's clock); trying again.
    Reconnecting {
        since: f64,
    },
}

/// What a subscriber hears.
pub enum Message<'a> {
    Page {
        first: bool,
        last: bool,
        body: &'a str,
    },
    Changes(&'a [&'a str]),
    Log(&'a str),
    /// The server can't serve it for now and tries again.
    Waiting(Status),
    End(Option<Status>),
    /// The connection came back: a log starts over, a watch just goes on.
    Resumed,
}

type Handler = Rc<dyn Fn(Message<'_>)>;

struct Entry {
    frame: ClientFrame,
    handler: Handler,
}

#[derive(Default)]
struct Connection {
    socket: Option<WebSocket>,
    open: bool,
    wanted: bool,
    opening: bool,
    attempts: u32,
    heard: f64,
    next_id: u32,
    entries: BTreeMap<u32, Entry>,
    freshness: Option<RwSignal<Freshness>>,
    /// The server's clock minus ours, in milliseconds.
    offset: Option<RwSignal<i64>>,
}

thread_local! {
    static CONNECTION: RefCell<Connection> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut Connection) -> R) -> R {
    CONNECTION.with(|c| f(&mut c.borrow_mut()))
}

/// Must be called once at the page's root, whose owner the signals belong to.
pub fn provide() {
    let (freshness, offset) = (RwSignal::new(Freshness::Connecting), RwSignal::new(0));
    with(|c| {
        c.freshness = Some(freshness);
        c.offset = Some(offset);
    });
    set_interval(watchdog, std::time::Duration::from_secs(3));
    let hurry = || with(|c| c.attempts = 0).then_open();
    window_event_listener_untyped("online", move |_| hurry());
    window_event_listener_untyped("focus", move |_| hurry());
}

trait ThenOpen {
    fn then_open(self);
}
impl ThenOpen for () {
    fn then_open(self) {
        if with(|c| c.wanted) {
            open();
        }
    }
}

pub fn freshness() -> RwSignal<Freshness> {
    with(|c| c.freshness).expect("stream::provide was called at the root")
}

/// The server's time now, in milliseconds since 1970.
pub fn server_now() -> i64 {
    js_sys::Date::now() as i64 + with(|c| c.offset).map_or(0, |offset| offset.get_untracked())
}

/// A subscription: dropped, it ends.
pub struct Subscription(u32);

impl Drop for Subscription {
    fn drop(&mut self) {
        with(|c| {
            if c.entries.remove(&self.0).is_some() {
                c.send(&ClientFrame::Stop { id: self.0 });
            }
        });
    }
}

/// Subscribes; `frame` makes the request with the number it is given.
pub fn subscribe(frame: impl FnOnce(u32) -> ClientFrame, handler: impl Fn(Message<'_>) + 'static) -> Subscription {
    with(|c| {
        c.next_id += 1;
        let id = c.next_id;
        let frame = frame(id);
        c.send(&frame);
        c.entries.insert(id, Entry { frame, handler: Rc::new(handler) });
        Subscription(id)
    })
}

impl Connection {
    fn send(&self, frame: &ClientFrame) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.open) {
            // A socket that refuses is about to close, and everything is sent again on the next one.
            let _ = socket.send_with_str(&serde_json::to_string(frame).unwrap_or_default());
        }
    }
}

/// Opens the connection unless it is open or on its way.
pub fn open() {
    let start = with(|c| {
        c.wanted = true;
        let start = !c.opening && c.socket.is_none();
        c.opening |= start;
        start
    });
    if start {
        leptos::task::spawn_local(async {
            let connected = connect().await;
            with(|c| c.opening = false);
            if connected.is_none() {
                lost();
            }
        });
    }
}

/// Ends it: signing out.
pub fn close() {
    let socket = with(|c| {
        c.wanted = false;
        c.open = false;
        c.entries.clear();
        c.socket.take()
    });
    if let Some(socket) = socket {
        let _ = socket.close();
    }
}

async fn connect() -> Option<()> {
    let ticket: StreamTicket = http::post("/v1/stream/tickets", &serde_json::json!({})).await.ok()?;
    let location = web_sys::window()?.location();
    let scheme = if location.protocol().ok()? == "https:" { "wss" } else { "ws" };
    let url = format!("{scheme}://{}/v1/stream?ticket={}", location.host().ok()?, ticket.ticket);
    let socket = WebSocket::new(&url).ok()?;
    let listener = Closure::<dyn Fn(MessageEvent)>::new(|event: MessageEvent| {
        if let Some(text) = event.data().as_string() {
            heard(&text);
        }
    });
    socket.set_onmessage(Some(listener.as_ref().unchecked_ref()));
    let opened = socket.clone();
    let on_open = Closure::<dyn Fn()>::new(move || connected(&opened));
    socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
    let closed = socket.clone();
    let on_close = Closure::<dyn Fn(CloseEvent)>::new(move |_| {
        let current = with(|c| {
            let current = c.socket.as_ref() == Some(&closed);
            if current {
                c.socket = None;
                c.open = false;
            }
            current
        });
        if current {
            lost();
        }
    });
    socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
    // The three live as long as the socket, of which a page makes few.
    listener.forget();
    on_open.forget();
    on_close.forget();
    with(|c| {
        c.heard = js_sys::Date::now();
        c.socket = Some(socket);
    });
    Some(())
}

fn connected(socket: &WebSocket) {
    let handlers = with(|c| {
        if c.socket.as_ref() != Some(socket) {
            return Vec::new();
        }
        let again = c.attempts > 0 || c.freshness.is_some_and(|f| f.get_untracked() != Freshness::Connecting);
        c.open = true;
        c.attempts = 0;
        c.heard = js_sys::Date::now();
        for entry in c.entries.values() {
            c.send(&entry.frame);
        }
        if again { c.entries.values().map(|e| e.handler.clone()).collect() } else { Vec::new() }
    });
    for handler in handlers {
        handler(Message::Resumed);
    }
    freshness().set(Freshness::Live);
}

/// The connection is gone, or could not be made: says so and tries again after a pause of 0.5 to 15 seconds.
fn lost() {
    let Some(pause) = with(|c| {
        if !c.wanted {
            return None;
        }
        c.attempts = (c.attempts + 1).min(6);
        let longest = 500.0 * f64::from(1 << c.attempts.min(5));
        Some((longest * (0.5 + js_sys::Math::random() / 2.0)).min(15_000.0))
    }) else {
        return;
    };
    freshness().update(|f| {
        if *f == Freshness::Live {
            *f = Freshness::Reconnecting { since: js_sys::Date::now() };
        }
    });
    set_timeout(|| ().then_open(), std::time::Duration::from_millis(pause as u64));
}

/// A connection that says nothing for two beats is dead, whatever the browser believes.
fn watchdog() {
    let silent = with(|c| {
        let limit = (2 * BEAT_SECONDS * 1000) as f64;
        if c.socket.is_some() && js_sys::Date::now() - c.heard > limit {
            c.open = false;
            c.socket.take()
        } else {
            None
        }
    });
    if let Some(socket) = silent {
        let _ = socket.close();
        lost();
    }
}

/// `2026-01-01T00:00:00Z` as milliseconds, against our clock.
fn set_clock(now: &str) {
    if let Some(server) = longshore_page_model::time::parse(now) {
        let offset = server - js_sys::Date::now() as i64;
        if let Some(signal) = with(|c| c.offset) {
            // Less than the way of a frame is no difference.
            if (signal.get_untracked() - offset).abs() > 1_500 {
                signal.set(offset);
            }
        }
    }
}

fn heard(text: &str) {
    with(|c| c.heard = js_sys::Date::now());
    let Ok(frame) = serde_json::from_str::<ServerFrame>(text) else {
        leptos::logging::warn!("a frame of the stream could not be read");
        return;
    };
    let handler = |id: u32| with(|c| c.entries.get(&id).map(|e| e.handler.clone()));
    let resume_from = |id: u32, revision: &str| {
        with(|c| {
            if let Some(ClientFrame::Watch(watch)) = c.entries.get_mut(&id).map(|e| &mut e.frame) {
                watch.resume = Some(revision.to_string());
            }
        })
    };
    match frame {
        ServerFrame::Hello { now } | ServerFrame::Beat { now } => set_clock(&now),
        ServerFrame::List(list) => {
            if let Some(handler) = handler(list.id) {
                handler(Message::Page { first: list.first, last: list.last, body: list.object.get() });
            }
            if list.last {
                resume_from(list.id, &list.revision);
            }
        }
        ServerFrame::Changes(changes) => {
            if let Some(handler) = handler(changes.id) {
                let events: Vec<&str> = changes.events.iter().map(|e| e.get()).collect();
                handler(Message::Changes(&events));
            }
            resume_from(changes.id, &changes.revision);
        }
        ServerFrame::Log { id, text } => {
            if let Some(handler) = handler(id) {
                handler(Message::Log(&text));
            }
        }
        ServerFrame::Waiting { id, status } => {
            if let Some(handler) = handler(id) {
                handler(Message::Waiting(status));
            }
        }
        ServerFrame::End { id, status } => {
            if let Some(handler) = handler(id) {
                handler(Message::End(status));
            }
        }
    }
}
