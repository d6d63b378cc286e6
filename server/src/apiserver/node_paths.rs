//! `nodes/proxy`: what a node tells of itself, for whoever may. Reading only: a kubelet's other paths run commands in pods,
//! and have verbs of their own.

use super::api::{Api, Context};
use super::options::GetOptions;
use super::request::Query;
use super::{answer, request};
use crate::resources::registry;
use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use longshore_api::Status;
use longshore_api::network::LINKS_PATH;

const READABLE: [&str; 5] = ["/healthz", "/pods", "/stats/summary", "/metrics/resource", LINKS_PATH];

impl Api {
    /// `path`: the whole one, below the cluster's base.
    pub async fn node_paths(
        &self,
        cx: &Context,
        node: &str,
        path: &str,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        let nodes = registry().by_name("nodes").ok_or_else(Status::no_such_path)?;
        self.get(cx, nodes, "", node, &GetOptions::default()).await?;
        let own = request::proxied(path).trim_end_matches('/');
        let readable = READABLE.into_iter().find(|readable| *readable == own).ok_or_else(Status::no_such_path)?;
        let follow = if query.flag("follow") { "?follow=true" } else { "" };
        let asked =
            Request::get(format!("{readable}{follow}")).body(Body::empty()).map_err(|_| Status::no_such_path())?;
        let said = self.nodes.request(cx.cluster.id(), node, asked).await?;
        let kind = said.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind =
            kind.filter(|kind| kind.starts_with("application/json")).map_or("text/plain", |_| "application/json");
        match said.status() {
            StatusCode::OK => Ok(answer::with_type(StatusCode::OK, kind, said.into_body())),
            other => Err(Status::unavailable(format!("node {node:?} answers {other}"))),
        }
    }
}
