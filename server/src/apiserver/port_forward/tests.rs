//! How much a session holds when one side doesn't read, and what it refuses. Time stands still while anything moves, so that
//! a timeout tells that nothing can move any more.

use super::*;
use crate::apiserver::node_proxy::NodeProxy;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::Empty;
use hyper::service::service_fn;
use longshore_api::ids::ClusterId;
use longshore_tunnel::Messages;
use longshore_tunnel::spdy::{Decoder as Reader, Encoder, Frame, Headers, Reset};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;

/// All buffers of a session and of what stands in for networks here.
const HELD: usize = 1 << 20;

/// A node whose pod never reads and always writes; what it could write.
#[derive(Clone, Default)]
struct Deaf(Arc<AtomicUsize>);

impl Deaf {
    async fn talk(self, upgrade: OnUpgrade) {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        while io.write_all(&[7; 1024]).await.is_ok() {
            self.0.fetch_add(1024, Ordering::Relaxed);
        }
    }
}

impl NodeProxy for Deaf {
    fn request<'a>(
        &'a self,
        _: &'a ClusterId,
        _: &'a str,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(WAITING);
            let pod = self.clone();
            let service = service_fn(move |mut request| {
                tokio::spawn(pod.clone().talk(hyper::upgrade::on(&mut request)));
                let answer = Response::builder().status(101).header(CONNECTION, "upgrade").header(UPGRADE, "raw");
                async { Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap()) }
            });
            let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
            tokio::spawn(server.with_upgrades());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            Ok(sender.send_request(request).await.unwrap().map(Body::new))
        })
    }
    fn contact(&self, _: &ClusterId, _: &str) -> Option<jiff::Timestamp> {
        None
    }
    fn contacts(&self, _: &ClusterId) -> BTreeMap<String, jiff::Timestamp> {
        BTreeMap::new()
    }
    fn connected(&self, _: &ClusterId) -> usize {
        1
    }
}

fn carrier(end: tokio::io::DuplexStream) -> impl Messages {
    BytesCodec::new().framed(end).map_ok(BytesMut::freeze)
}

/// A session with that pod, and the client's end of it.
fn session(pod: &Deaf) -> impl Messages {
    let (near, far) = tokio::io::duplex(WAITING);
    tokio::spawn(spdy::serve(carrier(far), PodPlace::on(Arc::new(pod.clone()))));
    carrier(near)
}

fn syn(stream: u32, kind: &str, id: &str) -> Frame {
    let headers = [("streamtype", kind), ("port", "80"), ("requestid", id)];
    let headers = Headers(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
    Frame::SynStream { stream, fin: false, headers }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_the_other_side_back() {
    let pod = Deaf::default();
    let mut client = session(&pod);
    let mut encoder = Encoder::default();
    for frame in [syn(1, "error", "a"), syn(3, "data", "a")] {
        client.send(encoder.encode(&frame)).await.unwrap();
    }
    let mut taken = 0;
    let piece = Frame::Data { stream: 3, fin: false, bytes: vec![0; 8192].into() };
    // Less than a beat: the client reads none of them.
    while tokio::time::timeout(BEAT / 2, client.send(encoder.encode(&piece))).await.is_ok() {
        taken += 8192;
        assert!(taken < HELD, "what the pod doesn't read is held back");
    }
    assert!(taken >= WAITING, "{taken}");
    let said = pod.0.load(Ordering::Relaxed);
    assert!((WAITING..HELD).contains(&said), "what the client doesn't read is held back: {said}");
}

#[test]
fn ports_are_numbers_in_one_parameter_or_several() {
    let read = |query: &str| ports(&Query::parse(query)).map_err(|status| (status.code, status.message));
    assert_eq!(read("ports=80&ports=443,8080"), Ok(vec![80, 443, 8080]));
    assert_eq!(read("ports=0"), Err((400, "port \"0\" must be > 0".into())));
    assert_eq!(read("ports=http"), Err((400, "unable to parse \"http\" as a port".into())));
    assert_eq!(read("ports=65536").unwrap_err().0, 400);
    assert_eq!(read("port=80"), Err((400, "query parameter \"ports\" is required".into())));
    let many: Vec<String> = (1..=129).map(|port| port.to_string()).collect();
    assert_eq!(read(&format!("ports={}", many.join(","))).unwrap_err().0, 400);
}

/// A client that says one thing at a time.
struct Client<C> {
    carrier: C,
    encoder: Encoder,
    decoder: Reader,
}

impl<C: Messages> Client<C> {
    async fn say(&mut self, frame: Frame) {
        self.carrier.send(self.encoder.encode(&frame)).await.unwrap();
    }

    async fn ask(&mut self, frame: Frame) -> Frame {
        self.say(frame).await;
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return frame;
            }
            self.decoder.push(&self.carrier.next().await.unwrap().unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_are_counted_and_numbered() {
    let carrier = session(&Deaf::default());
    let mut client = Client { carrier, encoder: Encoder::default(), decoder: Reader::default() };
    let reply = |stream| Frame::SynReply { stream, fin: false, headers: Headers::default() };
    let refusal = |stream, status| Frame::Reset { stream, status };
    // Without their other halves, so that nothing else is said meanwhile.
    for stream in (1..1024).step_by(2) {
        assert_eq!(client.ask(syn(stream, "data", &stream.to_string())).await, reply(stream));
    }
    assert_eq!(client.ask(syn(1025, "error", "x")).await, refusal(1025, Reset::REFUSED_STREAM));
    // Those that are taken back leave their places.
    for stream in [1, 3] {
        client.say(Frame::Reset { stream, status: Reset::CANCEL }).await;
    }
    assert_eq!(client.ask(syn(1027, "error", "x")).await, reply(1027));
    for (stream, kind, id) in [(1029, "error", "x"), (1031, "other", "y"), (5, "data", "z"), (1034, "data", "z")] {
        let refused = client.ask(syn(stream, kind, id)).await;
        assert_eq!(refused, refusal(stream, Reset::PROTOCOL_ERROR), "{stream} {kind} {id}");
    }
}
