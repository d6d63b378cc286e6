//! Packets between nodes of one cluster that don't reach each other directly. Each node has a WebSocket for them beside its
//! tunnel's; what it sends is put into the queue of the node that it names, with the sender's name in the receiver's place.
//!
//! The packets are sealed by the nodes: nothing here can read them. A queue that is full drops, as routers do: a node that
//! is slow holds up nobody.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use longshore_api::ids::{ClusterId, NodeId};
use longshore_tunnel::Messages;
use longshore_tunnel::relay::Relayed;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Messages that wait for a node, of up to 64 KB each.
const QUEUE: usize = 16;

/// The lines of all nodes that are here. Cheap to clone.
#[derive(Clone, Default)]
pub struct Relays(Arc<Shared>);

#[derive(Default)]
struct Shared {
    clusters: Mutex<HashMap<ClusterId, HashMap<NodeId, mpsc::Sender<Bytes>>>>,
    carried: AtomicU64,
    dropped: AtomicU64,
}

/// Bytes since this process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub carried: u64,
    /// For nodes that aren't here, or didn't keep up.
    pub dropped: u64,
}

impl Relays {
    pub fn traffic(&self) -> Traffic {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic { carried: read(&self.0.carried), dropped: read(&self.0.dropped) }
    }

    /// Carries what `node` sends and gets, until its line ends or it opens a newer one.
    pub async fn serve(&self, cluster: &ClusterId, node: &NodeId, line: impl Messages) -> io::Result<()> {
        let (mut out, mut sent) = line.split();
        let (queue, mut waiting) = mpsc::channel::<Bytes>(QUEUE);
        let _place = self.enter(cluster, node, queue);
        let deliver = async {
            while let Some(message) = waiting.recv().await {
                out.feed(message).await?;
                while let Ok(message) = waiting.try_recv() {
                    out.feed(message).await?;
                }
                out.flush().await?;
            }
            // Another line has taken this one's place.
            Ok(())
        };
        let take = async {
            while let Some(message) = sent.next().await {
                let relayed = Relayed::decode(&message?);
                self.pass(cluster, node, relayed.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
            }
            Ok(())
        };
        tokio::select! {
            ended = deliver => ended,
            ended = take => ended,
        }
    }

    fn pass(&self, cluster: &ClusterId, from: &NodeId, relayed: Relayed) {
        let length = relayed.bytes.len() as u64;
        let to = self.0.clusters.lock().get(cluster).and_then(|nodes| nodes.get(&relayed.peer).cloned());
        // Room first: a message that is dropped need not be copied.
        let room = to.as_ref().and_then(|to| to.try_reserve().ok());
        let message = Relayed { peer: from.clone(), ..relayed }.encode();
        let count = match room.zip(message) {
            Some((room, message)) => {
                room.send(message);
                &self.0.carried
            }
            None => &self.0.dropped,
        };
        count.fetch_add(length, Ordering::Relaxed);
    }

    fn enter(&self, cluster: &ClusterId, node: &NodeId, queue: mpsc::Sender<Bytes>) -> Place<'_> {
        let mut clusters = self.0.clusters.lock();
        clusters.entry(cluster.clone()).or_default().insert(node.clone(), queue.clone());
        Place { relays: self, cluster: cluster.clone(), node: node.clone(), queue: queue.downgrade() }
    }
}

/// A node's place among the lines, given back when it is dropped, unless a newer line has it.
struct Place<'a> {
    relays: &'a Relays,
    cluster: ClusterId,
    node: NodeId,
    queue: mpsc::WeakSender<Bytes>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut clusters = self.relays.0.clusters.lock();
        let Some(nodes) = clusters.get_mut(&self.cluster) else { return };
        let own = self.queue.upgrade();
        if nodes.get(&self.node).zip(own).is_some_and(|(there, own)| there.same_channel(&own)) {
            nodes.remove(&self.node);
        }
        if nodes.is_empty() {
            clusters.remove(&self.cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::pair;

    fn message(peer: &str, bytes: &'static [u8]) -> Bytes {
        Relayed { peer: NodeId::new(peer), segment: 100, bytes: Bytes::from_static(bytes) }.encode().unwrap()
    }

    /// A line with hardly any room on the way.
    fn join(relays: &Relays, cluster: &str, node: &str) -> (impl Messages, tokio::task::JoinHandle<io::Result<()>>) {
        let (near, far) = pair(64);
        let (relays, cluster, node) = (relays.clone(), ClusterId::new(cluster), NodeId::new(node));
        (near, tokio::spawn(async move { relays.serve(&cluster, &node, far).await }))
    }

    async fn settle(relays: &Relays, lines: usize) {
        while relays.0.clusters.lock().values().map(HashMap::len).sum::<usize>() != lines {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn nodes_of_one_cluster_hear_each_other_and_nobody_else() {
        let relays = Relays::default();
        let ((mut a, _), (mut b, _)) = (join(&relays, "c-1", "a"), join(&relays, "c-1", "b"));
        let (mut stranger, _) = join(&relays, "c-2", "b");
        settle(&relays, 3).await;
        a.send(message("b", b"hello")).await.unwrap();
        assert_eq!(b.next().await.unwrap().unwrap(), message("a", b"hello"));
        stranger.send(message("a", b"a stranger's")).await.unwrap();
        stranger.send(message("b", b"to itself")).await.unwrap();
        assert_eq!(stranger.next().await.unwrap().unwrap(), message("b", b"to itself"));
        b.send(message("a", b"back")).await.unwrap();
        assert_eq!(a.next().await.unwrap().unwrap(), message("b", b"back"));
        assert_eq!(relays.traffic(), Traffic { carried: 18, dropped: 12 });
    }

    #[tokio::test]
    async fn who_does_not_read_loses_its_own_packets_only() {
        let relays = Relays::default();
        let ((mut a, _), (mut slow, _), (mut b, _)) =
            (join(&relays, "c-1", "a"), join(&relays, "c-1", "slow"), join(&relays, "c-1", "b"));
        settle(&relays, 3).await;
        for _ in 0..100 {
            a.send(message("slow", b"x")).await.unwrap();
            a.send(message("b", b"y")).await.unwrap();
            assert_eq!(b.next().await.unwrap().unwrap(), message("a", b"y"));
        }
        let lost = relays.traffic().dropped;
        assert!((70..100).contains(&lost), "{lost}");
        assert_eq!(slow.next().await.unwrap().unwrap(), message("a", b"x"), "what found room comes");
    }

    #[tokio::test]
    async fn a_newer_line_takes_the_place_and_nonsense_ends_one() {
        let relays = Relays::default();
        let (_old, ended) = join(&relays, "c-1", "a");
        settle(&relays, 1).await;
        let (mut new, second) = join(&relays, "c-1", "a");
        ended.await.unwrap().unwrap();
        settle(&relays, 1).await;
        new.send(message("a", b"me")).await.unwrap();
        assert_eq!(new.next().await.unwrap().unwrap(), message("a", b"me"));
        new.send(Bytes::from_static(b"nonsense")).await.unwrap();
        assert_eq!(second.await.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        settle(&relays, 0).await;
        assert!(relays.0.clusters.lock().is_empty());
    }
}
