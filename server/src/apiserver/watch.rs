//! Watch: the state first where it is asked for, then each change that concerns the watcher, once and in order.
//!
//! The store pushes changes; here they are judged by the selectors: a change may be an object's coming or going for one
//! watcher and none of its business for another. A watch ends cleanly wherever the client can go on from the last revision
//! it saw (a handover, an unload, its time is up), with a bookmark where it takes those; it ends in an ERROR event where it
//! can't (compacted) or should slow down (it took too long to read).

use super::api::{Api, Context};
use super::errors;
use super::options::{ListOptions, VersionMatch, WatchOptions};
use super::read::{check_fields, list_invalid, reached, version};
use super::render::{WatchEvent, at_revision};
use crate::alarm::Alarm;
use crate::resources::Resource;
use crate::store::{
    Change, ChangeKind, Cluster, Ended, Object, Revision, StoreError, WATCHABLE_FIELDS, Watch, WatchFilter, WatchItem,
};
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use longshore_api::selector::{FieldSelector, LabelSelector};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a quiet watch is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lasts between this and its double, so that clients don't all come back at once.
const LEAST_TIMEOUT_SECONDS: u64 = 1800;

/// How much of the state that is sent first goes out at once. The objects are shared; what is made of them is not, and a
/// thousand clients that read slowly must not hold a copy of everything each.
const INITIAL_BYTES: usize = 64 * 1024;

/// A running watch. Dropping it ends it.
pub struct Watcher {
    cluster: Arc<Cluster>,
    watch: Option<Watch>,
    labels: LabelSelector,
    fields: FieldSelector,
    initial: VecDeque<WatchEvent>,
    bookmarks: bool,
    deadline: Instant,
    next_bookmark: Instant,
    alarm: Alarm,
    /// The revision the client knows of: its own events' and bookmarks'.
    told: Revision,
}

impl Api {
    /// `namespace` None watches all namespaces.
    pub async fn watch(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<Watcher, Status> {
        check(options)?;
        check_fields(resource, &options.fields)?;
        let asked = version(&options.resource_version)?;
        let filter = WatchFilter {
            resource: Some(resource.store_name().into()),
            namespace: namespace.map(Arc::from),
            field: WATCHABLE_FIELDS
                .iter()
                .find_map(|field| options.fields.equality(field).map(|value| (*field, value.to_string()))),
            ..Default::default()
        };
        let state_first = options.send_initial_events.unwrap_or(matches!(asked, None | Some(Revision(0))));
        let seconds = options.timeout_seconds.filter(|s| *s > 0).unwrap_or_else(default_timeout);
        let now = Instant::now();
        let mut watcher = Watcher {
            cluster: cx.cluster.clone(),
            watch: None,
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            initial: VecDeque::new(),
            bookmarks: options.bookmarks,
            deadline: now + Duration::from_secs(seconds),
            next_bookmark: now + BOOKMARK_EVERY,
            alarm: Alarm::new(now + BOOKMARK_EVERY),
            told: Revision::default(),
        };
        reached(cx, asked).await?;
        let from = if state_first {
            let list = ListOptions {
                labels: options.labels.clone(),
                fields: options.fields.clone(),
                resource_version: if asked == Some(Revision(0)) { "0".into() } else { String::new() },
                ..Default::default()
            };
            let page = self.list(cx, resource, namespace, &list).await?;
            watcher.initial = page.items.into_iter().map(WatchEvent::Added).collect();
            if options.send_initial_events == Some(true) && options.bookmarks {
                watcher.initial.push_back(WatchEvent::Bookmark { revision: page.meta.revision, initial_end: true });
            }
            Some(page.meta.revision)
        } else {
            asked.filter(|revision| revision.0 > 0)
        };
        match cx.cluster.watch(from, filter) {
            Ok(watch) => watcher.watch = Some(watch),
            // Kubernetes answers 200 and says it in the stream; clients list again.
            Err(StoreError::Compacted { oldest }) => {
                let from = from.unwrap_or_default().0;
                watcher.initial = VecDeque::from([WatchEvent::Error(expired(from, oldest))]);
            }
            Err(error) => return Err(errors::store(error)),
        }
        watcher.told = from.unwrap_or_else(|| cx.cluster.revision());
        Ok(watcher)
    }
}

impl Watcher {
    /// The next events, at least one; None when the watch is over. Cancelling the future loses nothing.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        if !self.initial.is_empty() {
            return Some(self.first_events());
        }
        loop {
            let watch = self.watch.as_mut()?;
            let wake = if self.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline };
            self.alarm.set(wake);
            let item = tokio::select! {
                biased;
                item = watch.next() => Some(item),
                () = self.alarm.rings() => None,
            };
            match item {
                Some(WatchItem::Changes(changes)) => {
                    let events: Vec<WatchEvent> = changes.iter().filter_map(|c| self.judge(c)).collect();
                    if let Some(last) = changes.last().filter(|_| !events.is_empty()) {
                        self.told = last.object.revision;
                    }
                    if !events.is_empty() {
                        return Some(events);
                    }
                    if Instant::now() >= self.deadline {
                        return self.end();
                    }
                }
                Some(WatchItem::Progress(_)) => {}
                Some(WatchItem::Ended(reason)) => return self.ended(reason),
                None if Instant::now() >= self.deadline => return self.end(),
                None => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if let Some(bookmark) = self.bookmark() {
                        return Some(vec![bookmark]);
                    }
                }
            }
        }
    }

    /// The next part of the state that is sent first.
    fn first_events(&mut self) -> Vec<WatchEvent> {
        let (mut count, mut bytes) = (0, 0);
        while bytes < INITIAL_BYTES && count < self.initial.len() {
            bytes += match &self.initial[count] {
                WatchEvent::Added(object) => object.json.len(),
                _ => 0,
            };
            count += 1;
        }
        self.initial.drain(..count).collect()
    }

    /// What a change is to this watcher.
    fn judge(&self, change: &Change) -> Option<WatchEvent> {
        let object = &change.object;
        let is = self.selects(object);
        let was = change.previous.as_deref().is_some_and(|previous| self.selects(previous));
        match (change.kind, was, is) {
            (ChangeKind::Created, _, true) | (ChangeKind::Updated, false, true) => {
                Some(WatchEvent::Added(object.clone()))
            }
            (ChangeKind::Updated, true, true) => Some(WatchEvent::Modified(object.clone())),
            (ChangeKind::Updated, true, false) => {
                let last = change.previous.as_deref()?;
                Some(WatchEvent::Deleted(Arc::new(at_revision(last, object.revision))))
            }
            (ChangeKind::Deleted, true, _) => Some(WatchEvent::Deleted(object.clone())),
            // Its last state was not known to the log's reader: what is left decides.
            (ChangeKind::Deleted, false, true) if change.previous.is_none() => {
                Some(WatchEvent::Deleted(object.clone()))
            }
            _ => None,
        }
    }

    fn selects(&self, object: &Object) -> bool {
        self.labels.matches(&object.labels) && self.fields.matches(|field| object.field(field))
    }

    /// Says how far the client is, where that is news.
    fn bookmark(&mut self) -> Option<WatchEvent> {
        let revision = self.watch.as_ref()?.progress();
        if !self.bookmarks || revision <= self.told {
            return None;
        }
        self.told = revision;
        Some(WatchEvent::Bookmark { revision, initial_end: false })
    }

    /// A clean end: a last bookmark, then nothing.
    fn end(&mut self) -> Option<Vec<WatchEvent>> {
        let last = self.bookmark();
        self.watch = None;
        last.map(|bookmark| vec![bookmark])
    }

    fn ended(&mut self, reason: Ended) -> Option<Vec<WatchEvent>> {
        let status = match reason {
            Ended::Moved | Ended::Unloaded | Ended::Unavailable => {
                self.watch = None;
                return None;
            }
            Ended::Slow => Status::too_many_requests("the watch was dropped because it was read too slowly", 1),
            Ended::Compacted => expired(self.told.0, self.cluster.revision()),
        };
        self.watch = None;
        Some(vec![WatchEvent::Error(status)])
    }
}

fn default_timeout() -> u64 {
    LEAST_TIMEOUT_SECONDS + rand::random::<u64>() % LEAST_TIMEOUT_SECONDS
}

/// What a watch of a revision that is no longer kept is told.
fn expired(asked: i64, oldest: Revision) -> Status {
    Status::expired(format!("too old resource version: {asked} ({})", oldest.0))
}

fn check(options: &WatchOptions) -> Result<(), Status> {
    let at = Path::new("resourceVersionMatch");
    match (options.send_initial_events, options.version_match) {
        (None, VersionMatch::Unset) | (Some(_), VersionMatch::NotOlderThan) => Ok(()),
        (None, _) => Err(list_invalid(&[Error::forbidden(
            &at,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )])),
        (Some(_), VersionMatch::Unset) => Err(list_invalid(&[Error::forbidden(
            &at,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )])),
        (Some(_), VersionMatch::Exact) => Err(list_invalid(&[Error::not_supported(&at, "Exact", &["NotOlderThan"])])),
    }
}
