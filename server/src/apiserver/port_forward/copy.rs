//! The bytes of one forwarded connection, each way.

use super::PIECE;
use bytes::Bytes;
use futures::StreamExt;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

/// Passes on what the client says until it ends, and then its end. A pod that reads no more has said so; what it still
/// writes is wanted.
pub async fn to_pod(client: impl AsyncRead + Unpin, mut pod: impl AsyncWrite + Unpin) {
    let mut client = BufReader::with_capacity(PIECE, client);
    if tokio::io::copy_buf(&mut client, &mut pod).await.is_ok() {
        let _ = pod.shutdown().await;
    }
}

/// Passes on what the pod says until it ends. Err: the connection was cut, or nobody listens.
pub async fn from_pod<T>(
    pod: impl AsyncRead + Unpin,
    say: &mpsc::Sender<T>,
    message: impl Fn(Bytes) -> T,
) -> io::Result<()> {
    let mut pieces = ReaderStream::with_capacity(pod, PIECE);
    while let Some(piece) = pieces.next().await {
        say.send(message(piece?)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
    Ok(())
}
