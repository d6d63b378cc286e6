//! What the server tells for as long as it is asked: lines, over each tunnel anew.

use super::Link;
use super::backoff::Backoff;
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use kube::runtime::utils::Backoff as _;
use longshore_tunnel::Opener;
use longshore_tunnel::lasting::{self, Answer};
use std::io;

/// Reads the lines at `path` from the server for as long as this is awaited. `take` is given whole lines, and first, of each
/// new stream, nothing.
pub async fn follow(link: Link, path: &str, mut take: impl FnMut(&[u8])) {
    let mut backoff = Backoff::watching();
    let mut seen = None;
    loop {
        let Some(opener) = link.opener() else {
            link.changed(&mut seen).await;
            continue;
        };
        seen = Some(opener.clone());
        if let Err(error) = read(&opener, path, &mut backoff, &mut take).await {
            tracing::debug!(%error, path, "what the server tells was interrupted");
        }
        tokio::time::sleep(backoff.after(false)).await;
    }
}

async fn read(opener: &Opener, path: &str, backoff: &mut Backoff, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let response = get(opener, path).await?;
    backoff.reset();
    take(b"");
    let (mut body, mut rest) = (response.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        rest.extend_from_slice(&data);
        if let Some(end) = rest.iter().rposition(|b| *b == b'\n') {
            take(&rest.split_to(end + 1));
        }
    }
    Ok(())
}

/// The server's answer at `path`; anything but 200 is an error.
pub async fn get(opener: &Opener, path: &str) -> io::Result<http::Response<Answer>> {
    let stream = opener.open().await.map_err(io::Error::other)?;
    let request = http::Request::get(path).header(HOST, "server").body(Empty::<Bytes>::new());
    let response = lasting::ask(stream, request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    match response.status() {
        http::StatusCode::OK => Ok(response),
        other => Err(io::Error::other(format!("the server answers {other}"))),
    }
}
