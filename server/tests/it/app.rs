//! A server to ask, and people to ask it: `let app = TestApp::new().await; app.owner().get("/api/v1/pods").await`.

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, NodeId, OrganizationId, UserId};
use longshore_server::accounts::{Authenticator, Identity, Role};
use longshore_server::apiserver::node_proxy::NoNodes;
use longshore_server::apiserver::{Api, IssuedToken, Publication, TokenIssuer, TokenSpec, admission, router};
use longshore_server::store::{NewCluster, Store};
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt;

#[derive(Clone)]
pub struct TestApp {
    router: Router,
    pub cluster: ClusterId,
}

/// Believes what the test says: the identity stands in a header, as no request from outside could have it.
struct Believer;

const WHO: &str = "x-test-identity";

impl Authenticator for Believer {
    async fn authenticate(&self, _: &ClusterId, parts: &Parts) -> Result<Identity, Status> {
        let who = parts.headers.get(WHO).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let person = |role| Identity::person(UserId::new("u-1"), "ann@example.com", role);
        Ok(match who.split_once(':').unwrap_or((who, "")) {
            ("node", name) => Identity::node(NodeId::new("n-1"), name),
            ("serviceaccount", name) => Identity::service_account("default", name, "sa-uid", None),
            (role, _) => Role::parse(role).map_or_else(Identity::anonymous, person),
        })
    }
}

/// Tokens that say what they are for.
struct PlainTokens;

impl TokenIssuer for PlainTokens {
    fn issue<'a>(&'a self, _: &'a ClusterId, spec: TokenSpec) -> BoxFuture<'a, Result<IssuedToken, Status>> {
        let token = format!("{}/{}", spec.namespace, spec.service_account);
        let audiences = if spec.audiences.is_empty() { vec!["self".into()] } else { spec.audiences };
        Box::pin(async move { Ok(IssuedToken { token, expires: jiff::Timestamp::UNIX_EPOCH, audiences }) })
    }
    fn publication<'a>(&'a self, _: &'a ClusterId) -> BoxFuture<'a, Result<Publication, Status>> {
        Box::pin(async { Err(Status::unavailable("nothing is published")) })
    }
}

/// Someone who sends requests.
pub struct Actor<'a> {
    app: &'a TestApp,
    who: String,
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl TestApp {
    pub async fn new() -> Self {
        Self::on(Store::in_memory()).await
    }

    /// On a store that the test made; its organization is `o-1`.
    pub async fn on(store: Store) -> Self {
        let cluster = store.create_cluster(NewCluster::new(OrganizationId::new("o-1"), "test")).await.unwrap();
        admission::bootstrap(&store.cluster(&cluster).await.unwrap()).await.unwrap();
        let api = Api::new(Arc::new(NoNodes), Arc::new(PlainTokens));
        Self { router: router(api, Arc::new(Believer), store), cluster }
    }

    pub fn as_(&self, who: &str) -> Actor<'_> {
        Actor { app: self, who: who.into() }
    }
    /// The owner's request as a future of its own, for a task.
    pub fn owner_request(&self, method: &'static str, path: &'static str, body: Value) -> BoxFuture<'static, Answer> {
        let app = self.clone();
        Box::pin(async move {
            app.owner().send(method, path, &[("content-type", "application/json")], body.to_string()).await
        })
    }
    pub fn owner(&self) -> Actor<'_> {
        self.as_("owner")
    }
}

impl Actor<'_> {
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/clusters/{}{path}", self.app.cluster))
            .header(WHO, &self.who);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, &[("accept", accept)], Body::empty()).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn merge(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], body.to_string()).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }
    pub async fn delete_with(&self, path: &str, options: Value) -> Answer {
        self.send("DELETE", path, &[("content-type", "application/json")], options.to_string()).await
    }
}
