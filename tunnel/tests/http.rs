//! HTTP over streams of a tunnel: bodies, upgrades, and clients that go away.

mod wire;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming as Body};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longshore_tunnel::{Config, Opener, Side, Tunnel};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wire::Wire;

type Answer = Response<BoxBody<Bytes, Infallible>>;

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

/// `/echo` answers the body, `/upgrade` echoes raw bytes, `/follow` counts until nobody listens and then says so.
async fn answer(request: Request<Body>, gone: mpsc::Sender<()>) -> Result<Answer, Infallible> {
    Ok(match request.uri().path() {
        "/echo" => Response::new(full(request.into_body().collect().await.unwrap().to_bytes())),
        "/upgrade" => {
            tokio::spawn(async move {
                let io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let (mut read, mut write) = tokio::io::split(io);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            answer.header("connection", "upgrade").header("upgrade", "echo").body(full("")).unwrap()
        }
        _ => {
            let lines = futures::stream::unfold(Gone(gone), |gone| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok(Frame::data(Bytes::from_static(b"line\n"))), gone))
            });
            Response::new(BodyExt::boxed(StreamBody::new(lines)))
        }
    })
}

struct Gone(mpsc::Sender<()>);
impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// The server's way to an agent that answers.
fn agent() -> (Opener, mpsc::Receiver<()>) {
    let (wire, agent_end, server_end) = Wire::new(8);
    let (_agent, mut incoming) = Tunnel::start(agent_end, Side::Agent, Config::default());
    let (server, mut unused) = Tunnel::start(server_end, Side::Server, Config::default());
    let (gone, told) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            let gone = gone.clone();
            let service = service_fn(move |request| answer(request, gone.clone()));
            tokio::spawn(longshore_tunnel::http::serve(stream, service));
        }
    });
    tokio::spawn(async move {
        unused.next().await;
        drop(wire);
    });
    (server, told)
}

#[tokio::test(start_paused = true)]
async fn bodies_of_any_length_go_both_ways() {
    let (opener, _) = agent();
    for len in [0usize, 1, 70_000, 5_000_000] {
        let body: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let request = Request::post("/echo").body(Full::new(Bytes::from(body.clone()))).unwrap();
        let response = longshore_tunnel::http::send(opener.open().await.unwrap(), request).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_becomes_raw_bytes() {
    let (opener, _) = agent();
    let request = Request::get("/upgrade").header("connection", "upgrade").header("upgrade", "echo");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let response = longshore_tunnel::http::send(opener.open().await.unwrap(), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"raw bytes").await.unwrap();
    let mut back = [0; 9];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"raw bytes");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_the_work_for_it() {
    let (opener, mut gone) = agent();
    let request = Request::get("/follow").body(Full::new(Bytes::new())).unwrap();
    let response = longshore_tunnel::http::send(opener.open().await.unwrap(), request).await.unwrap();
    let mut lines = BodyStream::new(response.into_body());
    for _ in 0..3 {
        assert!(lines.next().await.unwrap().is_ok());
    }
    drop(lines);
    tokio::time::timeout(Duration::from_secs(10), gone.recv()).await.expect("the agent goes on for nobody").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_cut_is_an_error_and_no_end() {
    let (opener, _) = agent();
    let request = Request::get("/follow").body(Full::new(Bytes::new())).unwrap();
    let response = longshore_tunnel::http::send(opener.open().await.unwrap(), request).await.unwrap();
    let mut lines = BodyStream::new(response.into_body());
    assert!(lines.next().await.unwrap().is_ok());
    opener.close();
    let last = loop {
        match lines.next().await {
            Some(Ok(_)) => {}
            last => break last,
        }
    };
    assert!(matches!(last, Some(Err(_))));
}
