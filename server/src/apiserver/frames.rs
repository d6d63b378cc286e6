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

/// From here on an object's bytes are sent as the store has them: a copy for each watcher would be one too many for each
/// that reads slowly.
const SHARED_FROM: usize = 16 * 1024;

/// A chunk of a watch's answer: frames in the order of their events, small ones joined (one write, one TLS record), large
/// objects in between as shared bytes.
#[derive(Default)]
pub struct Chunk {
    pieces: Vec<Bytes>,
    open: Vec<u8>,
}

impl Chunk {
    pub fn pieces(mut self) -> Vec<Bytes> {
        self.close();
        self.pieces
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(std::mem::take(&mut self.open).into());
        }
    }
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
    /// Puts the frame of `event` for `view` at the end of `chunk`.
    pub fn add(&self, chunk: &mut Chunk, cluster: &ClusterId, view: &View, event: &WatchEvent, first: bool) {
        let (kind, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => {
                return chunk.open.extend_from_slice(&view.frame(event, first));
            }
        };
        if view.is_costly() || object.json.len() < SHARED_FROM {
            return chunk.open.extend_from_slice(&self.frame(cluster, view, event, first));
        }
        chunk.open.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        chunk.close();
        chunk.pieces.push(view.object(object));
        chunk.open.extend_from_slice(b"}\n");
    }

    /// The frame of `event` for `view`; shared where that saves work.
    fn frame(&self, cluster: &ClusterId, view: &View, event: &WatchEvent, first: bool) -> Bytes {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;
    use crate::store::{Draft, Key};
    use longshore_control::Projection;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn chunks_read_as_their_frames_and_share_large_objects() {
        let resource = registry().by_path("", "v1", "configmaps").unwrap();
        let view = View { resource, transform: Transform::None, now: jiff::Timestamp::UNIX_EPOCH };
        let event = |revision: i64, size: usize| {
            let key = Key { resource: "configmaps".into(), namespace: "d".into(), name: "a".into() };
            let tree = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "x".repeat(size)}});
            let draft = Draft::new(key, &tree, Default::default(), Projection::None);
            WatchEvent::Modified(Arc::new(draft.at(Revision(revision))))
        };
        let events = [
            event(1, 10),
            event(2, 50_000),
            event(3, 10),
            WatchEvent::Bookmark { revision: Revision(3), initial_end: false },
        ];
        let (frames, mut chunk) = (Frames::default(), Chunk::default());
        events.iter().for_each(|event| frames.add(&mut chunk, &ClusterId::new("c"), &view, event, false));
        let pieces = chunk.pieces();
        let expected: Vec<Bytes> = events.iter().map(|event| view.frame(event, false)).collect();
        assert_eq!(pieces.concat(), expected.concat());
        let WatchEvent::Modified(large) = &events[1] else { unreachable!("made above") };
        assert!(pieces.iter().any(|piece| piece.as_ptr() == large.json.as_ptr()), "the store's own bytes");
    }
}
