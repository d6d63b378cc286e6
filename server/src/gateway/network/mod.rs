//! `GET /node/v1/network`: the network map, as [`longshore_api::network`] has it.

mod map;
mod policies;
pub(crate) mod units;

use super::http::refusal;
use crate::store::{Store, StoreError};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, Stream};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use map::Reader;
use std::convert::Infallible;

/// Answers with the map of `cluster`, until it leaves this replica.
pub(super) async fn serve(store: &Store, cluster: &ClusterId) -> Response {
    let opened = store.cluster(cluster).await.and_then(|cluster| Reader::open(&cluster));
    let reader = match opened {
        Ok(reader) => reader,
        Err(StoreError::NotFound) => return refusal(Status::no_such_path()),
        Err(error) => return refusal(Status::unavailable(error.to_string())),
    };
    let lines = stream::unfold(reader, |mut reader| async move {
        // What was taken goes out before more is: a connection keeps for good what room it once needed.
        tokio::task::yield_now().await;
        let lines = reader.next().await?;
        Some((Ok::<_, Infallible>(lines), reader))
    });
    lines_of(lines)
}

/// Lines of JSON, each as soon as it is there.
pub(super) fn lines_of<E: Into<axum::BoxError> + 'static>(
    lines: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
