//! WebSockets to the server as the tunnel, and the relay beside it, want their messages: binary, in order, errors as `io::Error`.

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Response, header};
use longshore_api::node::{RELAY_PATH, RELAY_PROTOCOL, TUNNEL_PATH, TUNNEL_PROTOCOL};
use longshore_tunnel::{LONGEST_MESSAGE, READ_BUFFER, relay};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

pub struct Carrier(WebSocketStream<TlsStream<TcpStream>>);

#[derive(Debug)]
pub enum OpenError {
    /// An ordinary HTTP answer instead of the upgrade.
    Answered(Response<Option<Vec<u8>>>),
    Failed(String),
}

/// What is spoken on one, and what it costs.
#[derive(Clone, Copy)]
pub struct Speech {
    pub path: &'static str,
    /// The only subprotocol that is offered, which the server must take.
    pub protocol: &'static str,
    /// Bytes of one read.
    pub read_buffer: usize,
    /// Bytes of a message, at most.
    pub longest: usize,
}

pub const TUNNEL: Speech =
    Speech { path: TUNNEL_PATH, protocol: TUNNEL_PROTOCOL, read_buffer: READ_BUFFER, longest: LONGEST_MESSAGE };
pub const RELAY: Speech =
    Speech { path: RELAY_PATH, protocol: RELAY_PROTOCOL, read_buffer: 64 * 1024, longest: relay::LONGEST };

/// Asks the server at `authority` for it.
pub async fn open(
    stream: TlsStream<TcpStream>,
    authority: &str,
    speech: Speech,
    headers: HeaderMap,
) -> Result<Carrier, OpenError> {
    let url = format!("wss://{authority}{}", speech.path);
    let mut request = url.into_client_request().map_err(failed)?;
    request.headers_mut().extend(headers);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(speech.protocol));
    let config = WebSocketConfig::default()
        .read_buffer_size(speech.read_buffer)
        .max_message_size(Some(speech.longest))
        .max_frame_size(Some(speech.longest));
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(Carrier(socket)),
        Err(Error::Http(response)) => Err(OpenError::Answered(*response)),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: Error) -> OpenError {
    OpenError::Failed(error.to_string())
}

impl Stream for Carrier {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let message = match std::task::ready!(self.0.poll_next_unpin(cx)) {
                None | Some(Err(Error::ConnectionClosed)) => return Poll::Ready(None),
                Some(message) => message.map_err(io::Error::other),
            };
            match message {
                Ok(Message::Binary(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(Message::Close(_)) => return Poll::Ready(None),
                // Pings are answered by the library; nothing else belongs here.
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Sink<Bytes> for Carrier {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready_unpin(cx).map_err(io::Error::other)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> io::Result<()> {
        self.0.start_send_unpin(Message::Binary(bytes)).map_err(io::Error::other)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close_unpin(cx).map_err(io::Error::other)
    }
}
