//! What a client still sends while its request is answered already.
//!
//! A client that is cut off while it writes reports the broken connection and never reads why: the rest of a body that no
//! handler wanted is taken and thrown away, within bounds, before the answer goes out.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The most that is thrown away of one body, in bytes, and for how long.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

/// A request's body that gives itself back when it is dropped before its end.
pub struct Watched<B: Body + Unpin> {
    body: Option<B>,
    back: Option<oneshot::Sender<B>>,
}

/// Where a watched body comes back to.
pub struct Rest<B>(Option<oneshot::Receiver<B>>);

pub fn watch<B: Body + Unpin>(body: B) -> (Watched<B>, Rest<B>) {
    if body.is_end_stream() {
        return (Watched { body: Some(body), back: None }, Rest(None));
    }
    let (back, rest) = oneshot::channel();
    (Watched { body: Some(body), back: Some(back) }, Rest(Some(rest)))
}

impl<B: Body<Data = Bytes> + Unpin> Rest<B> {
    /// Reads what is left of a body that was dropped. One that is still being read is left alone.
    pub async fn discard(self) {
        let Some(mut body) = self.0.and_then(|mut rest| rest.try_recv().ok()) else { return };
        let rest = async {
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > MOST_DISCARDED {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B: Body + Unpin> Drop for Watched<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            let _ = back.send(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    type Frames = Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

    /// A body of what is sent to the other end.
    fn body() -> (mpsc::Sender<Bytes>, StreamBody<Frames>) {
        let (client, frames) = mpsc::channel::<Bytes>(1);
        let stream = futures::stream::unfold(frames, |mut frames| async {
            frames.recv().await.map(|bytes| (Ok(Frame::data(bytes)), frames))
        });
        (client, StreamBody::new(Box::pin(stream)))
    }

    #[tokio::test]
    async fn the_rest_of_a_dropped_body_is_taken() {
        let (client, body) = body();
        let (watched, rest) = watch(body);
        drop(watched);
        let sends = async move {
            for _ in 0..100 {
                client.send(Bytes::from_static(b"still talking")).await.expect("nobody is cut off");
            }
        };
        tokio::join!(sends, rest.discard());
    }

    #[tokio::test]
    async fn a_body_that_is_read_belongs_to_its_reader() {
        let (watched, rest) = watch(Full::new(Bytes::from_static(b"whole")));
        rest.discard().await;
        assert_eq!(watched.collect().await.unwrap().to_bytes(), "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let (client, body) = body();
        let (watched, rest) = watch(body);
        drop(watched);
        let begun = tokio::time::Instant::now();
        rest.discard().await;
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(client);
    }
}
