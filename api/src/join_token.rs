//! The token that a machine joins with: which cluster, a secret, and whom to trust.

use crate::ids::ClusterId;
use std::fmt;
use std::str::FromStr;

/// `lsj.CLUSTER.SECRET.PIN`. The pin is the base64url SHA-256 of the public key info (SPKI) of the installation's CA, so
/// that a joining machine needs no other file to know that it speaks to the right server.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub cluster: ClusterId,
    pub secret: String,
    pub pin: String,
}

impl JoinToken {
    pub const PREFIX: &str = "lsj";
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", Self::PREFIX, self.cluster, self.secret, self.pin)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match text.trim().split('.').collect::<Vec<_>>()[..] {
            [Self::PREFIX, cluster, secret, pin] if plain(cluster) && plain(secret) && plain(pin) => {
                Ok(Self { cluster: ClusterId::new(cluster), secret: secret.into(), pin: pin.into() })
            }
            _ => Err("this is no join token: it has the form lsj.CLUSTER.SECRET.PIN"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_it_is_not() {
        let token: JoinToken = "lsj.c-abc.s3cr3t.p1n\n".parse().unwrap();
        assert_eq!(token.to_string(), "lsj.c-abc.s3cr3t.p1n");
        assert!(!format!("{token:?}").contains("s3cr3t"));
        for bad in ["", "lsj", "lsj.a.b", "x.a.b.c", "lsj.a..c", "lsj.a.b/.c", "lsj.a.b.c.d"] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
