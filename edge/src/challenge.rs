//! What an authority asks to see before it gives a certificate, answered by every edge: the answers may have been made by
//! another replica.

use crate::tls::Certificate;
use std::future::Future;
use std::pin::Pin;

pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// The place of open challenges, shared by all that serve a host.
pub trait Challenges: Send + Sync + 'static {
    /// HTTP-01: the key authorization for a token at `/.well-known/acme-challenge/TOKEN`.
    fn http<'a>(&'a self, host: &'a str, token: &'a str) -> Answering<'a, String>;
    /// TLS-ALPN-01: the certificate to show for a name under [`crate::tls::ACME_TLS_ALPN`].
    fn tls<'a>(&'a self, host: &'a str) -> Answering<'a, Certificate>;
}

/// There are none.
pub struct NoChallenges;

impl Challenges for NoChallenges {
    fn http<'a>(&'a self, _: &'a str, _: &'a str) -> Answering<'a, String> {
        Box::pin(async { None })
    }
    fn tls<'a>(&'a self, _: &'a str) -> Answering<'a, Certificate> {
        Box::pin(async { None })
    }
}
