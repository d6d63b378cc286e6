//! A real Chromium, driven by W3C WebDriver through a chromedriver of the test's own, on a port of its own.
//!
//! The protocol is JSON over HTTP and a story needs seven of its commands: a client crate would bring twenty others and an
//! async runtime for them. What a story waits for is said in JavaScript, because the page redraws itself all the time: an
//! element that was found a moment ago may be another one now. Only presses and keys go through the driver, as a person's.

use crate::eventually;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use ureq::Agent;

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A debug build of everything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    driver: Child,
    agent: Agent,
    session: String,
}

impl Browser {
    /// A desktop's window.
    pub fn open() -> Self {
        Self::open_sized(1440, 900, false, &[])
    }

    /// A desktop's window in which every name leads to this address.
    pub fn open_resolving_to(address: &str) -> Self {
        Self::open_sized(1440, 900, false, &[&format!("--host-resolver-rules=MAP * {address}")])
    }

    /// A phone's: 390 pixels wide, touched.
    pub fn open_phone() -> Self {
        Self::open_sized(390, 844, true, &[])
    }

    fn open_sized(width: u32, height: u32, phone: bool, more: &[&str]) -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=WARNING"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts: scripts/setup test installs it");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped"));
        let port = port_of(&mut lines);
        // Its later words are taken and forgotten, so that it never waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE * 2)).build();
        let mut browser = Self { driver, agent: config.into(), session: format!("http://127.0.0.1:{port}/session") };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
        let options = json!({"args": arguments.iter().chain(more).collect::<Vec<_>>()});
        // The installation's own CA is none of the browser's.
        let wanted = json!({"browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options});
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        let opened = browser.command("", wanted).expect("Chromium starts");
        browser.session = format!("{}/{}", browser.session, opened["sessionId"].as_str().expect("a session"));
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics);
        browser
    }

    fn devtools(&self, command: &str, parameters: Value) {
        let asked = json!({"cmd": command, "params": parameters});
        self.command("/goog/cdp/execute", asked).unwrap_or_else(|error| panic!("{command}: {error}"));
    }

    /// From now on what matches these patterns can't be fetched, and nothing comes out of the cache.
    pub fn block(&self, patterns: &[&str]) {
        self.devtools("Network.enable", json!({}));
        self.devtools("Network.setCacheDisabled", json!({"cacheDisabled": true}));
        self.devtools("Network.setBlockedURLs", json!({"urls": patterns}));
    }

    fn command(&self, path: &str, body: Value) -> Result<Value, String> {
        let answer = self.agent.post(format!("{}{path}", self.session)).send_json(body);
        let mut answer = answer.map_err(|error| format!("chromedriver: {error}"))?;
        let good = answer.status().is_success();
        let mut answer: Value = answer.body_mut().read_json().map_err(|error| format!("chromedriver: {error}"))?;
        let value = answer["value"].take();
        if good { Ok(value) } else { Err(value["message"].as_str().unwrap_or("no message").to_string()) }
    }

    pub fn go(&self, url: &str) {
        self.command("/url", json!({"url": url})).unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// What a script returns.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.try_script(script).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    fn try_script(&self, script: &str) -> Result<Value, String> {
        self.command("/execute/sync", json!({"script": script, "args": []}))
    }

    /// Waits until a JavaScript expression is true (or anything but null, false, 0 and empty); what it is then.
    #[track_caller]
    pub fn wait(&self, what: &str, expression: &str) -> Value {
        eventually(what, PATIENCE, || {
            let value = self.try_script(&format!("return {expression}"))?;
            let nothing = value.is_null() || value == false || value == 0 || value == "";
            if nothing { Err(self.seen()) } else { Ok(value) }
        })
    }

    /// Waits until the element that a CSS selector names shows this text.
    #[track_caller]
    pub fn wait_text(&self, css: &str, text: &str) {
        let expression = format!("(document.querySelector({css:?})?.innerText ?? '').includes({text:?})");
        self.wait(&format!("{css} says {text:?}"), &expression);
    }

    /// The page's words, for messages.
    fn seen(&self) -> String {
        let text = self.try_script("return location.pathname + '\\n' + document.body.innerText").unwrap_or_default();
        text.as_str().unwrap_or_default().chars().take(2_000).collect()
    }

    /// Presses the element, once it is there and can be pressed.
    #[track_caller]
    pub fn press(&self, css: &str) {
        eventually(&format!("{css} can be pressed"), PATIENCE, || {
            let element = self.find(css)?;
            self.command(&format!("/element/{element}/click"), json!({})).map(drop)
        });
    }

    /// Types into the element in place of what it holds.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        eventually(&format!("{css} can be written in"), PATIENCE, || {
            let element = self.find(css)?;
            self.command(&format!("/element/{element}/clear"), json!({}))?;
            self.command(&format!("/element/{element}/value"), json!({"text": text})).map(drop)
        });
    }

    /// Sets the text of an editor at once: keys would be indented by it.
    #[track_caller]
    pub fn paste(&self, css: &str, text: &str) {
        self.wait(&format!("{css} is there"), &format!("document.querySelector({css:?})"));
        self.script(&format!(
            "const e = document.querySelector({css:?}); e.value = {text:?}; e.dispatchEvent(new Event('input', {{bubbles: true}}))"
        ));
    }

    fn find(&self, css: &str) -> Result<String, String> {
        let found = self.command("/element", json!({"using": "css selector", "value": css}))?;
        found[ELEMENT].as_str().map(String::from).ok_or_else(|| format!("{css} is no element"))
    }
}

fn port_of(lines: &mut impl BufRead) -> u16 {
    let mut said = String::new();
    for line in lines.by_ref().lines().map_while(Result::ok) {
        if let Some(port) = line.split("on port ").nth(1).and_then(|p| p.trim_end_matches('.').parse().ok())
            && line.contains("started successfully")
        {
            return port;
        }
        said = said + &line + "\n";
    }
    panic!("chromedriver did not start: {said}");
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends its Chromium; then the driver itself.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
