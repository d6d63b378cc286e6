//! `/v1/stream` over the whole router: tickets and origins, lists that go on, and clients that don't read.

use axum::Router;
use axum::body::{Body, Bytes};
use futures::{SinkExt, StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use longshore_api::accounts::{Session, StreamTicket};
use longshore_api::ids::ClusterId;
use longshore_api::stream::{Changes, ClientFrame, List, MAX_SUBSCRIPTIONS, ServerFrame, Watch};
use longshore_server::accounts::founding::{Founded, FounderSecrets};
use longshore_server::app::{App, AppSettings};
use longshore_server::store::testing::{Database, database};
use longshore_server::store::{MasterKey, NewCluster};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tower::ServiceExt;

const SERVER: &str = "ship.example:7480";
const ORIGINAL: (&str, &str) = ("origin", "https://ship.example:7480");

/// A replica with its founder, on a database of its own.
struct Served {
    app: App,
    founded: Founded,
    secrets: FounderSecrets,
    database: Database,
}

/// A browser that signed in: its cookie, and the session that the page was told.
struct Browser {
    cookie: String,
    session: Session,
}

impl Served {
    async fn new() -> Self {
        let database = database().await;
        let settings = AppSettings {
            pool: database.pool.clone(),
            master: Arc::new(MasterKey::new([7; 32])),
            base_url: format!("https://{SERVER}"),
            downloads: None,
            alone: true,
            edge: None,
        };
        let (app, _) = App::open(settings).await.expect("the replica opens");
        let secrets = FounderSecrets::random();
        let founded = app.accounts.found("owner@ship.example", &secrets).await.expect("an owner is founded");
        app.accounts.keep_founder_tokens(&founded, &secrets).await.expect("the owner's tokens are kept");
        Self { app, founded, secrets, database }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, SERVER);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap();
        self.app.router().oneshot(request).await.unwrap()
    }

    async fn sign_in(&self) -> Browser {
        let form = json!({"email": self.founded.email, "password": self.secrets.password});
        let response = self.send("POST", "/v1/session", &[ORIGINAL], form).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Lax"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().unwrap().to_string();
        Browser { cookie, session: read(response).await }
    }

    /// A ConfigMap, made by somebody else.
    async fn make(&self, name: &str) {
        let path = format!("/clusters/{}/api/v1/namespaces/default/configmaps", self.founded.cluster);
        let bearer = format!("Bearer {}", self.secrets.api_token);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let response = self.send("POST", &path, &[("authorization", &bearer)], body).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{name}");
    }

    async fn ticket(&self, browser: &Browser) -> String {
        let headers = [("cookie", browser.cookie.as_str()), ("x-longshore-csrf", &browser.session.csrf)];
        let response = self.send("POST", "/v1/stream/tickets", &headers, json!({})).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        read::<StreamTicket>(response).await.ticket
    }

    async fn connect(&self, query: &str, headers: &[(&str, &str)]) -> Result<Socket, StatusCode> {
        connect(self.app.router(), query, headers).await
    }

    /// The page's own connection.
    async fn page(&self, browser: &Browser) -> Socket {
        let query = format!("?ticket={}", self.ticket(browser).await);
        self.connect(&query, &[ORIGINAL]).await.expect("a fresh ticket opens the stream")
    }

    fn watch(&self, id: u32) -> Watch {
        config_maps(&self.founded.cluster, id)
    }
}

fn config_maps(cluster: &ClusterId, id: u32) -> Watch {
    let path = "/api/v1/namespaces/default/configmaps".into();
    Watch { id, cluster: cluster.clone(), path, query: BTreeMap::new(), shape: None, resume: None }
}

async fn read<T: DeserializeOwned>(response: Response<Body>) -> T {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&body)))
}

/// Opens the stream of a router over a pipe that holds little, so that nothing hides in the kernel's buffers.
async fn connect(router: Router, query: &str, headers: &[(&str, &str)]) -> Result<Socket, StatusCode> {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    tokio::spawn(async move {
        let builder = auto::Builder::new(TokioExecutor::new());
        let service = TowerToHyperService::new(router);
        let _ = builder.serve_connection_with_upgrades(TokioIo::new(theirs), service).await;
    });
    let mut request = Request::get(format!("wss://{SERVER}/v1/stream{query}"))
        .header(HOST, SERVER)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match tokio_tungstenite::client_async(request.body(()).unwrap(), ours).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => Err(response.status()),
        Err(error) => panic!("{error}"),
    }
}

struct Socket(WebSocketStream<DuplexStream>);

impl Socket {
    async fn say(&mut self, frame: ClientFrame) {
        let text = serde_json::to_string(&frame).unwrap();
        self.0.send(Message::Text(text.into())).await.expect("the server listens");
    }

    /// The next frame that is about a subscription; none when the server closed.
    async fn hear(&mut self) -> Option<ServerFrame> {
        loop {
            let Message::Text(text) = self.0.next().await?.ok()? else { continue };
            match serde_json::from_str(&text).expect("a frame of ours") {
                ServerFrame::Hello { .. } | ServerFrame::Beat { .. } => {}
                frame => return Some(frame),
            }
        }
    }

    /// The next list. Changes of other subscriptions may come between.
    async fn list(&mut self) -> List {
        let mut others = Vec::new();
        loop {
            match self.hear().await {
                Some(ServerFrame::List(list)) => {
                    assert!(!others.contains(&list.id), "a change before its list");
                    return list;
                }
                Some(ServerFrame::Changes(changes)) => others.push(changes.id),
                other => panic!("not a list: {other:?}"),
            }
        }
    }

    /// Changes up to the one of this object.
    async fn hear_of(&mut self, name: &str) -> Changes {
        loop {
            match self.hear().await {
                Some(ServerFrame::Changes(changes)) if changes.events.iter().any(|e| e.get().contains(name)) => {
                    return changes;
                }
                Some(ServerFrame::Changes(_)) => {}
                other => panic!("no change of {name}: {other:?}"),
            }
        }
    }

    /// How a subscription ended.
    async fn end(&mut self) -> (u32, u16) {
        match self.hear().await {
            Some(ServerFrame::End { id, status }) => (id, status.map_or(0, |s| s.code)),
            other => panic!("not an end: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_signs_in_and_sees_what_others_do() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let mut socket = served.page(&browser).await;
    socket.say(ClientFrame::Watch(served.watch(1))).await;
    let list = socket.list().await;
    assert!(list.first && list.last && list.object.get().contains("ConfigMapList"), "{list:?}");
    served.make("tide").await;
    let changes = socket.hear_of("tide").await;
    assert_eq!(changes.id, 1);
    // Another subscription on the same connection, and an end to the first.
    socket.say(ClientFrame::Stop { id: 1 }).await;
    socket.say(ClientFrame::Watch(served.watch(2))).await;
    assert!(socket.list().await.object.get().contains("tide"));
    served.make("ebb").await;
    assert_eq!(socket.hear_of("ebb").await.id, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_resumes_with_what_it_missed() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let mut socket = served.page(&browser).await;
    socket.say(ClientFrame::Watch(served.watch(1))).await;
    let seen = socket.list().await.revision;
    drop(socket);
    served.make("missed").await;
    let mut socket = served.page(&browser).await;
    socket.say(ClientFrame::Watch(Watch { resume: Some(seen), ..served.watch(1) })).await;
    socket.hear_of("missed").await;
    // What can't be resumed is listed again.
    socket.say(ClientFrame::Watch(Watch { resume: Some("0".into()), ..served.watch(2) })).await;
    loop {
        match socket.hear().await {
            Some(ServerFrame::List(list)) => break assert!(list.id == 2 && list.object.get().contains("missed")),
            Some(ServerFrame::Changes(changes)) if changes.id == 1 || changes.events.is_empty() => {}
            // Zero means "whatever there is", which a server may also replay.
            Some(ServerFrame::Changes(changes)) => {
                break assert!(changes.events.iter().any(|e| e.get().contains("missed")), "{changes:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once_and_a_cookie_is_none() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let query = format!("?ticket={}", served.ticket(&browser).await);
    assert!(served.connect(&query, &[ORIGINAL]).await.is_ok());
    assert_eq!(served.connect(&query, &[ORIGINAL]).await.err(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(served.connect("?ticket=guess", &[ORIGINAL]).await.err(), Some(StatusCode::UNAUTHORIZED));
    let cookie = ("cookie", browser.cookie.as_str());
    assert_eq!(served.connect("", &[ORIGINAL, cookie]).await.err(), Some(StatusCode::UNAUTHORIZED));
    // A ticket is not to be had by the cookie alone either: a foreign page could send that.
    let response = served.send("POST", "/v1/stream/tickets", &[(COOKIE.as_str(), &browser.cookie)], json!({})).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_is_refused() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let query = format!("?ticket={}", served.ticket(&browser).await);
    for origin in [
        "https://evil.example",
        "https://ship.example",
        "https://ship.example:7481",
        "https://ship.example:7480.evil.example",
        // Over TLS a page that came in the clear is a stranger, whatever its host.
        "http://ship.example:7480",
        "null",
        "",
    ] {
        let refused = served.connect(&query, &[(ORIGIN.as_str(), origin)]).await.err();
        assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{origin:?}");
    }
    assert_eq!(served.connect(&query, &[]).await.err(), Some(StatusCode::FORBIDDEN), "no origin");
    assert!(served.connect(&query, &[ORIGINAL]).await.is_ok(), "the refusals cost the ticket nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ones_own_is_not_there() {
    let served = Served::new().await;
    let foreign = NewCluster::new(served.database.organization().await, "theirs");
    let foreign = served.app.store.create_cluster(foreign).await.expect("another organization's cluster");
    let browser = served.sign_in().await;
    let mut socket = served.page(&browser).await;
    socket.say(ClientFrame::Watch(config_maps(&foreign, 1))).await;
    assert_eq!(socket.end().await, (1, 404));
    socket.say(ClientFrame::Watch(config_maps(&ClusterId::new("c-nothing"), 2))).await;
    assert_eq!(socket.end().await, (2, 404));
    for path in ["/../../v1/session", "/v1/session", "/api/v1/pods?watch=1", "/api/../../x"] {
        socket.say(ClientFrame::Watch(Watch { path: path.into(), ..served.watch(3) })).await;
        assert_eq!(socket.end().await, (3, 400), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_what_comes_after() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let mut socket = served.page(&browser).await;
    let headers = [("cookie", browser.cookie.as_str()), ("x-longshore-csrf", &browser.session.csrf), ORIGINAL];
    let response = served.send("DELETE", "/v1/session", &headers, json!({})).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    socket.say(ClientFrame::Watch(served.watch(1))).await;
    assert_eq!(socket.end().await, (1, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_use_a_token_and_subscriptions_are_counted() {
    let served = Served::new().await;
    let bearer = format!("Bearer {}", served.secrets.api_token);
    let mut socket = served.connect("", &[(AUTHORIZATION.as_str(), &bearer)]).await.expect("a token opens the stream");
    for id in 0..=MAX_SUBSCRIPTIONS as u32 {
        socket.say(ClientFrame::Watch(served.watch(id))).await;
    }
    let refused = loop {
        match socket.hear().await {
            Some(ServerFrame::End { id, status }) => break (id, status.map(|s| s.code)),
            Some(_) => {}
            None => panic!("closed"),
        }
    };
    assert_eq!(refused, (MAX_SUBSCRIPTIONS as u32, Some(429)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_another_language_is_hung_up_on() {
    let served = Served::new().await;
    let browser = served.sign_in().await;
    let mut socket = served.page(&browser).await;
    socket.0.send(Message::Text("hello".into())).await.unwrap();
    assert!(socket.hear().await.is_none());
}

/// An API whose one list never ends, and which counts what was taken of it.
fn endless(taken: Arc<AtomicUsize>) -> Router {
    Router::new().fallback(move |request: Request<Body>| async move {
        if !request.uri().query().unwrap_or_default().contains("watch=true") {
            return Response::new(Body::from(r#"{"kind":"List","metadata":{"resourceVersion":"1"},"items":[]}"#));
        }
        let events = stream::unfold(0u64, move |n| {
            let taken = taken.clone();
            async move {
                taken.fetch_add(1, Ordering::SeqCst);
                let data = "x".repeat(32 * 1024);
                let object = json!({"metadata": {"name": "x", "resourceVersion": (n + 2).to_string()}, "data": data});
                let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
                Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), n + 1))
            }
        });
        Response::new(Body::from_stream(events))
    })
}

/// On one thread, with a pipe that wakes its ends itself, everything that can happen has happened after enough turns.
#[tokio::test(flavor = "current_thread")]
async fn a_client_that_does_not_read_holds_its_watches_back() {
    let served = Served::new().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let router = longshore_server::stream::router(served.app.accounts.clone(), endless(taken.clone()));
    let bearer = format!("Bearer {}", served.secrets.api_token);
    let mut socket = connect(router, "", &[(AUTHORIZATION.as_str(), &bearer)]).await.expect("a token opens the stream");
    socket.say(ClientFrame::Watch(served.watch(1))).await;
    socket.list().await;
    socket.hear().await;
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    let held = taken.load(Ordering::SeqCst);
    assert!(held < 100, "{held} events of 32 kB wait for a client that does not read");
    for _ in 0..200 {
        assert!(matches!(socket.hear().await, Some(ServerFrame::Changes(_))));
    }
    assert!(taken.load(Ordering::SeqCst) >= 200, "and it goes on when it reads again");
}
