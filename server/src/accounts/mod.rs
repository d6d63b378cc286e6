//! People, organizations, roles, sessions, tokens and the keys behind them.
//!
//! `http` parses and answers, `Accounts` decides, `records` holds the SQL. Keys: the master key wraps all others and
//! signs nothing; the installation's CA signs the server's certificate; each cluster has a CA and a signing key of its own.

pub mod authority;
pub mod identity;
pub mod password;
pub mod signing;

pub use identity::{Authenticator, Identity, Role, Who};
