//! TCP between pods.

use crate::node::Node;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn asynchronous(stream: TcpStream) -> tokio::net::TcpStream {
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

/// A connection from a pod of `a` to one of `b`.
pub async fn connect(a: &Node, b: &Node) -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    connect_to(a, b, b.pod.into()).await
}

/// `pod`: an address of one of `b`.
async fn connect_to(a: &Node, b: &Node, pod: IpAddr) -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = b.cluster.within(|| TcpListener::bind((pod, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let new = if pod.is_ipv4() { tokio::net::TcpSocket::new_v4 } else { tokio::net::TcpSocket::new_v6 };
    let socket = a.cluster.within(new).unwrap();
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap().0);
    let connected = tokio::time::timeout(Duration::from_secs(10), socket.connect(address)).await;
    let connected = connected.expect("no connection within 10 s").unwrap();
    (connected, asynchronous(accepted.await.unwrap()))
}

/// One byte there and back.
pub async fn echo(a: &Node, b: &Node) {
    let (mut near, mut far) = connect(a, b).await;
    near.write_all(b"x").await.unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).await.unwrap();
    far.write_all(&byte).await.unwrap();
    near.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"x");
}

/// A connection with a steady flow in one direction, whose bytes are checked.
pub struct Flow {
    stop: Arc<AtomicBool>,
    pub received: Arc<AtomicU64>,
    sender: tokio::task::JoinHandle<u64>,
    receiver: tokio::task::JoinHandle<u64>,
}

fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|at| (at % 251) as u8).collect()
}

impl Flow {
    pub async fn start(a: &Node, b: &Node) -> Self {
        Self::start_to(a, b, b.pod.into()).await
    }

    /// To an address of a pod of `b`.
    pub async fn start_to(a: &Node, b: &Node, pod: IpAddr) -> Self {
        let (mut near, mut far) = connect_to(a, b, pod).await;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), received.clone());
        let sender = tokio::spawn(async move {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                near.write_all(&pattern(sent, 16_384)).await.expect("the connection broke");
                sent += 16_384;
                // Some megabytes a second are enough to tell whether it flows.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            near.shutdown().await.unwrap();
            sent
        });
        let receiver = tokio::spawn(async move {
            let (mut total, mut buffer) = (0, vec![0; 65_536]);
            loop {
                let length = far.read(&mut buffer).await.expect("the connection broke");
                if length == 0 {
                    return total;
                }
                assert!(buffer[..length] == pattern(total, length), "bytes were changed near {total}");
                total += length as u64;
                counted.store(total, Ordering::Relaxed);
            }
        });
        Self { stop, received, sender, receiver }
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Everything that was sent has arrived.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let both = async { (self.sender.await.unwrap(), self.receiver.await.unwrap()) };
        let (sent, received) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("the flow doesn't end");
        assert_eq!(sent, received);
    }
}
