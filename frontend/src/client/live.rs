//! Live data for views: a collection that a watch keeps, and the page's clock.

use super::stream::{self, Message, Subscription};
use leptos::prelude::*;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use longshore_api::stream::{ClientFrame, Shape, Watch};
use longshore_page_model::table::{Collection, Item};
use send_wrapper::SendWrapper;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What to watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub cluster: ClusterId,
    pub path: String,
    pub shape: Option<Shape>,
    pub parameters: BTreeMap<String, String>,
}

impl Query {
    pub fn new(cluster: &ClusterId, path: impl Into<String>) -> Self {
        Self { cluster: cluster.clone(), path: path.into(), shape: None, parameters: BTreeMap::new() }
    }
    pub fn table(mut self) -> Self {
        self.shape = Some(Shape::Table);
        self
    }
    pub fn labels(self, selector: impl Into<String>) -> Self {
        self.with("labelSelector", selector)
    }
    pub fn fields(self, selector: impl Into<String>) -> Self {
        self.with("fieldSelector", selector)
    }
    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }
}

/// A collection, live.
pub struct Live<T: Send + Sync + 'static> {
    pub data: RwSignal<Collection<T>>,
    /// Why it can't be shown, or is not fresh for now.
    pub trouble: RwSignal<Option<Status>>,
}

impl<T: Send + Sync + 'static> Clone for Live<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Send + Sync + 'static> Copy for Live<T> {}

impl<T: Send + Sync + 'static> Live<T> {
    pub fn loaded(&self) -> bool {
        self.data.with(|d| d.loaded)
    }
}

/// How long messages gather before views hear of them: a burst is one repaint.
const GATHER: Duration = Duration::from_millis(30);

enum Gathered {
    Page { first: bool, last: bool, body: String },
    Change(String),
}

/// Watches what `query` asks for, as long as the calling owner lives; a new query starts over.
pub fn watch<T: Item + Send + Sync + 'static>(query: impl Fn() -> Option<Query> + Send + Sync + 'static) -> Live<T> {
    let live = Live { data: RwSignal::new(Collection::default()), trouble: RwSignal::new(None) };
    let query = Memo::new(move |_| query());
    let held: StoredValue<Option<SendWrapper<Subscription>>> = StoredValue::new(None);
    Effect::new(move |before: Option<Option<Query>>| {
        let query = query.get();
        held.set_value(None);
        if before.flatten().is_some() {
            live.data.set(Collection::default());
        }
        live.trouble.set(None);
        if let Some(query) = &query {
            held.set_value(Some(SendWrapper::new(subscribe(live, query.clone()))));
        }
        query
    });
    on_cleanup(move || held.set_value(None));
    live
}

fn subscribe<T: Item + Send + Sync + 'static>(live: Live<T>, query: Query) -> Subscription {
    let gathered: Rc<RefCell<Vec<Gathered>>> = Rc::default();
    let scheduled = Rc::new(Cell::new(false));
    let gather = move |new: Vec<Gathered>| {
        gathered.borrow_mut().extend(new);
        if !scheduled.replace(true) {
            let (gathered, scheduled) = (gathered.clone(), scheduled.clone());
            set_timeout(
                move || {
                    scheduled.set(false);
                    take(live, std::mem::take(&mut *gathered.borrow_mut()));
                },
                GATHER,
            );
        }
    };
    let Query { cluster, path, shape, parameters } = query;
    let frame = |id| ClientFrame::Watch(Watch { id, cluster, path, query: parameters, shape, resume: None });
    stream::subscribe(frame, move |message| match message {
        Message::Page { first, last, body } => gather(vec![Gathered::Page { first, last, body: body.into() }]),
        Message::Changes(events) => gather(events.iter().map(|e| Gathered::Change((*e).into())).collect()),
        Message::Waiting(status) | Message::End(Some(status)) => {
            live.trouble.try_set(Some(status));
        }
        Message::End(None) | Message::Resumed | Message::Log(_) => {}
    })
}

fn take<T: Item + Send + Sync + 'static>(live: Live<T>, gathered: Vec<Gathered>) {
    // The view may be gone by now; then so are its signals.
    let _ = live.data.try_update(|data| {
        for message in gathered {
            let read = match &message {
                Gathered::Page { first, last, body } => data.page(*first, *last, body),
                Gathered::Change(body) => data.change(body),
            };
            if let Err(error) = read {
                leptos::logging::warn!("part of a watch could not be read: {error}");
            }
        }
    });
    if live.trouble.try_with_untracked(|t| t.is_some()).unwrap_or(false) {
        live.trouble.set(None);
    }
}

thread_local! {
    static CLOCK: Cell<Option<RwSignal<i64>>> = const { Cell::new(None) };
}

/// Starts the page's clock, owned by the root.
pub fn provide_clock() {
    let clock = RwSignal::new(stream::server_now());
    CLOCK.with(|c| c.set(Some(clock)));
    set_interval(move || clock.set(stream::server_now()), Duration::from_secs(1));
}

/// The server's time, in milliseconds; ticks each second.
pub fn now() -> i64 {
    CLOCK.with(Cell::get).map_or_else(stream::server_now, |clock| clock.get())
}
