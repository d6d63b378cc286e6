//! Answers that last: raw bytes where both ends know of them, like any other answer where not.

mod wire;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming as Body};
use hyper::service::service_fn;
use longshore_tunnel::lasting::{self, Answer, Offer};
use longshore_tunnel::{Config, Opener, Side, Tunnel};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::Wire;

type Lines = mpsc::Receiver<io::Result<Bytes>>;

/// `/lines` answers what is said, once, until its speakers are gone; anything else 404.
fn answer(path: &str, lines: &Mutex<Option<Lines>>) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let response = Response::builder().header("content-type", "text/lines");
    match lines.lock().unwrap().take_if(|_| path == "/lines") {
        Some(lines) => {
            let frames = futures::stream::unfold(lines, |mut lines| async {
                Some((lines.recv().await?.map(Frame::data), lines))
            });
            response.body(StreamBody::new(frames).boxed_unsync()).unwrap()
        }
        None => {
            let body = Full::from("nothing there").map_err(|never| match never {});
            response.status(StatusCode::NOT_FOUND).body(body.boxed_unsync()).unwrap()
        }
    }
}

/// The agent's way to such a server, which may know of raw answers, and who says the lines.
fn server(knows: bool) -> (Opener, mpsc::Sender<io::Result<Bytes>>) {
    let (wire, agent_end, server_end) = Wire::new(8);
    let (agent, mut unused) = Tunnel::start(agent_end, Side::Agent, Config::default());
    let (_, mut incoming) = Tunnel::start(server_end, Side::Server, Config::default());
    let (say, said) = mpsc::channel(1);
    let lines = Arc::new(Mutex::new(Some(said)));
    tokio::spawn(async move {
        while let Some(stream) = incoming.next().await {
            let lines = lines.clone();
            let service = service_fn(move |mut request: Request<Body>| {
                let offer = if knows { Offer::take(&mut request) } else { None };
                let answered = answer(request.uri().path(), &lines);
                let answered = match offer {
                    Some(offer) => offer.answer(answered),
                    None => answered,
                };
                std::future::ready(Ok::<_, Infallible>(answered))
            });
            tokio::spawn(longshore_tunnel::http::serve(stream, service));
        }
    });
    tokio::spawn(async move {
        unused.next().await;
        drop(wire);
    });
    (agent, say)
}

async fn ask(opener: &Opener, path: &str) -> Response<Answer> {
    let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    lasting::ask(opener.open().await.unwrap(), request).await.unwrap()
}

async fn next(body: &mut Answer) -> Option<Result<Bytes, ()>> {
    body.frame().await.map(|frame| frame.map(|f| f.into_data().unwrap()).map_err(drop))
}

#[tokio::test(start_paused = true)]
async fn both_ends_see_the_answer_that_was_given() {
    for knows in [true, false] {
        let (opener, say) = server(knows);
        let response = ask(&opener, "/lines").await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"text/lines".parse().unwrap())
        );
        assert!(!response.headers().contains_key("upgrade"));
        let mut body = response.into_body();
        assert_eq!(matches!(body, Answer::Raw(_)), knows);
        for line in ["one\n", "two\n"] {
            say.send(Ok(Bytes::from_static(line.as_bytes()))).await.unwrap();
            assert_eq!(next(&mut body).await, Some(Ok(Bytes::from_static(line.as_bytes()))));
        }
        drop(say);
        assert_eq!((next(&mut body).await, next(&mut body).await), (None, None), "a clean end");
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_a_long_answer_comes_before_its_end() {
    let (opener, say) = server(true);
    let body = ask(&opener, "/lines").await.into_body();
    let whole: Vec<u8> = (0..3_000_000).map(|i| (i / 7) as u8).collect();
    let pieces: Vec<_> = whole.chunks(700_000).map(Bytes::copy_from_slice).collect();
    tokio::spawn(async move {
        for piece in pieces {
            say.send(Ok(piece)).await.unwrap();
        }
    });
    assert!(body.collect().await.unwrap_or_else(|error| panic!("{error}")).to_bytes() == whole);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_good_answer_stays_as_it_is() {
    let (opener, _say) = server(true);
    let response = ask(&opener, "/other").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let Ok(body) = response.into_body().collect().await else { panic!("a body that ends") };
    assert_eq!(body.to_bytes(), "nothing there");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_the_answer_back() {
    let (opener, say) = server(true);
    let mut body = ask(&opener, "/lines").await.into_body();
    let line = Bytes::from_static(&[b'x'; 64 * 1024]);
    let mut said = 0;
    // Time stands still unless nobody can do anything.
    while tokio::time::timeout(Duration::from_secs(1), say.send(Ok(line.clone()))).await.is_ok() {
        said += line.len();
        assert!(said < 4 << 20, "nothing holds it back");
    }
    let mut read = 0;
    while read < said {
        read += next(&mut body).await.unwrap().unwrap().len();
    }
    say.send(Ok(line)).await.unwrap();
    assert!(next(&mut body).await.unwrap().is_ok(), "and it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_ends_the_answer() {
    let (opener, say) = server(true);
    let mut body = ask(&opener, "/lines").await.into_body();
    say.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
    assert!(next(&mut body).await.unwrap().is_ok());
    drop(body);
    // With nothing to be written: the server sees it all the same.
    say.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_it_is_written_to_ends_the_answer() {
    let (opener, say) = server(true);
    let body = ask(&opener, "/lines").await.into_body();
    let line = Bytes::from_static(&[b'x'; 64 * 1024]);
    while tokio::time::timeout(Duration::from_secs(1), say.send(Ok(line.clone()))).await.is_ok() {}
    drop(body);
    say.closed().await;
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_is_an_error_and_no_end() {
    let (opener, say) = server(true);
    let mut body = ask(&opener, "/lines").await.into_body();
    say.send(Err(io::Error::other("broken"))).await.unwrap();
    assert_eq!((next(&mut body).await, next(&mut body).await), (Some(Err(())), None));

    let (opener, _say) = server(true);
    let mut body = ask(&opener, "/lines").await.into_body();
    opener.close();
    assert_eq!((next(&mut body).await, next(&mut body).await), (Some(Err(())), None));
}
