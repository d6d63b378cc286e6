//! Whole-system tests, each a story that a user could tell.

mod applying;
mod browser;
mod connections;
mod crashes;
mod domains;
mod edge;
mod edge_nodes;
mod hostile;
mod in_cluster;
mod internet;
mod ipv6;
mod join;
mod main_job;
mod mesh;
mod name_servers;
mod network_pages;
mod nodes;
mod policies;
mod port_forward;
mod postgres;
mod proxy;
mod replicas;
mod services;
