//! This node's keys in the mesh, and what else of it outlives the agent. Pure but for reading and writing one file.

use super::TRUST;
use crate::pods::desired;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_mesh::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A key's life. (Each session's own keys live for two minutes, as WireGuard has it.)
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// For how long a key is told, and answered to, behind its successor.
const OVERLAP: Duration = Duration::from_secs(180);

/// Made here, kept in a private file, never sent anywhere.
pub struct Keys {
    path: PathBuf,
    kept: Kept,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// 32 bytes in base64.
    key: String,
    /// Seconds since 1970.
    since: u64,
    /// The public key before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<PublicKey>,
    /// When the server last told who the peers are.
    #[serde(default)]
    heard: u64,
    /// The UDP port, so that what others know of us stays right over a restart.
    #[serde(default)]
    port: u16,
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn generate() -> String {
    STANDARD.encode(PrivateKey::generate().to_bytes())
}

impl Keys {
    /// As they were kept at `path`, or new ones.
    pub fn open(path: &Path, now: SystemTime) -> io::Result<Self> {
        let kept = desired::read::<Kept>(path).filter(|kept| decode(&kept.key).is_some());
        let new = || Kept { key: generate(), since: seconds(now), before: None, heard: 0, port: 0 };
        let mut keys = Self { path: path.into(), kept: kept.clone().unwrap_or_else(new) };
        if kept.is_none() {
            keys.change(|_| {})?;
        }
        Ok(keys)
    }

    /// What can't be kept isn't changed.
    fn change(&mut self, change: impl FnOnce(&mut Kept)) -> io::Result<()> {
        let mut kept = self.kept.clone();
        change(&mut kept);
        desired::write(&self.path, &kept)?;
        self.kept = kept;
        Ok(())
    }

    pub fn private(&self) -> PrivateKey {
        // What is no key was replaced when it was read.
        PrivateKey::from_bytes(decode(&self.kept.key).unwrap_or_default())
    }

    /// To be told to others: the newest first.
    pub fn public(&self, now: SystemTime) -> Vec<PublicKey> {
        let before = self.kept.before.filter(|_| self.age(now) < OVERLAP);
        std::iter::once(self.private().public()).chain(before).collect()
    }

    fn age(&self, now: SystemTime) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.kept.since))
    }

    /// When [`Keys::public`] changes next, or the key is to be changed.
    pub fn due(&self, now: SystemTime) -> Duration {
        let age = self.age(now);
        let next = if self.kept.before.is_some() && age < OVERLAP { OVERLAP } else { LIFE };
        next.saturating_sub(age).max(Duration::from_secs(1))
    }

    /// The new key, where the old one has lived its life.
    pub fn rotate(&mut self, now: SystemTime) -> io::Result<Option<PrivateKey>> {
        if self.age(now) < LIFE {
            return Ok(None);
        }
        let before = self.private().public();
        self.change(|kept| (kept.key, kept.since, kept.before) = (generate(), seconds(now), Some(before)))?;
        Ok(Some(self.private()))
    }

    /// Until when the peers that were last heard of are trusted; none: the server has never told any.
    pub fn trusted_until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.kept.heard) + TRUST
    }

    pub fn heard(&mut self, now: SystemTime) -> io::Result<()> {
        self.change(|kept| kept.heard = seconds(now))
    }

    pub fn port(&self) -> u16 {
        self.kept.port
    }

    pub fn bound(&mut self, port: u16) -> io::Result<()> {
        match self.kept.port == port {
            true => Ok(()),
            false => self.change(|kept| kept.port = port),
        }
    }
}

fn decode(key: &str) -> Option<[u8; 32]> {
    STANDARD.decode(key).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_outlives_the_agent_and_not_its_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.json");
        let begin = SystemTime::now();
        let mut keys = Keys::open(&path, begin).unwrap();
        let first = keys.private().public();
        keys.bound(4444).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(keys.rotate(begin + LIFE - Duration::from_secs(2)).unwrap().is_none());

        let mut keys = Keys::open(&path, begin).unwrap();
        assert_eq!((keys.public(begin), keys.port()), (vec![first], 4444));
        let later = begin + LIFE;
        let second = keys.rotate(later).unwrap().unwrap().public();
        assert_ne!(first, second);
        assert_eq!(keys.public(later), [second, first], "both, until everybody has heard");
        assert_eq!(keys.due(later), OVERLAP);
        assert_eq!(keys.public(later + OVERLAP), [second]);
        assert_eq!(Keys::open(&path, later).unwrap().public(later), [second, first], "after a restart as well");
        assert!(keys.due(later + OVERLAP) <= LIFE - OVERLAP);
    }

    #[test]
    fn peers_are_trusted_for_a_while_after_the_server_last_named_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.json");
        let now = SystemTime::now();
        let mut keys = Keys::open(&path, now).unwrap();
        assert!(keys.trusted_until() < now, "nobody was ever named");
        keys.heard(now).unwrap();
        let until = Keys::open(&path, now).unwrap().trusted_until();
        assert!(until > now + TRUST - Duration::from_secs(2) && until <= now + TRUST);
    }

    #[test]
    fn what_is_no_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.json");
        std::fs::write(&path, r#"{"key":"c2hvcnQ=","since":1}"#).unwrap();
        let keys = Keys::open(&path, SystemTime::now()).unwrap();
        assert_eq!(
            Keys::open(&path, SystemTime::now()).unwrap().public(SystemTime::now()),
            keys.public(SystemTime::now())
        );
    }
}
