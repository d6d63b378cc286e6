//! The network's pages in a real browser: a Service gets a domain, a policy keeps somebody out and is named for it.

use crate::browser::{Story, add_node, run_pods};
use longshore_e2e::Browser;
use serde_json::json;

fn app(name: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: hello
        image: longshore/hello:v1
        ports: [{{name: http, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: http}}]
"
    )
}

/// Only who is called `friend` comes in.
const KEEP_OUT: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: keep-out}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
";

#[test]
fn a_domain_is_given_and_a_denial_is_explained() {
    let story = Story::signed_in(Browser::open());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    add_node(&kubectl, "ship");
    for name in ["web", "client"] {
        kubectl.apply(&app(name));
        run_pods(&kubectl, &format!("app={name}"), 1);
    }

    browser.press("a[href$='/services']");
    browser.press("a[href$='/services/default/web']");
    browser.wait_text("[data-testid=status-sentence]", "Answered by 1 endpoint");
    browser.press("[data-testid=give-domain]");
    browser.fill("[data-testid=host]", "shop..example.com");
    browser.press("[data-testid=create-domain]");
    browser.wait_text("[data-testid=marks]", "spec.rules[0].host");
    browser.fill("[data-testid=host]", "shop.example.com");
    browser.press("[data-testid=create-domain]");
    browser.wait_text("[data-testid=object-name]", "shop-example-com");
    browser.wait_text(".domain", "1 of 1 ready");
    // This installation has no edge.
    browser.wait_text("[data-testid=status-sentence]", "nobody serves it");
    let made = kubectl.json(&["get", "ingress", "shop-example-com"]);
    assert_eq!(made["spec"]["tls"], json!([{"hosts": ["shop.example.com"]}]));
    browser.press("a[href$='/ingresses']");
    browser.wait_text("table[data-kind=Ingress]", "shop.example.com");

    let client_to_web = "[data-testid=matrix] a[aria-label^='From client to web']";
    browser.press("a[href$='/policies']");
    browser.wait_text(client_to_web, "All");
    kubectl.apply(KEEP_OUT);
    browser.wait_text(client_to_web, "None");
    browser.wait_text("[data-testid=matrix] a[aria-label^='From web to client']", "All");
    browser.press(client_to_web);
    browser.wait_text("[data-testid=status-sentence]", "can't reach");
    browser.wait_text("[data-testid=reach]", "keep-out isolates who is asked");
    browser.wait_text("[data-testid=reach]", "Add an ingress rule for TCP 8080 from app=client (default)");
    kubectl.run(&["delete", "networkpolicy", "keep-out"]);
    browser.wait_text("[data-testid=reach]", "No policy isolates who is asked");

    browser.press("a[href$='/topology']");
    browser.wait_text("[data-testid=places]", "ship");
    browser.wait("the node's box is drawn", "document.querySelector('.topology [data-node=ship]')");

    // A node serves the cluster's domains itself at the press of a button.
    browser.press("a[href$='/nodes']");
    browser.press("a[href$='/nodes/-/ship']");
    browser.press("[data-testid=edge]");
    browser.wait_text("[data-testid=served-at]", "80, 443");
    assert_eq!(kubectl.json(&["get", "node", "ship"])["metadata"]["labels"]["longshore.dev/edge"], "true");
    browser.press("[data-testid=edge]");
    browser.wait("it is none any more", "!document.querySelector('[data-testid=served-at]')");
    story.was_never_reloaded();
}
