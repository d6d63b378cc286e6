//! The edge over real sockets: clients in front, endpoints behind.

mod support;

mod acme;
mod connections;
mod datagrams;
mod http;
mod limits;
mod routes;
mod tls;
mod upgrades;
mod websockets;
