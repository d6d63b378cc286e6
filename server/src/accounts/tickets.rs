//! One-use tickets for WebSockets: a browser can't send a header with one, and a cookie alone must not open it.

use super::password;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A page opens its socket right after it asked for the ticket.
const LIFETIME: Duration = Duration::from_secs(30);
/// Tickets at once: more than that is no page.
const MOST: usize = 10_000;

/// Who opened the page, to be authenticated for each cluster that the socket then names: signing out ends what a ticket
/// opened, too. Kept in memory only.
#[derive(Clone)]
pub struct TicketHolder {
    pub(super) session: String,
}

#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<Vec<u8>, (Instant, TicketHolder)>>);

impl Tickets {
    /// None when far too many are open.
    pub fn issue(&self, holder: TicketHolder) -> Option<String> {
        let mut open = self.0.lock();
        open.retain(|_, (made, _)| made.elapsed() < LIFETIME);
        if open.len() >= MOST {
            return None;
        }
        let ticket = password::secret();
        open.insert(password::digest(&ticket), (Instant::now(), holder));
        Some(ticket)
    }

    /// Takes the ticket: a second use finds nothing.
    pub fn redeem(&self, ticket: &str) -> Option<TicketHolder> {
        let (made, holder) = self.0.lock().remove(&password::digest(ticket))?;
        (made.elapsed() < LIFETIME).then_some(holder)
    }
}
