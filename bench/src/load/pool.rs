//! A closed loop: so many clients, each with a connection of its own, each asking again as soon as it is answered.

use super::Timed;
use crate::Result;
use crate::client::{Ask, Connection, Target};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Errors that are printed; the rest is counted.
const PRINTED: usize = 3;
/// Connections that are being opened at once.
const OPENING: usize = 32;

/// `clients` make `total` requests between them; the answers' bytes are read and forgotten.
pub async fn requests(
    target: &Target,
    clients: usize,
    total: usize,
    ask: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Timed> {
    let ask = Arc::new(ask);
    each(target, clients, total, move |mut connection, i| {
        let ask = ask(i);
        async move {
            let answered = connection.count(ask).await;
            (connection, answered.map(drop))
        }
    })
    .await
}

/// The same with any work for each number from 0 to `total`.
pub async fn each<F, W>(target: &Target, clients: usize, total: usize, work: W) -> Result<Timed>
where
    F: Future<Output = (Connection, Result<()>)> + Send,
    W: Fn(Connection, usize) -> F + Send + Sync + 'static,
{
    let connections = connect(&vec![target.clone(); clients]).await?;
    Ok(with(connections, total, work).await)
}

/// The same on connections that are open already.
pub async fn with<F, W>(connections: Vec<Connection>, total: usize, work: W) -> Timed
where
    F: Future<Output = (Connection, Result<()>)> + Send,
    W: Fn(Connection, usize) -> F + Send + Sync + 'static,
{
    let (next, errors) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = Arc::new(work);
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for mut connection in connections {
        let (next, errors, work) = (next.clone(), errors.clone(), work.clone());
        clients.spawn(async move {
            let mut latencies: Vec<Duration> = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return latencies;
                }
                let asked = Instant::now();
                let (back, answered) = work(connection, number).await;
                connection = back;
                match answered {
                    Ok(()) => latencies.push(asked.elapsed()),
                    Err(error) => {
                        if errors.fetch_add(1, Ordering::Relaxed) < PRINTED {
                            eprintln!("    {error}");
                        }
                    }
                }
            }
        });
    }
    let latencies = clients.join_all().await.concat();
    Timed::new(latencies, begun.elapsed(), errors.load(Ordering::Relaxed))
}

/// A connection to each target, in their order.
pub async fn connect(targets: &[Target]) -> Result<Vec<Connection>> {
    use futures::stream::{StreamExt, TryStreamExt};
    let opening = targets.iter().map(|target| target.connect());
    futures::stream::iter(opening).buffered(OPENING).try_collect().await
}
