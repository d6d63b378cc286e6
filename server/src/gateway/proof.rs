//! Who is at the other end: a credential, and a fresh proof that its holder has the key it was made for.
//!
//! A proof counts once. What was seen is remembered for as long as its time would still pass; each node has a bounded
//! number of places, so that no node can make another forget or fill our memory.

use super::{Member, Nodes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId};
use longshore_api::node::{PROOF_HEADER, PROOF_TOLERANCE_SECONDS, Proof};
use parking_lot::Mutex;
use std::collections::HashMap;

/// Proofs of one node within twice the tolerance. An agent that reconnects as fast as its back-off lets it uses a few dozen.
const PROOFS_OF_ONE: usize = 256;
/// Nodes remembered at once before those without a live proof are swept.
const SWEEP_FROM: usize = 4096;

/// Who asks, by the head of a request to `path` at `now` (seconds since 1970); and the credential that said so.
pub(super) async fn judge(
    nodes: &dyn Nodes,
    seen: &Seen,
    path: &str,
    headers: &HeaderMap,
    now: i64,
) -> Result<(Member, String), Status> {
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (scheme, credential) = text(AUTHORIZATION).split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Status::unauthorized());
    }
    let credential = credential.trim();
    let proof: Proof = text(HeaderName::from_static(PROOF_HEADER)).parse().map_err(refused)?;
    // Before anything costs: an agent whose clock is off asks again with ours, from the answer's `Date`.
    if now.abs_diff(proof.time) > PROOF_TOLERANCE_SECONDS.unsigned_abs() {
        return Err(refused("the proof's time is too far off the server's clock"));
    }
    let member = nodes.verify(credential).await?;
    if !is_signed(&member.key, path, credential, &proof) {
        return Err(refused("the proof does not hold"));
    }
    match seen.enter(&member, &proof, now) {
        Entered::New => Ok((member, credential.to_string())),
        Entered::Replayed => Err(refused("the proof was used before")),
        Entered::TooMany => Err(Status::too_many_requests("too many proofs within minutes", 10)),
    }
}

fn refused(why: &str) -> Status {
    Status::failure(401, "Unauthorized", why)
}

fn is_signed(key: &[u8; 32], path: &str, credential: &str, proof: &Proof) -> bool {
    let message = Proof::message(path, credential, proof.time, &proof.nonce);
    let signature = URL_SAFE_NO_PAD.decode(&proof.signature).ok().and_then(|s| Signature::from_slice(&s).ok());
    let (Ok(key), Some(signature)) = (VerifyingKey::from_bytes(key), signature) else { return false };
    key.verify_strict(message.as_bytes(), &signature).is_ok()
}

/// Proofs that were used. One for the replica.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<(ClusterId, NodeId), HashMap<String, i64>>>);

#[derive(Debug, PartialEq, Eq)]
enum Entered {
    New,
    Replayed,
    TooMany,
}

impl Seen {
    /// Takes a proof whose signature holds.
    fn enter(&self, member: &Member, proof: &Proof, now: i64) -> Entered {
        let alive = |time: &i64| now.saturating_sub(*time) <= PROOF_TOLERANCE_SECONDS;
        let mut all = self.0.lock();
        if all.len() >= SWEEP_FROM {
            all.retain(|_, proofs| proofs.values().any(alive));
        }
        let proofs = all.entry((member.cluster.clone(), member.node.clone())).or_default();
        proofs.retain(|_, time| alive(time));
        if proofs.contains_key(&proof.nonce) {
            return Entered::Replayed;
        }
        if proofs.len() >= PROOFS_OF_ONE {
            return Entered::TooMany;
        }
        proofs.insert(proof.nonce.clone(), proof.time);
        Entered::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str) -> Member {
        Member { cluster: ClusterId::new("c-1"), node: NodeId::new(node), name: node.into(), key: [0; 32] }
    }

    fn proof(nonce: &str, time: i64) -> Proof {
        Proof { time, nonce: nonce.into(), signature: String::new() }
    }

    #[test]
    fn a_proof_counts_once_for_as_long_as_its_time_passes() {
        let seen = Seen::default();
        assert_eq!(seen.enter(&member("n-1"), &proof("a", 1000), 1000), Entered::New);
        assert_eq!(seen.enter(&member("n-2"), &proof("a", 1000), 1000), Entered::New, "each node has its own");
        assert_eq!(seen.enter(&member("n-1"), &proof("a", 1000), 1000 + PROOF_TOLERANCE_SECONDS), Entered::Replayed);
        // A proof from ahead of our clock is kept until its own time is past.
        assert_eq!(seen.enter(&member("n-1"), &proof("b", 1100), 1000), Entered::New);
        assert_eq!(seen.enter(&member("n-1"), &proof("b", 1100), 1200), Entered::Replayed);
    }

    #[test]
    fn memory_is_bounded_for_each_node_and_given_back() {
        let seen = Seen::default();
        for i in 0..PROOFS_OF_ONE {
            assert_eq!(seen.enter(&member("n-1"), &proof(&i.to_string(), 1000), 1000), Entered::New);
        }
        assert_eq!(seen.enter(&member("n-1"), &proof("more", 1000), 1000), Entered::TooMany);
        assert_eq!(seen.enter(&member("n-2"), &proof("more", 1000), 1000), Entered::New);
        assert_eq!(seen.enter(&member("n-1"), &proof("later", 2000), 2000), Entered::New);
        assert_eq!(seen.0.lock()[&(ClusterId::new("c-1"), NodeId::new("n-1"))].len(), 1);
        for i in 0..SWEEP_FROM {
            seen.enter(&member(&format!("m-{i}")), &proof("x", 3000), 3000);
        }
        seen.enter(&member("last"), &proof("x", 9000), 9000);
        assert_eq!(seen.0.lock().len(), 1);
    }
}
