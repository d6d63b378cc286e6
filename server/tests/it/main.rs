//! The server's tests through its own router: whole requests, whole answers, a cluster for each test.

mod accounts;
mod app;
mod applying;
mod authorization;
mod crowds;
mod edge;
mod faults;
mod fuzz;
mod gateway;
mod ingresses;
mod installation;
mod joining;
mod kubernetes;
mod network_policies;
mod node_streams;
mod page;
mod pods;
mod port_forward;
mod proxy;
mod scheduling;
mod stream;
