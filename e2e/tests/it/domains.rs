//! Domains in a real browser: a Service gets one, and the page tells where it leads.

use crate::browser::{Story, add_node, run_pods};
use crate::network_pages::app;
use longshore_e2e::Browser;
use serde_json::json;

#[test]
fn a_domain_is_given_from_the_page() {
    let story = Story::signed_in(Browser::open());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    add_node(&kubectl, "ship");
    kubectl.apply(&app("web"));
    run_pods(&kubectl, "app=web", 1);

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
    story.was_never_reloaded();
}
