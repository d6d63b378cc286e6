//! The Kubernetes API over a tunnel whose other end is served here.

use crate::wire::{Mode, Wire};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, WatchEvent, WatchParams};
use longshore_agent::connection::{Link, client};
use longshore_api::ids::ClusterId;
use longshore_tunnel::lasting::Offer;
use longshore_tunnel::{Config, Side, Tunnel};
use serde_json::json;
use std::convert::Infallible;
use std::io;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A server of one ConfigMap, and of watches that say one thing and stay open.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let offer = Offer::take(&mut request);
    let object =
        |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "n", "resourceVersion": "7"}});
    let whole = |text: String| Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    assert_eq!(offer.is_some(), watches, "only watches last");
    let answered = match request.uri().path() {
        "/clusters/c-1/api/v1/pods" if watches => {
            let event = json!({"type": "ADDED", "object": object("Pod")});
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from(format!("{event}\n"))))]);
            Response::new(StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync())
        }
        "/clusters/c-1/api/v1/namespaces/default/configmaps/n" => Response::new(whole(object("ConfigMap").to_string())),
        _ => {
            let mut response = Response::new(whole(String::new()));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        }
    };
    Ok(match offer {
        Some(offer) => offer.answer(answered),
        None => answered,
    })
}

/// A link whose tunnel ends at such a server, and the wire between.
fn connected() -> (Link, Wire) {
    let (wire, ours, theirs) = Wire::new(16);
    let (opener, mut nothing) = Tunnel::start(ours, Side::Agent, Config::default());
    let (_, mut incoming) = Tunnel::start(theirs, Side::Server, Config::default());
    tokio::spawn(async move { while nothing.next().await.is_some() {} });
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            tokio::spawn(longshore_tunnel::http::serve(stream, service_fn(answer)));
        }
    });
    let link = Link::default();
    link.set(opener, None);
    (link, wire)
}

#[tokio::test]
async fn requests_go_below_the_clusters_path() {
    let (link, _wire) = connected();
    let client = client::client(&link, &ClusterId::new("c-1"));
    let found: ConfigMap = Api::default_namespaced(client.clone()).get("n").await.unwrap();
    assert_eq!(found.metadata.resource_version.as_deref(), Some("7"));
    let other: Result<ConfigMap, _> = Api::default_namespaced(client).get("m").await;
    assert!(matches!(other, Err(kube::Error::Api(status)) if status.code == 404));
}

#[tokio::test]
async fn without_a_tunnel_requests_fail_instead_of_hanging() {
    let client = client::client(&Link::default(), &ClusterId::new("c-1"));
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    assert!(api.get("n").await.unwrap_err().to_string().contains("not connected"));
}

#[tokio::test]
async fn a_watch_that_is_refused_says_why() {
    let (link, _wire) = connected();
    let api: Api<ConfigMap> = Api::all(client::client(&link, &ClusterId::new("c-1")));
    let refused = api.watch(&WatchParams::default(), "0").await.map(drop);
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 404));
}

#[tokio::test]
async fn a_watch_ends_with_its_tunnel() {
    let (link, wire) = connected();
    let api: Api<Pod> = Api::all(client::client(&link, &ClusterId::new("c-1")));
    let mut watch = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    wire.set_both(Mode::Cut);
    assert!(!matches!(watch.try_next().await, Ok(Some(_))), "an end or an error, but no hanging");
    assert!(!link.is_up());
    assert!(api.get("n").await.is_err());
}
