//! The kubelet's part on one machine: pods as Docker containers, over one outbound WebSocket.
//!
//! Rooms: [`pods`] decides and acts, [`runtime`] runs containers, [`network`], [`volumes`] and [`probes`] serve the pods,
//! [`kubelet`] answers the server's requests, [`node`] keeps the Node object and wires all of it together.

pub mod connection;
pub mod edge;
pub mod kubelet;
pub mod network;
pub mod node;
pub mod pods;
pub mod probes;
pub mod process;
pub mod runtime;
pub mod supervise;
pub mod volumes;
