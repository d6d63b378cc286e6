use crate::support::*;
use longshore_edge::{Claims, Settings};
use serde_json::json;

#[tokio::test]
async fn a_host_is_served_by_its_endpoints_and_others_are_not_found() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let (status, answer) = test.get("a.com", "/x/../y?q=%2F1").await;
    assert_eq!(status, 200);
    let got = got(&answer);
    assert_eq!((&got["by"], &got["uri"]), (&json!("one"), &json!("/y?q=%2F1")));
    assert_eq!(test.get("b.com", "/").await.0, 404);
    test.edge.remove(&cluster());
    assert_eq!(test.get("a.com", "/").await.0, 404);
}

#[tokio::test]
async fn the_dashboards_host_is_never_served() {
    let settings =
        Settings { reserved: vec![longshore_edge::host::Host::parse("home.com").unwrap()], ..Settings::default() };
    let test = TestEdge::start(settings).await;
    let routes = routes(&[("home.com", "web"), ("", "web")], json!({}));
    test.edge.set_routes(&cluster(), Claims::All, routes);
    test.endpoints(&[echo("one").await]);
    assert_eq!(test.get("home.com", "/").await.0, 404);
    assert_eq!(test.get("else.com", "/").await.0, 200);
}

#[tokio::test]
async fn paths_are_rewritten_and_redirected_as_annotated() {
    let one = echo("one").await;
    let rewrite = TestEdge::with(&[one], json!({"longshore.dev/rewrite-prefix": "/api/"})).await;
    assert_eq!(got(&rewrite.get("a.com", "/v1?x").await.1)["uri"], "/api/v1?x");
    let vhost = TestEdge::with(&[one], json!({"nginx.ingress.kubernetes.io/upstream-vhost": "inner.local"})).await;
    let inner = got(&vhost.get("a.com", "/").await.1);
    assert_eq!(
        (&inner["headers"]["host"], &inner["headers"]["x-forwarded-host"]),
        (&json!("inner.local"), &json!("a.com"))
    );
    let moved =
        TestEdge::with(&[one], json!({"nginx.ingress.kubernetes.io/permanent-redirect": "https://new.com/"})).await;
    let (status, answer) = moved.get("a.com", "/").await;
    assert_eq!(status, 301);
    assert!(answer.contains("location: https://new.com/\r\n"), "{answer}");
}

#[tokio::test]
async fn captures_of_an_expression_make_the_new_path() {
    let test = TestEdge::with(&[echo("one").await], json!({})).await;
    let mut ingress = ingress(&[("a.com", "web")], json!({"nginx.ingress.kubernetes.io/rewrite-target": "/$2"}));
    let path = &mut ingress.spec.as_mut().unwrap().rules.as_mut().unwrap()[0].http.as_mut().unwrap().paths[0];
    (path.path, path.path_type) = (Some("/app(/|$)(.*)".into()), "ImplementationSpecific".into());
    test.edge.set_routes(&cluster(), Claims::All, longshore_edge::ingress::compile(&[ingress], &[]).routes);
    test.endpoints(&[echo("one").await]);
    assert_eq!(got(&test.get("a.com", "/app/a/b?c=1").await.1)["uri"], "/a/b?c=1");
    assert_eq!(got(&test.get("a.com", "/app").await.1)["uri"], "/");
    assert_eq!(test.get("a.com", "/apple").await.0, 404);
}

#[tokio::test]
async fn addresses_that_may_not_come_are_told_so() {
    let one = echo("one").await;
    let closed = TestEdge::with(&[one], json!({"longshore.dev/allowlist-source-range": "192.0.2.0/24"})).await;
    assert_eq!(closed.get("a.com", "/").await.0, 403);
    let open = TestEdge::with(&[one], json!({"longshore.dev/allowlist-source-range": "127.0.0.0/8"})).await;
    assert_eq!(open.get("a.com", "/").await.0, 200);
}
