use crate::support::*;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore_api::ids::ClusterId;
use longshore_api::network::Name;
use longshore_edge::model::CertificateSource;
use longshore_edge::tls::{Certificate, CertificateError};
use longshore_edge::{Claims, Settings};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Made {
    der: CertificateDer<'static>,
    chain: String,
    key: String,
}

fn make(host: &str) -> Made {
    let made = rcgen::generate_simple_self_signed(vec![host.to_string()]).unwrap();
    Made { der: made.cert.der().clone(), chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn secret() -> CertificateSource {
    CertificateSource::Secret(Name::new("a", "tls"))
}

async fn connect(test: &TestEdge, name: &str, root: &Made, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(test.https).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_string()).unwrap(), stream).await
}

async fn get(stream: TlsStream<TcpStream>, host: &str) -> (u16, Value) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let empty = Empty::<Bytes>::new();
    let answer = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(Request::get(format!("https://{host}/")).body(empty).unwrap()).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(Request::get("/").header("host", host).body(empty).unwrap()).await.unwrap()
    };
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn each_name_has_its_certificate_and_both_versions_are_spoken() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let mine = make("a.com");
    assert!(connect(&test, "a.com", &mine, &[]).await.is_err());
    let certificate = Certificate::from_pem(mine.chain.as_bytes(), mine.key.as_bytes()).unwrap();
    test.edge.set_certificate(&cluster(), secret(), Some(certificate));
    for (alpn, version) in [("h2", "h2"), ("http/1.1", "http/1.1")] {
        let stream = connect(&test, "a.com", &mine, &[alpn]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(version.as_bytes()));
        let (status, got) = get(stream, "a.com").await;
        assert_eq!((status, &got["headers"]["x-forwarded-proto"]), (200, &json!("https")));
        assert_eq!(got["headers"]["host"], "a.com");
    }
    assert!(connect(&test, "b.com", &mine, &[]).await.is_err());
    test.edge.set_certificate(&cluster(), secret(), None);
    assert!(connect(&test, "a.com", &mine, &[]).await.is_err());
}

#[tokio::test]
async fn plain_http_is_sent_to_tls_where_there_is_a_certificate() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    assert_eq!(test.get("a.com", "/").await.0, 200);
    let mine = make("a.com");
    let certificate = Certificate::from_pem(mine.chain.as_bytes(), mine.key.as_bytes()).unwrap();
    test.edge.set_certificate(&cluster(), secret(), Some(certificate));
    let (status, answer) = test.get("a.com", "/x?y=1").await;
    assert_eq!(status, 308);
    assert!(answer.contains("location: https://a.com/x?y=1\r\n"), "{answer}");
    test.edge.set_routes(
        &cluster(),
        Claims::All,
        routes(&[("a.com", "web")], json!({"longshore.dev/ssl-redirect": "false"})),
    );
    assert_eq!(test.get("a.com", "/").await.0, 200);
}

#[tokio::test]
async fn a_connection_for_one_cluster_is_none_for_another() {
    let test = TestEdge::start(Settings::default()).await;
    let other = ClusterId::new("c-2");
    test.edge.set_routes(&cluster(), Claims::All, routes(&[("a.com", "web"), ("also.com", "web")], json!({})));
    test.edge.set_routes(&other, Claims::All, routes(&[("b.com", "web")], json!({})));
    test.endpoints(&[echo("one").await]);
    let mine = make("a.com");
    let certificate = Certificate::from_pem(mine.chain.as_bytes(), mine.key.as_bytes()).unwrap();
    test.edge.set_certificate(&cluster(), secret(), Some(certificate));
    for (host, expected) in [("a.com", 200), ("also.com", 200), ("b.com", 421)] {
        let stream = connect(&test, "a.com", &mine, &["h2"]).await.unwrap();
        assert_eq!(get(stream, host).await.0, expected, "{host}");
    }
}

#[tokio::test]
async fn an_endpoint_may_speak_tls_for_itself() {
    let made = make("inside");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(made.key.as_bytes()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.der.clone()], key).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = [0; 1024];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    });
    let test = TestEdge::with(&[address], json!({"nginx.ingress.kubernetes.io/backend-protocol": "HTTPS"})).await;
    assert!(test.get("a.com", "/").await.1.ends_with("secret"));
}

#[test]
fn a_key_must_be_its_certificates() {
    let (one, two) = (make("a.com"), make("a.com"));
    let from = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ());
    assert!(from(&one.chain, &one.key).is_ok());
    assert!(matches!(from(&one.chain, &two.key), Err(CertificateError::Mismatch)));
    assert!(matches!(from("", &one.key), Err(CertificateError::Chain)));
    assert!(matches!(from(&one.chain, "x"), Err(CertificateError::Key)));
}
