//! How this node reaches others: once, or (`follow`) as a line of JSON whenever that has changed, at most one in two seconds.

use super::{Body, Query, json, typed};
use crate::node::context::Context;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use longshore_api::network::Link;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(2);

pub async fn serve(context: &Arc<Context>, query: &Query) -> Response<Body> {
    if !query.flag("follow") {
        return json(&value(&context.network.links().await));
    }
    let first = (context.clone(), None::<Vec<Link>>);
    let lines = futures::stream::unfold(first, |(context, told)| async move {
        loop {
            if told.is_some() {
                tokio::time::sleep(EVERY).await;
            }
            let links = context.network.links().await;
            if told.as_ref() != Some(&links) {
                let line = Bytes::from(format!("{}\n", value(&links)));
                return Some((Ok(Frame::data(line)), (context, Some(links))));
            }
        }
    });
    let mut response = typed(StatusCode::OK, "application/x-ndjson", Bytes::new());
    *response.body_mut() = BodyExt::boxed_unsync(StreamBody::new(lines));
    response
}

fn value(links: &[Link]) -> Value {
    json!({"links": links})
}
