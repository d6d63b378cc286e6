//! Docker's attach protocol on a connection of its own.
//!
//! bollard decodes terminals' output with the same decoder as framed output and guesses which one it is from the first
//! byte; a program that prints a control byte first would stall its session. Here the caller says whether there is a
//! terminal, so nothing is guessed, and closing the input is a half-close of the socket, as Docker expects it.

use crate::runtime::{Output, RuntimeError};
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use tokio::io::{AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, FramedRead};

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// How long one frame may be: Docker cuts at 16 kB for logs and 32 kB for streams; this only bounds a broken peer.
const LONGEST_FRAME: usize = 16 << 20;

async fn send(
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, RuntimeError> {
    let unreachable = |e: &dyn std::fmt::Display| RuntimeError::Unreachable(e.to_string());
    let stream = UnixStream::connect(socket).await.map_err(|e| unreachable(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
    let status = response.status();
    if status.is_success() || status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|v| Some(v.get("message")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(match status.as_u16() {
        404 => RuntimeError::NotFound(message),
        409 => RuntimeError::Conflict(message),
        _ => RuntimeError::Other(message),
    })
}

/// A stream that both ends write to: exec start, container attach.
pub async fn upgrade(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
    tty: bool,
) -> Result<(Box<dyn AsyncWrite + Send + Unpin>, BoxStream<'static, io::Result<Output>>), RuntimeError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "docker")
        .header("connection", "Upgrade")
        .header("upgrade", "tcp")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .map_err(|e| RuntimeError::Other(e.to_string()))?;
    let response = send(socket, request).await?;
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| RuntimeError::Unreachable(e.to_string()))?;
    let (read, write): (ReadHalf<Upgraded>, WriteHalf<Upgraded>) = tokio::io::split(TokioIo::new(upgraded));
    Ok((Box::new(write), FramedRead::new(read, Frames::new(tty)).boxed()))
}

/// A stream that only Docker writes to: logs.
pub async fn read(
    socket: &Path,
    path: &str,
    tty: bool,
) -> Result<BoxStream<'static, io::Result<Output>>, RuntimeError> {
    let request = Request::builder()
        .uri(path)
        .header("host", "docker")
        .body(Full::default())
        .map_err(|e| RuntimeError::Other(e.to_string()))?;
    let response = send(socket, request).await?;
    let bytes = response.into_body().into_data_stream().map_err(io::Error::other);
    Ok(FramedRead::new(tokio_util::io::StreamReader::new(bytes), Frames::new(tty)).boxed())
}

/// With a terminal: bytes as they come. Without: frames of an 8-byte header (stream, three zeros, length) and payload.
struct Frames {
    tty: bool,
    /// Of the frame being read: which stream, and how many bytes are still to come. A frame is handed on in parts, so
    /// that a long one needs no buffer of its size.
    open: Option<(u8, usize)>,
}

impl Frames {
    fn new(tty: bool) -> Self {
        Self { tty, open: None }
    }
}

impl Decoder for Frames {
    type Item = Output;
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Output>> {
        if self.tty {
            return Ok((!src.is_empty()).then(|| Output::Stdout(src.split().freeze())));
        }
        loop {
            match self.open {
                None => {
                    if src.len() < 8 {
                        return Ok(None);
                    }
                    let stream = src[0];
                    let length = u32::from_be_bytes([src[4], src[5], src[6], src[7]]) as usize;
                    if stream > 3 || length > LONGEST_FRAME {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "not a frame of Docker's stream protocol",
                        ));
                    }
                    src.advance(8);
                    self.open = Some((stream, length));
                }
                Some((_, 0)) => self.open = None,
                Some((stream, left)) => {
                    if src.is_empty() {
                        return Ok(None);
                    }
                    let part = src.split_to(left.min(src.len())).freeze();
                    self.open = Some((stream, left - part.len()));
                    return Ok(Some(if stream == 2 { Output::Stderr(part) } else { Output::Stdout(part) }));
                }
            }
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Output>> {
        let item = self.decode(src)?;
        if item.is_none() {
            src.clear();
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Decodes `bytes` cut into pieces of `step`, joining parts of the same stream.
    fn decode(bytes: &[u8], step: usize) -> Vec<(bool, Vec<u8>)> {
        let (mut frames, mut buffer, mut out) = (Frames::new(false), BytesMut::new(), Vec::<(bool, Vec<u8>)>::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(item) = frames.decode(&mut buffer).unwrap() {
                let (err, part) = match item {
                    Output::Stdout(b) => (false, b),
                    Output::Stderr(b) => (true, b),
                };
                match out.last_mut() {
                    Some((last, bytes)) if *last == err => bytes.extend(part),
                    _ => out.push((err, part.to_vec())),
                }
            }
        }
        out
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_arrive() {
        let bytes = [frame(1, b"out"), frame(1, b""), frame(2, b"error"), frame(1, &[0, 1, 2, 3])].concat();
        let want = vec![(false, b"out".to_vec()), (true, b"error".to_vec()), (false, vec![0, 1, 2, 3])];
        for step in 1..=bytes.len() {
            assert_eq!(decode(&bytes, step), want, "in pieces of {step}");
        }
    }

    #[test]
    fn a_terminals_bytes_are_never_taken_for_frames() {
        let mut frames = Frames::new(true);
        let mut bytes = BytesMut::from(&frame(1, b"x")[..]);
        assert_eq!(frames.decode(&mut bytes).unwrap(), Some(Output::Stdout(frame(1, b"x").into())));
        assert_eq!(frames.decode(&mut bytes).unwrap(), None);
    }

    #[test]
    fn garbage_is_an_error_not_an_allocation() {
        let mut bytes = BytesMut::from(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(Frames::new(false).decode(&mut bytes).is_err());
        let mut bytes = BytesMut::from(&b"HTTP/1.1 500"[..]);
        assert!(Frames::new(false).decode(&mut bytes).is_err());
    }
}
