//! What answers in a pod that is measured: HTTP/1.1, connections kept for as long as the client likes. (The sample image's server is
//! made for looking at; a thousand connections in a row overflow its queue.)

use super::stage::Node;
use crate::Result;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::TcpListener;

/// Of the pod.
pub const PORT: u16 = 9000;

/// Answers at the pod's address until this process ends.
pub fn start(node: &Node) -> Result<()> {
    let listener = node.within_pod(|| TcpListener::bind((node.ip, PORT)))??;
    listener.set_nonblocking(true)?;
    // The socket stays in the namespace that it was made in.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(listener))
    });
    Ok(())
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let answer = hyper::service::service_fn(|_| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}
