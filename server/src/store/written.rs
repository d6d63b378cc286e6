//! A cluster's rows as a log in memory holds them. What befalls statements on their way to it is up to `volatile` and
//! `simulated`.

use super::cluster::ClusterInfo;
use super::log::{Compacted, Fence, Flight, Founding, Loaded, Replay, Replayed, Row};
use super::object::{ChangeKind, Key, Revision};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Written {
    info: ClusterInfo,
    data_key: Vec<u8>,
    pub epoch: i64,
    pub revision: Revision,
    pub compacted: Compacted,
    pub objects: BTreeMap<Key, Row>,
    /// Everything that was ever committed, in order.
    pub changes: Vec<Row>,
    pub wake_at: Option<i64>,
}

impl Written {
    pub fn new(founding: Founding) -> Self {
        let Founding { info, data_key } = founding;
        Self {
            info,
            data_key,
            epoch: 0,
            revision: Revision(0),
            compacted: Compacted::default(),
            objects: BTreeMap::new(),
            changes: Vec::new(),
            wake_at: None,
        }
    }

    /// Gives the cluster to whoever asks, in a new epoch.
    pub fn take(&mut self) -> Loaded {
        self.epoch += 1;
        Loaded {
            info: self.info.clone(),
            epoch: self.epoch,
            revision: self.revision,
            compacted: self.compacted,
            data_key: self.data_key.clone(),
            rows: self.objects.values().cloned().collect(),
        }
    }

    /// Whether the fence held, so that the flight's rows are there now.
    pub fn land(&mut self, flight: &Flight) -> bool {
        let held = self.holds(&flight.fence);
        if held {
            self.revision = flight.fence.new;
            flight.rows.iter().for_each(|row| self.write(row.clone()));
        }
        held
    }

    /// Whether the fence held, so that revisions go on at its end and nothing before it can be watched.
    pub fn leap(&mut self, fence: &Fence) -> bool {
        let held = self.holds(fence);
        if held {
            self.revision = fence.new;
            self.compacted = Compacted { changes: fence.new, events: fence.new };
        }
        held
    }

    fn holds(&self, fence: &Fence) -> bool {
        self.epoch == fence.epoch && self.revision == fence.expected
    }

    pub fn write(&mut self, row: Row) {
        match row.kind {
            ChangeKind::Deleted => drop(self.objects.remove(&row.key)),
            ChangeKind::Created | ChangeKind::Updated => drop(self.objects.insert(row.key.clone(), row.clone())),
        }
        self.changes.push(row);
    }

    /// The rows a replay asks for, each with its previous text as far as the log has it.
    pub fn replay(&self, replay: &Replay) -> Replayed {
        let begin = self.changes.partition_point(|row| row.revision <= replay.after);
        let wanted = self.changes[begin..].iter().filter(|row| {
            row.revision > self.compacted.of(Some(&row.key.resource))
                && row.revision <= replay.until
                && replay.resource.as_ref().is_none_or(|r| *r == row.key.resource)
                && replay.namespace.as_ref().is_none_or(|n| *n == row.key.namespace)
        });
        let with_previous = wanted.map(|row| {
            let mut row = row.clone();
            if row.previous_text.is_none() {
                // Found even where it is compacted: rows that would outlive it carry it (`Row::previous_text`).
                let at = row.previous.and_then(|p| self.changes.binary_search_by_key(&p, |r| r.revision).ok());
                row.previous_text = at.map(|at| self.changes[at].text.clone());
            }
            row
        });
        let rows = with_previous.take(usize::try_from(replay.limit).unwrap_or(usize::MAX)).collect();
        Replayed { compacted: self.compacted, rows }
    }
}
