//! Account API types: requests and answers of `/v1/…`. Errors are `Status` objects there too.

use crate::ids::{ClusterId, OrganizationId, UserId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `POST /v1/session`: signs in; the answer is a [`Session`] and sets the HttpOnly session cookie.
#[derive(Clone, Serialize, Deserialize)]
pub struct SignIn {
    pub email: String,
    pub password: String,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("email", &self.email).finish_non_exhaustive()
    }
}

/// `GET /v1/session`: who is signed in (401 when nobody is).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub user: User,
    /// Goes into the header `x-longshore-csrf` of every request that rests on the cookie.
    pub csrf: String,
    pub organizations: Vec<Organization>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    /// `owner`, `admin`, `developer` or `viewer`: the caller's own.
    pub role: String,
    pub clusters: Vec<Cluster>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: String,
}

/// `POST /v1/clusters`: a new, empty cluster; the answer is a [`Cluster`]. For owners and admins of the organization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewCluster {
    /// A DNS label, unique within the organization.
    pub name: String,
    /// May be left out by who belongs to one organization only.
    pub organization: Option<OrganizationId>,
}

/// `POST /v1/clusters/{id}/join-tokens`. Hours default to 24, at most 720.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewJoinToken {
    pub hours: Option<u32>,
}

/// Shown once; the server keeps a hash.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinToken {
    pub token: String,
    /// The one line to paste on a machine.
    pub command: String,
    /// RFC 3339; none for a token that does not expire.
    pub expires_at: Option<String>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// `POST /v1/stream/tickets`: one use, within 30 s, for `/v1/stream?ticket=…`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamTicket {
    pub ticket: String,
}

/// `POST /v1/tokens`: an API token of the caller for scripts and kubectl.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewApiToken {
    pub name: String,
    pub days: Option<u32>,
}

/// Shown once.
#[derive(Clone, Serialize, Deserialize)]
pub struct ApiToken {
    pub id: String,
    pub token: String,
}
