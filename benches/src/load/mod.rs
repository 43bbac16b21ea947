//! Generators of load. Each sends from the client's namespace to the server's for a stated time, ends by itself, and gives
//! what arrived, not what was sent.

pub mod bulk;
pub mod datagrams;
pub mod http;
pub mod pingpong;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_lab::fabric::Node;

use crate::Error;

/// What a load runs between.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    pub client: &'a Node,
    pub server: &'a Node,
}

/// How long a peer of ours may take to connect or to send its last byte.
const PATIENCE: Duration = Duration::from_secs(5);

impl Ends<'_> {
    pub fn server_at(&self, port: u16) -> SocketAddr {
        (self.server.v4, port).into()
    }
}

/// A connection of our own, both ends at once; the listener is gone when it returns.
fn connect(ends: &Ends<'_>, listener: &TcpListener, port: u16) -> Result<(TcpStream, TcpStream), Error> {
    let target = ends.server_at(port);
    let client = ends.client.run(|| TcpStream::connect_timeout(&target, PATIENCE))?.map_err(Error::io("connect to our own server"))?;
    let server = accept(listener).map_err(Error::io("accept our own client"))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).map_err(Error::io("set up a connection"))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(Error::io("set up a connection"))?;
    }
    Ok((client, server))
}

/// The listener is non-blocking, so that a client whose handshake is lost on the way does not hang us.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
}

fn listen(ends: &Ends<'_>, port: u16) -> Result<TcpListener, Error> {
    let address = ends.server_at(port);
    let listener = ends.server.run(|| TcpListener::bind(address))?.map_err(Error::io("listen in a namespace"))?;
    listener.set_nonblocking(true).map_err(Error::io("listen in a namespace"))?;
    Ok(listener)
}

/// Does somebody listen on this TCP port of the node? From the kernel's table, so that no connection is spent on asking.
fn listens(node: &Node, port: u16) -> bool {
    let table = node.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
    matches!(table, Ok(Ok(table)) if lists_listener(&table, port))
}

/// `sl local_address rem_address st …`, numbers in hexadecimal; 0A is `TCP_LISTEN` (`proc_net_tcp.rst`).
fn lists_listener(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 037100CB:1F90 00000000:0000 0A 0\n   1: 037100CB:1F91 027100CB:9C40 01 0\n";
        assert!(lists_listener(table, 8080));
        assert!(!lists_listener(table, 8081) && !lists_listener(table, 80) && !lists_listener("", 8080));
    }
}
