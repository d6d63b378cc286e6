//! Reading request bodies within bounds: of one body, of all bodies that are being read, and of time.
//!
//! A body's bytes are counted against a budget of the whole process as they arrive, so that thousands of slow clients
//! cannot fill the memory together: what does not fit is told to come back (429) instead of waiting.

use super::decode::{MAX_BODY, too_large};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http_body_util::BodyExt;
use longshore_api::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All bodies in memory at once.
const BUDGET_BYTES: usize = 256 * 1024 * 1024;
/// The budget is counted in units of this size.
const UNIT: usize = 16 * 1024;
/// A body has to be there within this time, however slowly it trickles.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES / UNIT)))
    }
}

/// A body that was read whole, and its share of the budget.
pub struct Received {
    pub bytes: Bytes,
    _share: Vec<OwnedSemaphorePermit>,
}

impl Budget {
    pub async fn read(&self, parts: &Parts, mut body: Body) -> Result<Received, Status> {
        let declared =
            parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        if declared.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(too_large());
        }
        match tokio::time::timeout(DEADLINE, self.collect(&mut body)).await {
            Ok(received) => received,
            Err(_) => Err(Status::timeout("the request's body did not arrive in time", 0)),
        }
    }

    async fn collect(&self, body: &mut Body) -> Result<Received, Status> {
        let mut bytes = BytesMut::new();
        let mut share = Vec::new();
        let mut granted = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Status::bad_request("the request's body ended before it was whole"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Err(too_large());
            }
            let needed = (bytes.len() + data.len()).div_ceil(UNIT);
            if needed > granted {
                let more = u32::try_from(needed - granted).unwrap_or(u32::MAX);
                let permit = self
                    .0
                    .clone()
                    .try_acquire_many_owned(more)
                    .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))?;
                share.push(permit);
                granted = needed;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Received { bytes: bytes.freeze(), _share: share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    async fn read(budget: &Budget, body: Body) -> Result<Received, Status> {
        let (parts, body) = Request::new(body).into_parts();
        budget.read(&parts, body).await
    }

    #[tokio::test]
    async fn bodies_are_bounded_one_by_one_and_together() {
        let budget = Budget(Arc::new(Semaphore::new(2)));
        assert_eq!(read(&budget, Body::from("abc")).await.unwrap().bytes, "abc");
        assert_eq!(read(&budget, Body::from(vec![0; MAX_BODY + 1])).await.err().unwrap().code, 413);
        let held = read(&budget, Body::from(vec![0; UNIT + 1])).await.unwrap();
        assert_eq!(read(&budget, Body::from("abc")).await.err().unwrap().code, 429);
        drop(held);
        assert!(read(&budget, Body::from("abc")).await.is_ok());
    }
}
