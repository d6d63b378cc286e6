//! `/exec/{namespace}/{pod}/{container}` and `/attach/…`: a process's streams over a WebSocket.
//!
//! What can't be started is said on the error channel of an accepted WebSocket, not by refusing the upgrade: a client
//! whose upgrade is refused tries older protocols and shows their failure instead of the reason.

use super::channels::{self, End, Protocol, Said};
use super::{Body, Query, full, text};
use crate::node::context::Context;
use crate::pods::{plan, spec};
use crate::runtime::{ExecSpec, Output, Runtime, Session, SessionControl};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// As large as Kubernetes's own servers take a message.
const LONGEST_MESSAGE: usize = 32 << 20;
/// A client that is gone is found out by this, also while a process doesn't read its input.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take to answer the close of its WebSocket.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Exec,
    Attach,
}

/// `about`: namespace, pod, container.
pub fn serve<B>(
    context: &Arc<Context>,
    verb: Verb,
    about: [&str; 3],
    query: &Query,
    request: &mut Request<B>,
) -> Response<Body> {
    let tty = query.flag("tty");
    let asked = ExecSpec {
        command: query.all("command").map(String::from).collect(),
        stdin: query.flag("input"),
        stdout: query.flag("output"),
        // A terminal has one output.
        stderr: query.flag("error") && !tty,
        tty,
    };
    if !(asked.stdin || asked.stdout || asked.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let [namespace, pod, container] = about.map(String::from);
    if context.pods.by_name(&namespace, &pod).is_none() {
        return text(StatusCode::NOT_FOUND, "pod does not exist\n");
    }
    let (protocol, headers) = match channels::negotiate(request.headers()) {
        Ok(negotiated) => negotiated,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    };
    let context = context.clone();
    tokio::spawn(async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a connection was not upgraded"),
        };
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(LONGEST_MESSAGE);
        config.max_frame_size = Some(LONGEST_MESSAGE);
        config.read_buffer_size = 16 << 10;
        config.write_buffer_size = 0;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let session = start(&context, verb, &namespace, &pod, &container, &asked);
        if let Err(error) = run(socket, protocol, &asked, session).await {
            tracing::debug!(%error, "a session with {namespace}/{pod} broke");
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

async fn start(
    context: &Context,
    verb: Verb,
    namespace: &str,
    pod: &str,
    container: &str,
    asked: &ExecSpec,
) -> Result<Session, String> {
    let not_found = || format!("unable to upgrade connection: container not found ({container:?})");
    let known = context.pods.by_name(namespace, pod).ok_or_else(not_found)?;
    let runtime: &dyn Runtime = context.runtime.as_ref();
    let records = runtime.containers(Some(spec::uid(&known.pod))).await.map_err(|e| e.to_string())?;
    let record = plan::latest(&records, container).filter(|r| r.is_running()).ok_or_else(not_found)?;
    let session = match verb {
        Verb::Exec => runtime.exec(&record.id, asked).await,
        Verb::Attach => runtime.attach(&record.id, asked).await,
    };
    session.map_err(|e| e.to_string())
}

type Broken = tokio_tungstenite::tungstenite::Error;

/// Carries a session from its start to the end of the WebSocket.
async fn run(
    socket: Socket,
    protocol: Protocol,
    asked: &ExecSpec,
    session: impl Future<Output = Result<Session, String>>,
) -> Result<(), Broken> {
    let (mut sink, mut source) = socket.split();
    // An empty message on the first channel that we write to tells the client that the connection stands.
    let first = [(asked.stdout, channels::STDOUT), (asked.stderr, channels::STDERR)];
    let first = first.iter().find(|(wanted, _)| *wanted).map_or(channels::ERROR, |(_, channel)| *channel);
    sink.send(protocol.message(first, &[])).await?;
    let end = match session.await {
        Err(message) => End::Error(message),
        Ok(Session { stdin, output, control }) => {
            let stdin = asked.stdin.then_some(stdin);
            let ended = tokio::select! {
                () = hear(&mut source, protocol, stdin, control.as_ref()) => None,
                ended = tell(&mut sink, protocol, asked, output, control.as_ref()) => Some(ended),
            };
            match ended {
                Some(Ok(end)) => end,
                Some(Err(broken)) => {
                    control.kill().await;
                    return Err(broken);
                }
                None => {
                    control.kill().await;
                    return Ok(());
                }
            }
        }
    };
    if let Some(verdict) = protocol.verdict(&end) {
        sink.send(verdict).await?;
    }
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(frame))).await?;
    // What was sent last must arrive: the stream ends only after the client has ended its side.
    let farewell = async {
        while let Some(Ok(_)) = source.next().await {}
        let Ok(socket) = sink.reunite(source) else { return };
        let mut io = socket.into_inner();
        let _ = io.shutdown().await;
        let mut rest = [0; 1024];
        while matches!(io.read(&mut rest).await, Ok(n) if n > 0) {}
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    Ok(())
}

/// What the client says goes to the process. Ends when the client is gone.
async fn hear(
    source: &mut SplitStream<Socket>,
    protocol: Protocol,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    control: &dyn SessionControl,
) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        match protocol.read(message) {
            Said::Data(channels::STDIN, bytes) if !bytes.is_empty() => {
                if let Some(open) = &mut stdin
                    && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
                {
                    // It reads no more; what it still writes is wanted.
                    stdin = None;
                }
            }
            Said::Data(channels::RESIZE, bytes) => {
                if let Some((columns, rows)) = channels::size(&bytes)
                    && let Err(error) = control.resize(columns, rows).await
                {
                    tracing::debug!(%error, "a terminal was not resized");
                }
            }
            Said::End(channels::STDIN) => {
                if let Some(mut open) = stdin.take() {
                    let _ = open.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

/// What the process writes goes to the client, until the process has ended.
async fn tell(
    sink: &mut SplitSink<Socket, Message>,
    protocol: Protocol,
    asked: &ExecSpec,
    mut output: futures::stream::BoxStream<'static, std::io::Result<Output>>,
    control: &dyn SessionControl,
) -> Result<End, Broken> {
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        tokio::select! {
            part = output.next() => match part {
                None => break,
                Some(Ok(Output::Stdout(bytes))) if asked.stdout => {
                    sink.send(protocol.message(channels::STDOUT, &bytes)).await?;
                }
                Some(Ok(Output::Stderr(bytes))) if asked.stderr => {
                    sink.send(protocol.message(channels::STDERR, &bytes)).await?;
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Ok(End::Error(e.to_string())),
            },
            _ = ping.tick() => sink.send(Message::Ping(Default::default())).await?,
        }
    }
    Ok(match control.exit_code().await {
        Ok(None | Some(0)) => End::Success,
        Ok(Some(code)) => End::ExitCode(code),
        Err(e) => End::Error(e.to_string()),
    })
}
