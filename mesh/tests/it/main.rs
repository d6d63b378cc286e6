//! The mesh between network namespaces that model the internet. Run as root.

mod internet;
mod node;
mod paths;
mod peers;
mod tcp;
