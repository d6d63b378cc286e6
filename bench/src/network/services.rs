//! What the way through a Service's address adds to a connection, with few of them and with many.

use super::answers::PORT;
use super::stage::Stage;
use super::{compared, median};
use crate::Result;
use crate::client::Ask;
use crate::figures::Figures;
use crate::load::pool;
use longshore_e2e::eventually;
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 2_000;

pub fn measure(stage: &Stage, figures: &mut Figures) -> Result<()> {
    // Two there are, and the cluster's own two.
    for (row, from, to) in [("service-10", 4, 10), ("service-10000", 10, 10_000)] {
        make(stage, from, to)?;
        let last = stage.service("default", &format!("many-{}", to - 1))?;
        let (pod, service) = (SocketAddr::new(stage.nodes[0].ip, PORT), SocketAddr::new(last, 80));
        let times = stage.within_client(|| {
            eventually("the last Service answers", Duration::from_secs(120), || {
                TcpStream::connect_timeout(&service, Duration::from_secs(1)).map(drop).map_err(|e| e.to_string())
            });
            // In turns, so that both see the same machine.
            (0..CONNECTIONS).map(|_| Ok((connect(pod)?, connect(service)?))).collect::<Result<Vec<_>>>()
        })??;
        let (direct, through): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        let slow = through.iter().filter(|took| **took > 100.0).count();
        println!("  {slow} of {CONNECTIONS} connections through the Service took more than 100 ms");
        compared(figures, row, median(through)?, median(direct)?);
    }
    Ok(())
}

/// In milliseconds.
fn connect(to: SocketAddr) -> Result<f64> {
    let begun = Instant::now();
    let stream = TcpStream::connect(to)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    drop(stream);
    Ok(took)
}

/// Services of the first node's pod, with numbers from `from` to `to`.
fn make(stage: &Stage, from: usize, to: usize) -> Result<()> {
    let target = stage.target()?;
    let service = move |number: usize| {
        let name = format!("many-{}", from + number);
        let spec = json!({"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": PORT}]});
        let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        Ask::post("/api/v1/namespaces/default/services", body.to_string())
    };
    let runtime = tokio::runtime::Handle::current();
    let made = runtime.block_on(pool::requests(&target, 32, to - from, service))?;
    match made.errors {
        0 => Ok(()),
        errors => Err(format!("{errors} Services could not be made").into()),
    }
}
