//! Kubernetes's channel protocol: several streams over one WebSocket, each message led by the number of its channel.
//!
//! `v5` is what kubectl speaks (it can end stdin), `v4` what older clients do (its error channel carries a `Status`);
//! before that errors were plain text. The base64 forms are for browsers of long ago: text messages, the channel as a
//! digit. Pure: the bytes of a handshake's answer and of messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;
/// v5 only: its payload is the number of the channel that ends.
const CLOSE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    name: &'static str,
    base64: bool,
    /// The error channel carries a `Status`; else a message, and nothing on success.
    status: bool,
    closes: bool,
}

const fn protocol(name: &'static str, base64: bool, status: bool, closes: bool) -> Protocol {
    Protocol { name, base64, status, closes }
}

const PROTOCOLS: [Protocol; 6] = [
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
    protocol("", false, false, false),
];

/// The protocol and the headers of the answer 101. `Err`: why the request is no WebSocket that can be served.
pub fn negotiate(headers: &HeaderMap) -> Result<(Protocol, HeaderMap), String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !text("upgrade").eq_ignore_ascii_case("websocket") {
        return Err("Upgrade request required".into());
    }
    let key = text("sec-websocket-key");
    if key.is_empty() || text("sec-websocket-version") != "13" {
        return Err("not a WebSocket handshake of version 13".into());
    }
    let asked: Vec<&str> = headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect();
    let named = |name: &str| PROTOCOLS.iter().find(|p| p.name == name).copied();
    let protocol = match asked.is_empty() {
        true => named(""),
        false => asked.iter().find_map(|name| named(name)),
    };
    let Some(protocol) = protocol else {
        let ours: Vec<&str> = PROTOCOLS.iter().map(|p| p.name).filter(|n| !n.is_empty()).collect();
        return Err(format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            asked.join(" "),
            ours.join(" ")
        ));
    };
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = derive_accept_key(key.as_bytes());
    answer.insert("sec-websocket-accept", HeaderValue::from_str(&accept).map_err(|e| e.to_string())?);
    if !protocol.name.is_empty() {
        let name = HeaderName::from_static("sec-websocket-protocol");
        answer.insert(name, HeaderValue::from_static(protocol.name));
    }
    Ok((protocol, answer))
}

/// What a client's message says.
#[derive(Debug, PartialEq)]
pub enum Said {
    Data(u8, Bytes),
    /// Nothing more will come on this channel.
    End(u8),
    Nothing,
}

impl Protocol {
    pub fn message(&self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = char::from(b'0' + channel).to_string();
            STANDARD.encode_string(bytes, &mut text);
            return Message::text(text);
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.extend_from_slice(&[channel]);
        message.extend_from_slice(bytes);
        Message::Binary(message.freeze())
    }

    pub fn read(&self, message: Message) -> Said {
        let bytes: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return Said::Nothing,
        };
        let Some(&first) = bytes.first() else { return Said::Nothing };
        if self.base64 {
            return match STANDARD.decode(&bytes[1..]) {
                Ok(decoded) if first.is_ascii_digit() => Said::Data(first - b'0', decoded.into()),
                _ => Said::Nothing,
            };
        }
        match (first, bytes.get(1)) {
            (CLOSE, Some(&channel)) if self.closes => Said::End(channel),
            (CLOSE, _) if self.closes => Said::Nothing,
            _ => Said::Data(first, bytes.slice(1..)),
        }
    }

    /// The last word on the error channel; `None` where this protocol says nothing.
    pub fn verdict(&self, end: &End) -> Option<Message> {
        let status = end.status();
        match (self.status, end) {
            (true, _) => Some(self.message(ERROR, status.to_string().as_bytes())),
            (false, End::Success) => None,
            (false, _) => Some(self.message(ERROR, status["message"].as_str().unwrap_or_default().as_bytes())),
        }
    }
}

/// How a session ended.
#[derive(Debug, PartialEq)]
pub enum End {
    Success,
    ExitCode(i32),
    /// It could not be started or was lost.
    Error(String),
}

impl End {
    fn status(&self) -> Value {
        match self {
            End::Success => json!({"metadata": {}, "status": "Success"}),
            End::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!(
                    "command terminated with non-zero exit code: command terminated with exit code {code}"
                ),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            End::Error(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }
}

/// A terminal's size as a message on [`RESIZE`] gives it: columns and rows.
pub fn size(bytes: &[u8]) -> Option<(u16, u16)> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let field = |name: &str| value.get(name)?.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    Some((field("Width")?, field("Height")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(protocols: &[&str]) -> Result<(Protocol, HeaderMap), String> {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        for line in protocols {
            headers.append("sec-websocket-protocol", HeaderValue::from_str(line).unwrap());
        }
        negotiate(&headers)
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        for (asked, want) in [
            (&["v5.channel.k8s.io"][..], "v5.channel.k8s.io"),
            (&["v9.channel.k8s.io, v4.channel.k8s.io"], "v4.channel.k8s.io"),
            (&["channel.k8s.io", "v5.channel.k8s.io"], "channel.k8s.io"),
            (&[], ""),
        ] {
            let (protocol, answer) = handshake(asked).unwrap();
            assert_eq!(protocol.name, want);
            // The example of RFC 6455.
            assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(answer.get("sec-websocket-protocol").map_or("", |v| v.to_str().unwrap()), want);
        }
        let refused = handshake(&["soap"]).unwrap_err();
        assert!(refused.starts_with("requested protocol(s) are not supported: [soap]; supports [v5."), "{refused}");
        assert_eq!(negotiate(&HeaderMap::new()).unwrap_err(), "Upgrade request required");
    }

    fn named(name: &str) -> Protocol {
        handshake(&[name]).unwrap().0
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        for protocol in PROTOCOLS {
            for bytes in [&b""[..], b"x", b"\xff\0\x01", "ü".as_bytes()] {
                let message = protocol.message(STDOUT, bytes);
                assert_eq!(protocol.read(message), Said::Data(STDOUT, Bytes::copy_from_slice(bytes)), "{protocol:?}");
            }
        }
    }

    #[test]
    fn only_v5_ends_a_channel() {
        let end = Message::Binary(Bytes::from_static(&[255, 0]));
        assert_eq!(named("v5.channel.k8s.io").read(end.clone()), Said::End(STDIN));
        assert_eq!(named("v4.channel.k8s.io").read(end), Said::Data(255, Bytes::from_static(&[0])));
        assert_eq!(named("v5.channel.k8s.io").read(Message::Binary(Bytes::from_static(&[255]))), Said::Nothing);
        assert_eq!(named("v5.channel.k8s.io").read(Message::Binary(Bytes::new())), Said::Nothing);
        assert_eq!(named("base64.channel.k8s.io").read(Message::text("0%%")), Said::Nothing);
    }

    #[test]
    fn the_verdict_is_a_status_that_names_the_exit_code() {
        let v4 = named("v4.channel.k8s.io");
        let Some(Message::Binary(bytes)) = v4.verdict(&End::ExitCode(3)) else { panic!("no verdict") };
        assert_eq!(bytes[0], ERROR);
        let status: Value = serde_json::from_slice(&bytes[1..]).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
        let first = named("channel.k8s.io");
        assert_eq!(first.verdict(&End::Success), None);
        let lost = first.verdict(&End::Error("lost".into())).unwrap();
        assert_eq!(first.read(lost), Said::Data(ERROR, Bytes::from_static(b"Internal error occurred: lost")));
    }

    #[test]
    fn sizes_of_terminals() {
        assert_eq!(size(br#"{"Width":120,"Height":40}"#), Some((120, 40)));
        for bad in [&b""[..], b"{}", br#"{"Width":0,"Height":1}"#, br#"{"Width":99999,"Height":1}"#, b"[1,2]"] {
            assert_eq!(size(bad), None);
        }
    }
}
