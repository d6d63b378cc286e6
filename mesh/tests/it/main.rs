//! The mesh between network namespaces that model the internet. Run as root.

mod node;
mod paths;
mod peers;
mod tcp;
