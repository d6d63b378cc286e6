//! Answers that last, watches above all: HTTP for their heads alone.
//!
//! A connection of HTTP/1.1 holds some 18 kB for as long as its answer lasts: buffers both ways and a task. Where thousands
//! of nodes each follow a few answers, most of which say something once an hour, that is most of what a node costs. So
//! whoever asks for such an answer offers an upgrade to [`PROTOCOL`]. If the answer is 200, it comes as 101 with the same
//! headers, and its body's bytes follow as they are, with nothing around them, until the stream ends. A stream that breaks
//! off instead is an error, as it is for framed bodies. Any other answer comes as it would without the offer, and so does
//! everything from a server that doesn't know of it.

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

pub const PROTOCOL: &str = "answer-raw.longshore.v1";

/// What is read at once.
const PIECE: usize = 8 * 1024;

/// The body of an answer that may last.
pub enum Answer {
    Framed(Incoming),
    Raw(Raw),
}

/// The bytes of an answer up to the end of its stream.
pub struct Raw {
    /// None once it has ended.
    stream: Option<TokioIo<Upgraded>>,
}

/// Sends `request` as [`crate::http::send`] does, with the offer.
pub async fn ask<S, B>(stream: S, mut request: Request<B>) -> Result<Response<Answer>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    let mut response = crate::http::send(stream, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(Answer::Framed));
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(CONNECTION);
    response.headers_mut().remove(UPGRADE);
    Ok(response.map(|_| Answer::Raw(Raw { stream: Some(TokioIo::new(upgraded)) })))
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Framed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Raw(raw) => raw.poll_data(cx).map_ok(Frame::data).map_err(Into::into),
        }
    }
}

impl Raw {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let mut place = [MaybeUninit::uninit(); PIECE];
        let mut read = ReadBuf::uninit(&mut place);
        let result = ready!(Pin::new(stream).poll_read(cx, &mut read));
        if result.is_err() || read.filled().is_empty() {
            self.stream = None;
        }
        Poll::Ready(match result {
            Err(error) => Some(Err(error)),
            Ok(()) => Some(read.filled()).filter(|b| !b.is_empty()).map(|b| Ok(Bytes::copy_from_slice(b))),
        })
    }
}

/// The offer of a request, for whoever serves it.
pub struct Offer(OnUpgrade);

impl Offer {
    /// Takes it out of the request: what answers that need not know of it.
    pub fn take<B>(request: &mut Request<B>) -> Option<Self> {
        request.headers().get(UPGRADE).filter(|protocol| *protocol == PROTOCOL)?;
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(UPGRADE);
        Some(Self(hyper::upgrade::on(request)))
    }

    /// The answer as it is to go out. Of a good one the body goes raw, on a task of its own, which ends when the body or
    /// whoever asked does.
    pub fn answer<B>(self, response: Response<B>) -> Response<B>
    where
        B: Body<Data = Bytes> + Default + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if response.status() != StatusCode::OK {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        tokio::spawn(async move {
            let Ok(upgraded) = self.0.await else { return };
            if let Err(error) = pass(body, TokioIo::new(upgraded)).await {
                tracing::debug!(%error, "an answer that lasts broke off");
            }
        });
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        Response::from_parts(parts, B::default())
    }
}

/// An error resets the stream, so that half a body is never taken for a whole one.
async fn pass<B>(body: B, mut stream: TokioIo<Upgraded>) -> io::Result<()>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut body = pin!(body);
    let mut nothing = [0; 1];
    loop {
        let frame = tokio::select! {
            biased;
            // Whoever asked says nothing more: this is its going.
            _ = stream.read(&mut nothing) => return Ok(()),
            frame = body.frame() => frame.map(|frame| frame.map_err(io::Error::other)),
        };
        match frame {
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { continue };
                stream.write_all_buf(&mut data).await?;
                stream.flush().await?;
            }
            Some(Err(error)) => return Err(error),
            None => return stream.shutdown().await,
        }
    }
}
