//! One id type for each noun, so that two ids can't be swapped.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes an id as the database or a path gave it; the caller has looked it up or will.
            pub fn new(id: impl AsRef<str>) -> Self {
                Self(Arc::from(id.as_ref()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl FromStr for $name {
            type Err = std::convert::Infallible;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Ok(Self::new(s))
            }
        }
    };
}

id!(
    /// One tenant's Kubernetes. Immutable and random: `c-` and ten lower-case base-32 characters.
    ClusterId
);
id!(
    /// The tenant: people and clusters belong to it. `o-…`.
    OrganizationId
);
id!(
    /// A person's account. `u-…`.
    UserId
);
id!(
    /// One running `longshore-server` process. `r-…`.
    ReplicaId
);
id!(
    /// A machine that joined a cluster: stays the same when the Node object is deleted and made again. `n-…`.
    NodeId
);
