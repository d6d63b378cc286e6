//! The network's pages in a real browser: a policy keeps somebody out and is named for it, a node serves domains.

use crate::browser::{Story, add_node, run_pods};
use longshore_e2e::Browser;

/// A Deployment, and its Service.
pub fn app(name: &str) -> String {
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
fn a_denial_is_explained_and_a_node_is_marked() {
    let story = Story::signed_in(Browser::open());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    add_node(&kubectl, "ship");
    for name in ["web", "client"] {
        kubectl.apply(&app(name));
        run_pods(&kubectl, &format!("app={name}"), 1);
    }

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
