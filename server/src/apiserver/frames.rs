//! Watch frames that cost something to make (tables, converted objects), made once and shared by those who watch alike.
//!
//! A plain frame is a copy of stored bytes and is not worth keeping. A table's frame carries ages, so one is used only for
//! a few seconds: that covers all watchers of the moment, and a replay much later makes its own.

use super::negotiate::Transform;
use super::render::{View, WatchEvent};
use crate::store::Revision;
use bytes::Bytes;
use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const KEPT_FRAMES: usize = 4096;
const KEPT_BYTES: usize = 16 * 1024 * 1024;
const FRESH: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FrameKey {
    cluster: ClusterId,
    /// A revision is one object's, so it names the object, too.
    revision: Revision,
    kind: &'static str,
    group: &'static str,
    plural: &'static str,
    transform: Transform,
    first: bool,
}

#[derive(Default)]
pub struct Frames(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    frames: HashMap<FrameKey, (Instant, Bytes)>,
    order: VecDeque<FrameKey>,
    bytes: usize,
}

impl Frames {
    /// The frame of `event` for `view`; shared where that saves work.
    pub fn frame(&self, cluster: &ClusterId, view: &View, event: &WatchEvent, first: bool) -> Bytes {
        let (kind, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => return view.frame(event, first),
        };
        if !view.is_costly() {
            return view.frame(event, first);
        }
        let key = FrameKey {
            cluster: cluster.clone(),
            revision: object.revision,
            kind,
            group: view.resource.group,
            plural: view.resource.plural,
            transform: view.transform,
            first,
        };
        let now = Instant::now();
        if let Some((at, frame)) = self.0.lock().frames.get(&key)
            && now.duration_since(*at) < FRESH
        {
            return frame.clone();
        }
        let frame = view.frame(event, first);
        self.0.lock().keep(key, now, frame.clone());
        frame
    }
}

impl Kept {
    fn keep(&mut self, key: FrameKey, now: Instant, frame: Bytes) {
        self.bytes += frame.len();
        match self.frames.insert(key.clone(), (now, frame)) {
            Some((_, old)) => self.bytes -= old.len(),
            None => self.order.push_back(key),
        }
        while self.order.len() > KEPT_FRAMES || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some((_, frame)) = self.frames.remove(&oldest) {
                self.bytes -= frame.len();
            }
        }
    }
}
