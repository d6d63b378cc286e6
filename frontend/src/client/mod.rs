//! The page's end of the wire: plain requests, the one stream, and what rests on them.

pub mod apply;
pub mod cluster;
pub mod http;
pub mod links;
pub mod live;
pub mod session;
pub mod stream;
