//! Who was heard when, and since when somebody is silent.
//!
//! A node is heard through its tunnel, or, where it is known through the API only, by its lease and status. Silence is
//! counted only while we could have heard: from the latest of the node's own last contact, the moment this owner loaded
//! the cluster, and the moment we heard *any* node again after hearing none. So a server that was away, or cut off, gives
//! every node a fresh grace period instead of holding its own deafness against them.

use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// How long a node that speaks through the API may be silent (Kubernetes's `node-monitor-grace-period`).
pub const API_GRACE: SignedDuration = SignedDuration::from_secs(40);
/// How long a tunnel may be down. A dead link is noticed within 15 s, so this is some 35 s at most since the last word; an
/// agent that restarts is back well before.
pub const TUNNEL_GRACE: SignedDuration = SignedDuration::from_secs(20);
/// Without a word from anybody for this long, it is rather we who are deaf. Longer than the ten seconds between two
/// renewals of a lease.
const DEAF_AFTER: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Contacts {
    loaded_at: Timestamp,
    /// When the present stretch of hearing somebody began.
    hearing_since: Timestamp,
    last_any: Timestamp,
    nodes: HashMap<String, Contact>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// Its tunnel is up.
    Connected,
    /// Its tunnel went down then.
    Disconnected(Timestamp),
    /// Its lease or status was renewed then.
    Heartbeat(Timestamp),
}

impl Default for Contacts {
    fn default() -> Self {
        Self::new(Timestamp::UNIX_EPOCH)
    }
}

impl Contacts {
    pub fn new(loaded_at: Timestamp) -> Self {
        Self { loaded_at, hearing_since: loaded_at, last_any: loaded_at, nodes: HashMap::new() }
    }

    pub fn loaded_at(&self) -> Timestamp {
        self.loaded_at
    }

    /// A heartbeat through the API. A node with a tunnel is judged by its tunnel alone: its words come through it.
    pub fn heard(&mut self, node: &str, now: Timestamp) {
        if !matches!(self.nodes.get(node), Some(Contact::Connected | Contact::Disconnected(_))) {
            self.nodes.insert(node.to_string(), Contact::Heartbeat(now));
        }
        self.any(now);
    }

    pub fn connected(&mut self, node: &str, now: Timestamp) {
        self.nodes.insert(node.to_string(), Contact::Connected);
        self.any(now);
    }

    pub fn disconnected(&mut self, node: &str, now: Timestamp) {
        if self.is_connected(node) {
            self.any(now);
            self.nodes.insert(node.to_string(), Contact::Disconnected(now));
        }
    }

    pub fn forget(&mut self, node: &str) {
        if !self.is_connected(node) {
            self.nodes.remove(node);
        }
    }

    pub fn is_connected(&self, node: &str) -> bool {
        self.nodes.get(node) == Some(&Contact::Connected)
    }

    fn any(&mut self, now: Timestamp) {
        let somebody = self.nodes.values().any(|c| *c == Contact::Connected);
        if !somebody && now.duration_since(self.last_any) > DEAF_AFTER {
            self.hearing_since = now;
        }
        self.last_any = self.last_any.max(now);
    }

    /// Since when we hear somebody without a gap (or, before the first word, since loading).
    pub fn hearing_since(&self) -> Timestamp {
        self.hearing_since.max(self.loaded_at)
    }

    /// From when silence counts against a node; none while its tunnel is up.
    pub fn silent_since(&self, node: &str) -> Option<Timestamp> {
        let last = match self.nodes.get(node) {
            Some(Contact::Connected) => return None,
            Some(Contact::Disconnected(at) | Contact::Heartbeat(at)) => *at,
            None => self.loaded_at,
        };
        Some(last.max(self.hearing_since()))
    }

    /// When a node that stays silent is to be called unreachable; none while its tunnel is up.
    pub fn unreachable_at(&self, node: &str) -> Option<Timestamp> {
        let grace = match self.nodes.get(node) {
            Some(Contact::Disconnected(_)) => TUNNEL_GRACE,
            _ => API_GRACE,
        };
        self.silent_since(node).map(|t| t + grace)
    }

    pub fn is_silent(&self, node: &str, now: Timestamp) -> bool {
        self.unreachable_at(node).is_some_and(|t| t <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_node_is_silent_after_its_grace() {
        let mut contacts = Contacts::new(at(0));
        contacts.heard("a", at(5));
        contacts.connected("t", at(5));
        assert!(!contacts.is_silent("a", at(44)) && contacts.is_silent("a", at(45)));
        contacts.disconnected("t", at(50));
        assert!(!contacts.is_silent("t", at(69)) && contacts.is_silent("t", at(70)));
        contacts.heard("t", at(69));
        assert!(contacts.is_silent("t", at(70)), "a late write of a node whose tunnel is down is no sign of life");
    }

    #[test]
    fn loading_begins_everybodys_grace() {
        let contacts = Contacts::new(at(360));
        assert!(!contacts.is_silent("a", at(399)) && contacts.is_silent("a", at(400)));
    }

    #[test]
    fn our_own_deafness_is_held_against_nobody() {
        let mut contacts = Contacts::new(at(0));
        contacts.heard("a", at(10));
        contacts.heard("b", at(10));
        contacts.heard("a", at(310));
        assert!(!contacts.is_silent("b", at(320)), "b gets its grace from when we could hear again");
        assert!(contacts.is_silent("b", at(350)));
    }
}
