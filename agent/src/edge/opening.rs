//! A port of this host for its edge: asked for until it is had, and what the Node is told meanwhile.

use std::io;
use std::time::Duration;

/// Before a port that is somebody else's is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// An event about the Node; false where nobody can hear it now.
pub trait Tell: Fn(bool, &str, String) -> bool {}
impl<T: Fn(bool, &str, String) -> bool> Tell for T {}

/// What `listen` makes, once it can: told to be wrong once, and to be right again.
pub async fn open<L>(port: u16, listen: impl Fn() -> io::Result<L>, tell: impl Tell) -> L {
    let (mut said, mut told) = (false, false);
    loop {
        let error = match listen() {
            Ok(listener) if told => {
                tell(false, "EdgePortServed", format!("port {port} is served by this node's edge now"));
                return listener;
            }
            Ok(listener) => return listener,
            Err(error) => error,
        };
        if !said {
            tracing::warn!(%error, port, "port {port} of this host can't be served; trying again");
            said = true;
        }
        told = told
            || tell(true, "EdgePortUnavailable", format!("port {port} can't be served by this node's edge: {error}"));
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[tokio::test(start_paused = true)]
    async fn a_port_is_told_to_be_taken_once_and_then_to_be_served() {
        let (tries, told) = (Cell::new(0), RefCell::new(Vec::new()));
        let listen = || {
            tries.set(tries.get() + 1);
            if tries.get() < 5 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
        };
        let tell = |warning: bool, reason: &str, message: String| {
            told.borrow_mut().push((tries.get(), warning, reason.to_string(), message));
            // The server comes with the second try.
            tries.get() > 1
        };
        open(80, listen, tell).await;
        let told: Vec<_> =
            told.borrow().iter().map(|(at, warning, reason, _)| (*at, *warning, reason.clone())).collect();
        let unavailable = |at| (at, true, "EdgePortUnavailable".to_string());
        assert_eq!(told, [unavailable(1), unavailable(2), (5, false, "EdgePortServed".into())]);
    }

    #[tokio::test]
    async fn a_port_that_is_free_is_no_news() {
        open(80, || Ok(()), |_, _, _| panic!("there is nothing to say")).await;
    }
}
