//! What the world reaches apps through: hosts, paths, TLS and certificates on one side, live endpoints on the other.
//!
//! - Ingress is compiled to rules in the Gateway API's way ([`ingress::compile`], [`model`]), pure; a Gateway API can be compiled
//!   to the same.
//! - An [`Edge`] serves many clusters at once, each its own hosts ([`Claims`]). The caller sets routes, endpoints and
//!   certificates whenever they change; nothing is restarted.
//! - The edge opens no connection itself: it asks its [`Dialer`] for a stream to an endpoint that it was given. So it runs in
//!   the server, which dials through tunnels, and on a node, which dials its own network.
//!
//! It knows no server, no agent and no store.

pub mod acme;
pub mod challenge;
pub mod datagrams;
pub mod host;
pub mod ingress;
pub mod logs;
pub mod model;
mod path;
mod proxy;
pub mod services;
pub mod socket;
mod table;
pub mod tls;

pub use path::PathMatch;
pub use proxy::dial::{Dialer, Dialing, Endpoint, Stream};
pub use proxy::metrics::{Family, Kind, Sample};
pub use proxy::tcp::Forward;
pub use proxy::udp::Unsupported;
pub use proxy::{Edge, Settings};
pub use table::Claims;
