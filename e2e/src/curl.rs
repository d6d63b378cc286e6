//! Raw requests, as a script or an attacker would send them, through curl.

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// What came back: status, body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Requests to one base URL with one token.
#[derive(Clone)]
pub struct Curl {
    pub base: String,
    pub token: String,
    pub ca: String,
}

impl Curl {
    /// Sends `body` (none for a GET) as `content_type`; a status of 0 means that no answer came (`body` is curl's
    /// complaint).
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: Option<&[u8]>) -> Answer {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--cacert", &self.ca, "-X", method, "-w", "\n%{http_code}"]);
        command.args(["-H", &format!("Authorization: Bearer {}", self.token), "-H", "Expect:"]);
        command.args(["-H", &format!("Content-Type: {content_type}")]);
        if body.is_some() {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.base));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("curl is installed by scripts/setup");
        let mut input = child.stdin.take().expect("piped");
        let body = body.unwrap_or_default().to_vec();
        // A server that refuses early closes before all was read: that is no failure of the test.
        let writer = std::thread::spawn(move || drop(input.write_all(&body)));
        let output = child.wait_with_output().expect("curl ends");
        let _ = writer.join();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        match status.parse().unwrap_or(0) {
            0 => Answer { status: 0, body: complaint.into_owned() },
            status => Answer { status, body: body.to_string() },
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", None)
    }
}
