//! The page in a real browser: what one does is done, what others do shows by itself, and nothing needs a reload.

use longshore_e2e::{Browser, Docker, Installation, Kubectl};
use serde_json::json;

/// A mark in the page's memory that a reload would wipe out.
const MARK: &str = "window.unloaded = false";

pub struct Story {
    installation: Installation,
    pub browser: Browser,
    /// `…/c/{cluster}`.
    cluster: String,
}

impl Story {
    pub fn signed_in(browser: Browser) -> Self {
        let installation = Installation::start();
        let admin = installation.admin();
        browser.go(&admin.url);
        browser.fill("input[name=email]", &admin.email);
        browser.fill("input[name=password]", &admin.password);
        browser.press("[data-testid=sign-in]");
        browser.wait("the page is live", "document.querySelector('.live-dot.live')");
        browser.script(MARK);
        let id = admin.cluster_url.rsplit('/').next().expect("an id").to_string();
        Self { installation, browser, cluster: format!("{}c/{id}", admin.url) }
    }

    pub fn kubectl(&self) -> Kubectl {
        self.installation.kubectl()
    }

    #[track_caller]
    pub fn was_never_reloaded(&self) {
        assert_eq!(self.browser.script("return window.unloaded"), json!(false), "the page was loaded anew");
    }
}

/// A node that exists through the API alone: it takes pods and runs none.
pub fn add_node(kubectl: &Kubectl, name: &str) {
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).to_string());
    let ready = json!({"type": "Ready", "status": "True", "reason": "Test", "message": "ready"});
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "100"});
    let status = json!({"status": {"conditions": [ready], "capacity": room, "allocatable": room}}).to_string();
    kubectl.run(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status]);
}

/// What a node would say of the pods that are bound to it: all run.
pub fn run_pods(kubectl: &Kubectl, selector: &str, count: usize) {
    let bound = |pods: &[serde_json::Value]| pods.iter().filter(|p| !p["spec"]["nodeName"].is_null()).count();
    longshore_e2e::eventually("the pods are bound", std::time::Duration::from_secs(60), || {
        let pods = kubectl.pods(selector);
        if bound(&pods) == count { Ok(()) } else { Err(format!("{} of {count}", bound(&pods))) }
    });
    for pod in kubectl.pods(selector) {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let container = json!({"name": "hello", "image": "longshore/hello:v1", "imageID": "sha256:0", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}});
        // Its own, and the same each time.
        let number = name.bytes().fold(0_u16, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        let ip = format!("10.244.{}.{}", number >> 8, number & 0xff);
        let conditions = ["Initialized", "ContainersReady", "Ready"].map(|t| json!({"type": t, "status": "True"}));
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions, "containerStatuses": [container]}});
        kubectl.run(&["patch", "pod", name, "--subresource=status", "-p", &status.to_string()]);
    }
}

/// What a node would do with pods that are deleted.
fn stop_pods(kubectl: &Kubectl, selector: &str) {
    kubectl.run(&[
        "delete",
        "pods",
        "-l",
        selector,
        "--grace-period=0",
        "--force",
        "--wait=false",
        "--ignore-not-found",
    ]);
}

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: hello}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: hello}}}}
  template:
    metadata: {{labels: {{app: hello}}}}
    spec:
      containers:
      - name: hello
        image: longshore/hello:v1
"
    )
}

#[test]
fn a_deployment_from_yaml_to_its_end() {
    let story = Story::signed_in(Browser::open());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    browser.press("a[href$='/nodes']");
    browser.wait_text("[data-testid=empty]", "No nodes here yet");
    add_node(&kubectl, "ship");
    browser.wait_text("table[data-kind=Node]", "ship");

    browser.press("[data-testid=rail-deploy]");
    browser.press("[data-testid=to-yaml]");
    browser.paste("[data-testid=editor]", &deployment(3).replace("replicas", "replcas"));
    browser.press("[data-testid=apply]");
    browser.wait_text("[data-testid=marks]", "Line 5");
    browser.wait_text("[data-testid=marks]", "unknown field \"spec.replcas\"");
    assert!(kubectl.try_run(&["get", "deployment", "hello"]).is_err(), "what is wrong in part is not applied at all");
    browser.paste("[data-testid=editor]", &deployment(3));
    browser.press("[data-testid=apply]");
    browser.wait_text("[data-testid=applied]", "created");

    browser.press("a[href$='/deployments']");
    browser.wait_text("table[data-kind=Deployment]", "0/3");
    run_pods(&kubectl, "app=hello", 3);
    browser.wait_text("table[data-kind=Deployment]", "3/3");
    browser.press(".cell-name a");
    browser.wait_text("[data-testid=status-sentence]", "Serving 3 of 3");
    browser.wait("three rows", "document.querySelectorAll('table[data-kind=Pod] .row').length === 3");

    browser.press("[data-testid=scale]");
    browser.fill("[data-testid=replicas]", "5");
    browser.press("[data-testid=scale-confirm]");
    browser.wait("five rows", "document.querySelectorAll('table[data-kind=Pod] .row').length === 5");
    run_pods(&kubectl, "app=hello", 5);
    browser.wait_text("[data-testid=status-sentence]", "Serving 5 of 5");

    browser.press("[data-testid=delete]");
    browser.fill("[data-testid=confirm-name]", "hell");
    browser.wait("a part of the name is not enough", "document.querySelector('[data-testid=confirm]').disabled");
    browser.fill("[data-testid=confirm-name]", "hello");
    browser.press("[data-testid=confirm]");
    browser.wait("it is gone", "document.querySelector('[data-testid=gone]')");
    stop_pods(&kubectl, "app=hello");
    browser.press("a[href$='/pods']");
    browser.wait_text("[data-testid=empty]", "No pods here yet");
    story.was_never_reloaded();
}

#[test]
fn a_deployment_from_the_form() {
    let story = Story::signed_in(Browser::open());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    browser.press("[data-testid=rail-deploy]");
    browser.fill("[data-testid=new-image]", "longshore/hello:v1");
    browser.fill("[data-testid=new-port]", "8080");
    browser.fill("[data-testid=new-environment]", "GREETING=ahoy");
    browser.press("[data-testid=deploy]");
    browser.wait_text("[data-testid=object-name]", "hello");
    // No node: the page says so, and what to do.
    browser.wait_text("[data-testid=status-sentence]", "Add a node");
    let made = kubectl.json(&["get", "deployment", "hello"]);
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"], "ahoy");
    assert_eq!(kubectl.json(&["get", "service", "hello"])["spec"]["ports"][0]["targetPort"], 8080);
    story.was_never_reloaded();
}

#[test]
fn real_containers_and_their_logs() {
    let story = Story::signed_in(Browser::open());
    let browser = &story.browser;
    let docker = Docker::start(&story.installation.folder().join("docker"));
    docker.make_sample_image();
    let _agent = story.installation.start_agent("worker", &docker);
    browser.press("[data-testid=rail-deploy]");
    browser.fill("[data-testid=new-image]", "longshore/hello:v1");
    browser.press("[data-testid=deploy]");
    browser.wait_text("[data-testid=status-sentence]", "Serving 3 of 3");
    assert_eq!(docker.pod_containers().len(), 3);
    browser.press("table[data-kind=Pod] .cell-name a");
    browser.wait_text("[data-testid=status-sentence]", "Running on worker");
    browser.press("[data-testid=tab-logs]");
    browser.wait_text("[data-testid=log]", "listens on 8080");
    story.was_never_reloaded();
}

#[test]
fn a_killed_server_comes_back_without_a_reload() {
    let mut story = Story::signed_in(Browser::open());
    story.browser.press("a[href$='/configmaps']");
    story.browser.wait_text("table[data-kind=ConfigMap]", "kube-root-ca.crt");
    story.installation.kill_server();
    story.browser.wait("the dot says that it is not live", "document.querySelector('.live-dot.stale')");
    story.browser.wait_text("table[data-kind=ConfigMap]", "kube-root-ca.crt");
    story.installation.start_server();
    story.kubectl().run(&["create", "configmap", "tide"]);
    story.browser.wait_text("table[data-kind=ConfigMap]", "tide");
    story.browser.wait("the dot is live again", "document.querySelector('.live-dot.live')");
    story.was_never_reloaded();
}

#[test]
fn a_phone_never_scrolls_sideways() {
    let story = Story::signed_in(Browser::open_phone());
    let (browser, kubectl) = (&story.browser, story.kubectl());
    add_node(&kubectl, "a-node-with-a-name-that-is-rather-long.harbour.example.com");
    kubectl.apply(&deployment(2));
    run_pods(&kubectl, "app=hello", 2);
    for page in [
        "",
        "/deployments",
        "/deployments/default/hello",
        "/pods",
        "/nodes",
        "/events",
        "/new",
        "/apply",
        "/add-node",
        "/kinds",
        "/ingresses",
    ] {
        browser.go(&format!("{}{page}", story.cluster));
        browser.wait("the page is live", "document.querySelector('.live-dot.live')");
        browser.wait("its data is there", "!document.querySelector('[aria-busy=true]')");
        let wider =
            "[document.documentElement, document.querySelector('main')].map(e => e.scrollWidth - e.clientWidth)";
        assert_eq!(browser.script(&format!("return {wider}")), json!([0, 0]), "{page}");
    }
}

#[test]
fn a_piece_that_cannot_be_fetched_is_said_and_comes_with_the_next_load() {
    let story = Story::signed_in(Browser::open());
    let browser = &story.browser;
    browser.block(&["*/assets/split_*"]);
    browser.press("a[href$='/topology']");
    browser.wait_text("[role=alert]", "could not be fetched");
    browser.press("a[href$='/deployments']");
    browser.wait_text("h1", "Deployments");
    story.was_never_reloaded();
    browser.press("a[href$='/topology']");
    browser.wait_text("[role=alert]", "could not be fetched");
    browser.block(&[]);
    browser.press("[role=alert] button");
    browser.wait_text("h1", "Topology");
}
