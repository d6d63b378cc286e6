//! `serviceaccounts/{name}/token`: a token bound to an audience, a time, and often a pod.
//!
//! Whether the request is allowed and well-formed is decided here; keys and JWTs are behind `TokenIssuer`.

use futures::future::BoxFuture;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::ids::ClusterId;

/// All that goes into a service account's token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSpec {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    /// Empty: the issuer's own audience.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    /// The object the token dies with.
    pub bound: Option<BoundObject>,
    /// The node of the bound pod, where it has one: its name and uid.
    pub node: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BoundObject {
    /// `Pod` or `Secret`.
    pub kind: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IssuedToken {
    pub token: String,
    pub expires: Timestamp,
    /// The audiences that were put in: the issuer's own where the request named none.
    pub audiences: Vec<String>,
}

pub trait TokenIssuer: Send + Sync + 'static {
    fn issue<'a>(&'a self, cluster: &'a ClusterId, spec: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>>;
}
