//! `serviceaccounts/{name}/token`: a token bound to an audience, a time, and often a pod.
//!
//! Whether the request is allowed and well-formed is decided here; keys and JWTs are behind `TokenIssuer`.

use super::api::{self, Api, Context};
use super::decode::Target;
use super::metadata;
use super::options::GetOptions;
use crate::accounts::Who;
use crate::resources::registry;
use futures::future::BoxFuture;
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use longshore_api::ids::ClusterId;
use longshore_api::meta::GroupResource;
use serde_json::{Value, json};

const DEFAULT_SECONDS: i64 = 3600;
/// Kubernetes's bounds.
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

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
    /// What others verify the cluster's tokens by.
    fn publication<'a>(&'a self, cluster: &'a ClusterId) -> BoxFuture<'a, Result<Publication, Status>>;
}

/// What an issuer publishes of itself (OpenID Connect Discovery 1.0).
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// `/.well-known/openid-configuration`
    pub configuration: Value,
    /// `/openid/v1/jwks`
    pub keys: Value,
}

impl Api {
    /// Issues a token for a service account; `body` is a TokenRequest, and so is the answer.
    pub async fn request_token(&self, cx: &Context, namespace: &str, name: &str, body: Value) -> Result<Value, Status> {
        let accounts = registry().by_name("serviceaccounts").ok_or_else(Status::no_such_path)?;
        let account = self.get(cx, accounts, namespace, name, &GetOptions::default()).await?;
        let spec = &body["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
        check_seconds(seconds)?;
        let audiences: Vec<String> =
            spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
        let reference = &spec["boundObjectRef"];
        let bound = match reference.is_object() {
            true => Some(self.bound(cx, namespace, name, reference).await?),
            false => None,
        };
        if let Who::Node { name: node, .. } = &cx.identity.who {
            let refuse = |why: &str| Err(Status::forbidden(&accounts.group_resource(), name, why));
            match &bound {
                Some(bound) if bound.node.as_ref().is_some_and(|(n, _)| n == node) => {}
                Some(_) => return refuse("node requested token bound to a pod scheduled on a different node"),
                None => return refuse("node requested token not bound to a pod"),
            }
        }
        let (bound, node) = bound.map_or((None, None), |b| (Some(b.object), b.node));
        let issued = self
            .tokens
            .issue(
                cx.cluster.id(),
                TokenSpec {
                    namespace: namespace.into(),
                    service_account: name.into(),
                    service_account_uid: account.uid.to_string(),
                    audiences,
                    expiration_seconds: seconds,
                    bound: bound.clone(),
                    node,
                },
            )
            .await?;
        let mut answer = json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": metadata::time(cx.now)},
            "spec": {"audiences": issued.audiences, "expirationSeconds": seconds},
            "status": {"token": issued.token, "expirationTimestamp": metadata::time(issued.expires)},
        });
        answer["spec"]["boundObjectRef"] = match bound {
            Some(b) => json!({"kind": b.kind, "apiVersion": "v1", "name": b.name, "uid": b.uid}),
            None => Value::Null,
        };
        Ok(answer)
    }

    /// The object a token is to die with: it must be there, be the one that is meant, and run as this account.
    async fn bound(&self, cx: &Context, namespace: &str, account: &str, reference: &Value) -> Result<Bound, Status> {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
        let resource = match (text("apiVersion"), kind) {
            ("v1", "Pod") => "pods",
            ("v1", "Secret") => "secrets",
            (version, kind) => {
                return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
            }
        };
        let resource = registry().by_name(resource).ok_or_else(Status::no_such_path)?;
        let object = self.get(cx, resource, namespace, name, &GetOptions::default()).await?;
        if !uid.is_empty() && *uid != *object.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&GroupResource::new("", resource.plural), name, &why));
        }
        let tree = object.tree();
        let mut node = None;
        if kind == "Pod" {
            if tree["spec"]["serviceAccountName"] != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            if let Some(node_name) = tree["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
                let key = api::key(registry().by_name("nodes").ok_or_else(Status::no_such_path)?, "", node_name);
                let uid = cx.cluster.get_stale(&key).ok().flatten().map(|n| n.uid.to_string()).unwrap_or_default();
                node = Some((node_name.to_string(), uid));
            }
        }
        let object = BoundObject { kind: kind.into(), name: name.into(), uid: object.uid.to_string() };
        Ok(Bound { object, node })
    }
}

struct Bound {
    object: BoundObject,
    node: Option<(String, String)>,
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let why = match seconds {
        s if s < LEAST_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MOST_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let at = Path::new("spec").child("expirationSeconds");
    let target = Target::TOKEN_REQUEST;
    Err(Status::invalid(target.group, target.kind, "", &[Error::invalid(&at, seconds, why)]))
}
