//! A wire between the server and its Postgres that can be held, cut and led elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone)]
pub enum Target {
    Tcp(String),
    Socket(PathBuf),
}

#[derive(Clone, Copy)]
struct Gate {
    open: bool,
    /// Connections of an earlier one are cut.
    generation: u64,
}

pub struct Wire {
    pub address: SocketAddr,
    gate: watch::Sender<Gate>,
    target: Arc<Mutex<Target>>,
}

impl Wire {
    pub async fn to(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (gate, watched) = watch::channel(Gate { open: true, generation: 0 });
        let target = Arc::new(Mutex::new(target));
        let to = target.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = to.lock().expect("nobody panics with it").clone();
                tokio::spawn(carry(near, to, watched.clone()));
            }
        });
        Self { address, gate, target }
    }

    /// Nothing passes any more, and nobody is told.
    pub fn hold(&self) {
        self.gate.send_modify(|gate| gate.open = false);
    }

    pub fn release(&self) {
        self.gate.send_modify(|gate| gate.open = true);
    }

    /// Ends all connections, wherever they are in what they say.
    pub fn cut(&self) {
        self.gate.send_modify(|gate| gate.generation += 1);
    }

    pub fn lead_to(&self, target: Target) {
        *self.target.lock().expect("nobody panics with it") = target;
        self.cut();
    }
}

async fn carry(near: TcpStream, target: Target, gate: watch::Receiver<Gate>) {
    match target {
        Target::Tcp(address) => {
            if let Ok(far) = TcpStream::connect(address).await {
                join(near, far, gate).await;
            }
        }
        Target::Socket(path) => {
            if let Ok(far) = UnixStream::connect(path).await {
                join(near, far, gate).await;
            }
        }
    }
}

async fn join(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite, mut gate: watch::Receiver<Gate>) {
    let generation = gate.borrow().generation;
    let (near_out, near_in) = tokio::io::split(near);
    let (far_out, far_in) = tokio::io::split(far);
    tokio::select! {
        () = pass(near_out, far_in, gate.clone()) => {}
        () = pass(far_out, near_in, gate.clone()) => {}
        _ = gate.wait_for(|gate| gate.generation != generation) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut gate: watch::Receiver<Gate>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        if count == 0 || gate.wait_for(|gate| gate.open).await.is_err() || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
