//! The account API as browsers and scripts see it, over the real port: who gets in, what each credential opens, and what
//! is told to those it doesn't concern.

use crate::installation::{Answer, EMAIL, Installation};
use http::Request;
use longshore_api::ids::ClusterId;
use longshore_server::store::NewCluster;
use serde_json::{Value, json};

/// A signed-in browser.
struct Browser<'a> {
    here: &'a Installation,
    cookie: String,
    csrf: String,
}

fn json_request(method: &str, path: &str, body: &Value) -> Request<String> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request.body(if body.is_null() { String::new() } else { body.to_string() }).unwrap()
}

fn with(mut request: Request<String>, name: &'static str, value: &str) -> Request<String> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

async fn sign_in<'a>(here: &'a Installation, email: &str, password: &str) -> (Answer, Option<Browser<'a>>) {
    let answer = here.post("/v1/session", json!({"email": email, "password": password})).await;
    let cookie = answer.headers.get("set-cookie").map(|c| c.to_str().unwrap().split(';').next().unwrap().to_string());
    let browser = cookie.map(|cookie| Browser { here, cookie, csrf: answer.json()["csrf"].as_str().unwrap().into() });
    (answer, browser)
}

impl Browser<'_> {
    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = with(json_request(method, path, &body), "cookie", &self.cookie);
        self.here.send(with(request, "x-longshore-csrf", &self.csrf)).await
    }

    async fn without_csrf(&self, method: &str, path: &str, body: Value) -> Answer {
        self.here.send(with(json_request(method, path, &body), "cookie", &self.cookie)).await
    }
}

impl Installation {
    /// As the founder, by API token.
    async fn account(&self, method: &str, path: &str, body: Value) -> Answer {
        let token = format!("Bearer {}", self.secrets.api_token);
        self.send(with(json_request(method, path, &body), "authorization", &token)).await
    }

    /// A cluster of an organization that the founder is no member of.
    async fn foreign_cluster(&self) -> ClusterId {
        let organization = self.database.organization().await;
        self.app.store.create_cluster(NewCluster::new(organization, "theirs")).await.unwrap()
    }

    /// A member of the founder's organization; returns an API token of theirs.
    async fn member(&self, email: &str, role: &str) -> String {
        let pool = &self.database.pool;
        let user = longshore_api::ids::UserId::new(format!("u-{role}"));
        let person = sqlx::query("INSERT INTO users (id, email, name) VALUES ($1, $2, $2)");
        person.bind(user.as_str()).bind(email).execute(pool).await.unwrap();
        let member = sqlx::query("INSERT INTO memberships (organization, member, role) VALUES ($1, $2, $3)");
        let organization = self.founded.organization.as_str();
        member.bind(organization).bind(user.as_str()).bind(role).execute(pool).await.unwrap();
        let new = longshore_api::accounts::NewApiToken { name: "test".into(), days: None };
        self.app.accounts.create_api_token(&user, &new).await.unwrap().token
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_takes_the_right_password_and_tells_nothing_else() {
    let here = Installation::start().await;
    let (wrong, none) = sign_in(&here, EMAIL, "not the password").await;
    let (unknown, _) = sign_in(&here, "nobody@example.com", "not the password").await;
    assert_eq!(wrong.refusal(), (401, "the email address or the password is wrong".into()));
    assert_eq!(unknown.refusal(), wrong.refusal());
    assert!(none.is_none());
    for body in [json!({}), json!([]), json!({"email": EMAIL}), json!("x".repeat(70_000))] {
        let (code, _) = here.post("/v1/session", body).await.refusal();
        assert!(code == 400 || code == 413, "{code}");
    }
    let foreign = json_request("POST", "/v1/session", &json!({"email": EMAIL, "password": here.secrets.password}));
    let refused = here.send(with(foreign, "origin", "https://evil.example")).await;
    assert_eq!(refused.refusal().0, 403, "a form on a foreign page");
    assert!(!refused.headers.contains_key("set-cookie"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_cookie_that_scripts_cant_read_and_counts_only_beside_its_header() {
    let here = Installation::start().await;
    let (answer, browser) = sign_in(&here, EMAIL, &here.secrets.password).await;
    assert_eq!(answer.status, 201);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for flag in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(flag), "{flag} in {cookie}");
    }
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.json()["organizations"][0]["role"], "owner");
    let browser = browser.unwrap();

    assert_eq!(browser.without_csrf("GET", "/v1/session", json!(null)).await.json()["user"]["email"], EMAIL);
    let pods = format!("/clusters/{}/api/v1/pods", here.cluster());
    assert_eq!(browser.send("GET", &pods, json!(null)).await.status, 200);
    assert_eq!(browser.without_csrf("GET", &pods, json!(null)).await.refusal().0, 403);
    for (method, path) in [("DELETE", "/v1/session"), ("POST", "/v1/tokens"), ("POST", "/v1/stream/tickets")] {
        assert_eq!(browser.without_csrf(method, path, json!({})).await.refusal().0, 403, "{method} {path}");
    }
    let guessed = Browser { csrf: "guessed".into(), cookie: browser.cookie.clone(), here: &here };
    assert_eq!(guessed.send("GET", &pods, json!(null)).await.refusal().0, 403);
    let elsewhere = Browser { cookie: "longshore_session=guessed".into(), csrf: browser.csrf.clone(), here: &here };
    assert_eq!(elsewhere.send("GET", &pods, json!(null)).await.refusal().0, 401);

    assert_eq!(browser.send("DELETE", "/v1/session", json!(null)).await.status, 204);
    assert_eq!(browser.send("GET", &pods, json!(null)).await.refusal().0, 401, "signing out takes effect at once");
    assert_eq!(browser.without_csrf("GET", "/v1/session", json!(null)).await.refusal().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_for_sessions_and_opens_one_stream() {
    let here = Installation::start().await;
    let (_, browser) = sign_in(&here, EMAIL, &here.secrets.password).await;
    let browser = browser.unwrap();
    let ticket = browser.send("POST", "/v1/stream/tickets", json!({})).await;
    assert_eq!(ticket.status, 201, "{}", ticket.text);
    let ticket = ticket.json()["ticket"].as_str().unwrap().to_string();
    assert_eq!(here.account("POST", "/v1/stream/tickets", json!({})).await.refusal().0, 400);
    let origin = format!("https://{}", here.address);
    let open = |ticket: &str, origin: &str| {
        let mut request = json_request("GET", &format!("/v1/stream?ticket={ticket}"), &json!(null));
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("origin", origin),
        ] {
            request = with(request, name, value);
        }
        request
    };
    assert_eq!(here.send(open(&ticket, "https://evil.example")).await.refusal().0, 403);
    assert_eq!(here.head(open(&ticket, &origin)).await, 101);
    assert_eq!(here.send(open(&ticket, &origin)).await.refusal().0, 401, "once");
    assert_eq!(here.send(open("guessed", &origin)).await.refusal().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tenants_clusters_are_not_there() {
    let here = Installation::start().await;
    let theirs = here.foreign_cluster().await;
    let (_, browser) = sign_in(&here, EMAIL, &here.secrets.password).await;
    let browser = browser.unwrap();
    for cluster in [theirs, ClusterId::new("c-nothing")] {
        for (method, path) in [
            ("GET", format!("/clusters/{cluster}/api/v1/pods")),
            ("GET", format!("/clusters/{cluster}/version")),
            ("GET", format!("/clusters/{cluster}/metrics")),
            ("GET", format!("/clusters/{cluster}/openid/v1/jwks")),
            ("POST", format!("/v1/clusters/{cluster}/join-tokens")),
            ("GET", format!("/v1/clusters/{cluster}/kubeconfig")),
        ] {
            let by_token = here.account(method, &path, json!({})).await.refusal();
            assert_eq!(by_token, (404, format!("clusters.longshore.dev {:?} not found", cluster.as_str())), "{path}");
            assert_eq!(browser.send(method, &path, json!({})).await.refusal(), by_token, "{path}");
        }
    }
    for path in
        ["/v1/tokens", "/v1/clusters", "/v1/stream/tickets", &format!("/v1/clusters/{}/join-tokens", here.cluster())]
    {
        assert_eq!(here.post(path, json!({})).await.refusal().0, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_owners_and_admins_add_nodes() {
    let here = Installation::start().await;
    let path = format!("/v1/clusters/{}/join-tokens", here.cluster());
    for (role, code) in [("viewer", 403), ("developer", 403), ("admin", 201)] {
        let token = here.member(&format!("{role}@example.com"), role).await;
        let request = with(json_request("POST", &path, &json!({})), "authorization", &format!("Bearer {token}"));
        assert_eq!(here.send(request).await.status, code, "{role}");
    }
    let made = here.account("POST", &path, json!({"hours": 100_000})).await.json();
    let expires: jiff::Timestamp = made["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires.duration_since(jiff::Timestamp::now()).as_hours() <= 720);
    let command = made["command"].as_str().unwrap();
    assert!(command.starts_with("curl -ksSf --pinnedpubkey 'sha256//"), "{command}");
    assert!(command.contains(&format!("LONGSHORE_JOIN_TOKEN={}", made["token"].as_str().unwrap())), "{command}");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_admins_make_clusters_in_their_own_organizations() {
    let here = Installation::start().await;
    let made = here.account("POST", "/v1/clusters", json!({"name": "second"})).await;
    assert_eq!((made.status.as_u16(), &made.json()["name"]), (201, &json!("second")), "{}", made.text);
    let cluster = made.json()["id"].as_str().unwrap().to_string();
    let namespaces = here.account("GET", &format!("/clusters/{cluster}/api/v1/namespaces"), json!(null)).await;
    assert_eq!(namespaces.status, 200, "{}", namespaces.text);

    let refused = async |body: Value| here.account("POST", "/v1/clusters", body).await.refusal();
    assert_eq!(refused(json!({"name": "second"})).await.0, 409);
    let own = here.founded.organization.as_str();
    assert_eq!(refused(json!({"name": "second", "organization": own})).await.0, 409);
    assert_eq!(refused(json!({"name": "third", "organization": "o-others"})).await.0, 404);
    for name in ["", "No", "a.b", "-"] {
        assert_eq!(refused(json!({"name": name})).await.0, 400, "{name}");
    }
    for (role, code) in [("viewer", 403), ("developer", 403), ("admin", 201)] {
        let token = here.member(&format!("{role}@example.com"), role).await;
        let request = json_request("POST", "/v1/clusters", &json!({"name": role}));
        let request = with(request, "authorization", &format!("Bearer {token}"));
        assert_eq!(here.send(request).await.status, code, "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_kubeconfigs_work_where_their_owner_may() {
    let here = Installation::start().await;
    let token = here.account("POST", "/v1/tokens", json!({"name": "ci", "days": 1})).await;
    assert_eq!(token.status, 201, "{}", token.text);
    let token = token.json()["token"].as_str().unwrap().to_string();
    assert!(token.starts_with("lsp_"));
    let whoami = format!("/clusters/{}/apis/authentication.k8s.io/v1/selfsubjectreviews", here.cluster());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let asked = with(json_request("POST", &whoami, &review), "authorization", &format!("Bearer {token}"));
    assert_eq!(here.send(asked).await.json()["status"]["userInfo"]["username"], EMAIL);

    let path = format!("/v1/clusters/{}/kubeconfig", here.cluster());
    let answer = here.account("GET", &path, json!(null)).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &"application/yaml".parse().unwrap()));
    let config: Value = serde_yaml::from_str(&answer.text).unwrap();
    let server = config["clusters"][0]["cluster"]["server"].as_str().unwrap();
    assert_eq!(server, format!("https://{}/clusters/{}", here.address, here.cluster()));
    let token = config["users"][0]["user"]["token"].as_str().unwrap();
    let asked = with(json_request("POST", &whoami, &review), "authorization", &format!("Bearer {token}"));
    assert_eq!(here.send(asked).await.status, 201);
    for bad in ["Bearer lsp_guessed", "Bearer ", "Basic eDp5", "Bearer a.b.c"] {
        let asked = with(json_request("POST", &whoami, &review), "authorization", bad);
        assert_eq!(here.send(asked).await.refusal().0, 401, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_publishes_the_keys_that_verify_its_tokens() {
    let here = Installation::start().await;
    let configuration = here.api("GET", "/.well-known/openid-configuration", json!(null)).await;
    let issuer = format!("https://{}/clusters/{}", here.address, here.cluster());
    assert_eq!(configuration.json()["issuer"], issuer);
    assert_eq!(configuration.json()["jwks_uri"], format!("{issuer}/openid/v1/jwks"));
    assert_eq!(configuration.headers["content-type"], "application/json");
    let keys = here.api("GET", "/openid/v1/jwks", json!(null)).await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys.text).unwrap();

    here.default_account().await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["vault"]}});
    let token = here.api("POST", account, request).await.json()["status"]["token"].as_str().unwrap().to_string();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["vault"]);
    validation.set_issuer(&[issuer]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    let anonymous = json_request("GET", &format!("/clusters/{}/openid/v1/jwks", here.cluster()), &json!(null));
    assert_eq!(here.send(anonymous).await.refusal().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_administrators_and_operators() {
    let here = Installation::start().await;
    here.api("GET", "/api/v1/namespaces/default/pods", json!(null)).await;
    let page = here.api("GET", "/metrics", json!(null)).await;
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let labels = r#"group="",version="v1",resource="pods",subresource="",verb="LIST""#;
    assert!(page.text.contains(&format!("apiserver_request_total{{{labels},code=\"200\"}} 1\n")), "{}", page.text);
    assert!(page.text.contains(&format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1\n")));
    assert!(page.text.contains("apiserver_storage_objects{resource=\"namespaces\"} "));
    let token = here.member("viewer@example.com", "viewer").await;
    let path = format!("/clusters/{}/metrics", here.cluster());
    let viewer = with(json_request("GET", &path, &json!(null)), "authorization", &format!("Bearer {token}"));
    assert_eq!(here.send(viewer).await.refusal().0, 403);

    let own = here.send(json_request("GET", "/metrics", &json!(null))).await;
    assert!(
        own.text.contains("longshore_ready 1\n") && own.text.contains("longshore_loaded_clusters 1\n"),
        "{}",
        own.text
    );
    let proxied = with(json_request("GET", "/metrics", &json!(null)), "x-forwarded-for", "203.0.113.7");
    assert_eq!(here.send(proxied).await.status, 403);
    assert_eq!(here.send(json_request("GET", "/readyz", &json!(null))).await.text, "ok");
}
