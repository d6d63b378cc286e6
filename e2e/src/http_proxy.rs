//! A proxy that knows HTTP's CONNECT and nothing else, as offices have them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// Serves in the network namespace of the calling thread, for as long as this process lives.
pub fn serve(address: &str) {
    let listener = TcpListener::bind(address).expect("the proxy's port is free");
    // A thread's namespace is its maker's.
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || carry(client));
        }
    });
}

fn carry(client: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut client = client;
    let (method, target) = request.split_once(' ').unwrap_or_default();
    let target = target.split(' ').next().unwrap_or_default();
    if method != "CONNECT" {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n");
    }
    let Ok(server) = TcpStream::connect(target) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (from_server, to_client) = (server.try_clone()?, client);
    thread::spawn(move || copy(from_server, to_client));
    copy(reader, server)
}

fn copy(mut from: impl Read, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
