//! `/v1/stream`: one WebSocket that carries many watches and logs.
//!
//! A browser allows six plain connections to a host, and a page shows more live lists than that. So they share one
//! socket: each subscription is a GET of the public Kubernetes API, named by a number that the client chooses, and what
//! comes back are the answers' own bodies. Nothing can be seen here that a plain GET of the same path would not show;
//! the server runs it through the same routing and the same authorizer.
//!
//! **Opening.** `POST /v1/stream/tickets` buys a ticket that is good once; `GET /v1/stream?ticket=…` upgrades. Scripts may
//! send a bearer token in `Authorization` instead.
//!
//! **Frames** are JSON texts with one key, which says what the frame is: [`ClientFrame`] up, [`ServerFrame`] down.
//!
//! **A watch** first sends the list in pages ([`ServerFrame::List`], `first` on the first and `last` on the last one; a
//! client swaps its rows at `last`), then changes in order. The server resumes a watch that ended by itself or because
//! the cluster moved; when it can't (the revision was compacted) it sends the list again, `first` and all. After a lost
//! connection the client asks again with `resume` and gets only what it missed, or the list where that's too far back.
//!
//! **Liveness.** The server sends a [`ServerFrame::Beat`] whenever it has been quiet for [`BEAT_SECONDS`], through the
//! same queue as everything else; a client that hears nothing for twice as long knows that what it shows is stale.

use crate::Status;
use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// How long the server is quiet at most.
pub const BEAT_SECONDS: u64 = 10;

/// Subscriptions at one time on one connection. A page has some ten; the rest is room for scripts.
pub const MAX_SUBSCRIPTIONS: usize = 256;

/// The largest frame a client may send: a path and a selector, not an upload.
pub const MAX_CLIENT_FRAME: usize = 16 * 1024;

/// What the client says. An id that is in use is taken over: the older subscription ends first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientFrame {
    Watch(Watch),
    Logs(Logs),
    Stop { id: u32 },
}

/// Asks for a list and everything that happens to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub id: u32,
    pub cluster: ClusterId,
    /// Below the cluster: `/apis/apps/v1/deployments`, `/api/v1/namespaces/shop/pods`.
    pub path: String,
    /// `labelSelector`, `fieldSelector`, `includeObject`; paging and watching are the server's part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// `Table` or `PartialObjectMetadata`; whole objects without it.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// The last revision seen in an earlier connection: no list, only what came after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    Table,
    PartialObjectMetadata,
}

impl Shape {
    /// The media type to ask for, plain JSON as the fallback for what has no table.
    pub fn accept(shape: Option<Self>) -> &'static str {
        match shape {
            Some(Self::Table) => "application/json;as=Table;g=meta.k8s.io;v=v1, application/json",
            Some(Self::PartialObjectMetadata) => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
            }
            None => "application/json",
        }
    }
}

/// Asks for a container's output: `path` is the pod's `log` subresource, `query` its parameters (`follow`, `tailLines`, …).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logs {
    pub id: u32,
    pub cluster: ClusterId,
    pub path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerFrame {
    /// The first frame: the server's time, by which a page shows ages right on a machine with a wrong clock.
    Hello {
        now: String,
    },
    Beat {
        now: String,
    },
    List(List),
    Changes(Changes),
    /// Output as it came, cut anywhere but within a character.
    Log {
        id: u32,
        text: String,
    },
    /// The watch can't go on for now and the server tries again by itself; what is shown is stale since this moment.
    Waiting {
        id: u32,
        status: Status,
    },
    /// The subscription is over: with what went wrong, or without when it was complete (logs of a finished container).
    End {
        id: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<Status>,
    },
}

/// One page of a list, as the API answered it.
#[derive(Debug, Serialize, Deserialize)]
pub struct List {
    pub id: u32,
    pub first: bool,
    pub last: bool,
    /// To resume from, once `last` has come.
    pub revision: String,
    /// A `Table`, or the kind's list.
    pub object: Box<RawValue>,
}

/// Watch events (`{"type":…,"object":…}`) as they came, several where several were ready; never `BOOKMARK` or `ERROR`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Changes {
    pub id: u32,
    /// To resume from after these. Bookmarks show as an empty list of events with a newer revision.
    pub revision: String,
    pub events: Vec<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_one_key_that_says_what_they_are() {
        let watch = ClientFrame::Watch(Watch {
            id: 7,
            cluster: ClusterId::new("c-abc"),
            path: "/api/v1/pods".into(),
            query: BTreeMap::new(),
            shape: Some(Shape::Table),
            resume: None,
        });
        let text = serde_json::to_string(&watch).unwrap();
        assert_eq!(text, r#"{"watch":{"id":7,"cluster":"c-abc","path":"/api/v1/pods","as":"Table"}}"#);
        assert_eq!(serde_json::from_str::<ClientFrame>(&text).unwrap(), watch);
        assert_eq!(serde_json::to_string(&ClientFrame::Stop { id: 7 }).unwrap(), r#"{"stop":{"id":7}}"#);
    }

    #[test]
    fn bodies_pass_through_untouched() {
        let text = r#"{"changes":{"id":1,"revision":"12","events":[{"type":"ADDED",  "object":{"b":1,"a":2.50}}]}}"#;
        let ServerFrame::Changes(changes) = serde_json::from_str(text).unwrap() else { panic!("not changes") };
        assert_eq!(changes.events[0].get(), r#"{"type":"ADDED",  "object":{"b":1,"a":2.50}}"#);
        let end = serde_json::to_string(&ServerFrame::End { id: 3, status: None }).unwrap();
        assert_eq!(end, r#"{"end":{"id":3}}"#);
    }
}
