//! Senders and receivers of known bytes, running inside namespaces. Every wait ends after [`PATIENCE`].

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_sys::netlink::Netlink;
use bulkhead_sys::netns::Netns;
use bulkhead_sys::rawpkt::PacketSocket;

use crate::net::{Node, check_target};

/// How long a sender or receiver waits before it gives up. Tests that expect silence use [`SILENCE`].
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a test waits before it believes that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(400);

/// `len` bytes that depend on `seed` and never repeat a run of 8: a lost, doubled or swapped block shows.
pub fn known_bytes(seed: u64, len: usize) -> Vec<u8> {
    // splitmix64 (Steele, Lea, Flood 2014): a different word for each counter
    let word = |n: u64| {
        let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len.div_ceil(8) as u64).flat_map(|n| word(n).to_le_bytes()).take(len).collect()
}

/// How a sender cuts its bytes into writes (each goes out as a segment of its own: Nagle is off, with a pause between).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    Whole,
    /// At these offsets.
    At(Vec<usize>),
    EachByte,
}

/// Connects from inside `from`, sends, shuts its side down, and gives what the other side answered until it closed.
///
/// # Errors
/// The socket's: refused, reset, timed out (after [`PATIENCE`], or `patience` for the connection).
///
/// # Panics
/// When the target is no test address.
pub fn tcp_exchange(from: &Netns, to: SocketAddr, bytes: &[u8], writes: &Writes, patience: Duration) -> std::io::Result<Vec<u8>> {
    check_target(to.ip());
    run(from, || {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let cuts: Vec<usize> = match writes {
            Writes::Whole => Vec::new(),
            Writes::At(cuts) => cuts.clone(),
            Writes::EachByte => (1..bytes.len()).collect(),
        };
        let mut at = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            if at > 0 {
                std::thread::sleep(Duration::from_millis(2)); // lets the last write leave as its own segment
            }
            stream.write_all(&bytes[at..cut])?;
            at = cut;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    })
}

/// One HTTP/1.0 request; gives the whole answer as text.
///
/// # Errors
/// As [`tcp_exchange`].
pub fn http_get(from: &Netns, to: SocketAddr, target: &str) -> std::io::Result<String> {
    let request = format!("GET {target} HTTP/1.0\r\nHost: lab\r\n\r\n");
    let answer = tcp_exchange(from, to, request.as_bytes(), &Writes::Whole, PATIENCE)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends each datagram from one socket inside `from`.
///
/// # Errors
/// The socket's.
///
/// # Panics
/// When the target is no test address.
pub fn udp_send(from: &Netns, to: SocketAddr, datagrams: &[&[u8]]) -> std::io::Result<()> {
    check_target(to.ip());
    run(from, || {
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        datagrams.iter().try_for_each(|d| socket.send_to(d, to).map(drop))
    })
}

/// What a receiver does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Reads to the end and closes.
    Sink,
    /// Sends everything back.
    Echo,
    /// Reads to the end and answers with a page.
    Page,
}

/// A server inside a namespace, which keeps what it got. Stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    pub port: u16,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on all addresses of the namespace, both families; port 0 takes a free one. Serves connections side by side.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn tcp(at: &Netns, port: u16, service: Service) -> Self {
        let listener = run(at, || TcpListener::bind(("::", port))).unwrap_or_else(|e| panic!("cannot listen on port {port}: {e}"));
        let port = listener.local_addr().map_or(port, |a| a.port());
        let told = listener.set_nonblocking(true);
        told.unwrap_or_else(|e| panic!("cannot set up a listener: {e}"));
        Self::start(port, move |got, stop| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (got, stop) = (Arc::clone(got), Arc::clone(stop));
                        std::thread::spawn(move || serve(stream, service, &got, &stop));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)), // nobody is waiting
                }
            }
        })
    }

    /// Takes datagrams on all addresses of the namespace, both families.
    ///
    /// # Panics
    /// When it cannot bind.
    pub fn udp(at: &Netns, port: u16, service: Service) -> Self {
        let socket = run(at, || UdpSocket::bind(("::", port))).unwrap_or_else(|e| panic!("cannot bind port {port}: {e}"));
        let port = socket.local_addr().map_or(port, |a| a.port());
        let told = socket.set_read_timeout(Some(Duration::from_millis(50)));
        told.unwrap_or_else(|e| panic!("cannot set up a socket: {e}"));
        Self::start(port, move |got, stop| {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                let bytes = buffer[..n].to_vec();
                if service == Service::Echo {
                    let _ = socket.send_to(&bytes, from); // the sender may be gone
                }
                lock(got).push(bytes);
            }
        })
    }

    /// Whole frames of one interface inside the namespace, incoming ones only.
    ///
    /// # Panics
    /// When the interface cannot be opened.
    pub fn frames(at: &Netns, ifindex: u32) -> Self {
        let socket = PacketSocket::open_in(at, ifindex).unwrap_or_else(|e| panic!("{e}"));
        Self::start(0, move |got, stop| {
            while !stop.load(Ordering::Relaxed) {
                match socket.receive_where(Duration::from_millis(50), |_| true) {
                    Ok(Some(frame)) => lock(got).push(frame),
                    Ok(None) => {}
                    Err(_) => break, // the interface is gone
                }
            }
        })
    }

    /// What came so far: one entry for each finished connection, datagram or frame.
    pub fn got(&self) -> Vec<Vec<u8>> {
        lock(&self.got).clone()
    }

    /// Waits for `count` entries.
    ///
    /// # Panics
    /// When they do not come within [`PATIENCE`].
    pub fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        crate::wait_until(&format!("{count} messages at port {}", self.port), PATIENCE, || lock(&self.got).len() >= count);
        self.got()
    }

    /// Waits until an entry holds `needle`; false after `patience`.
    pub fn saw(&self, needle: &[u8], patience: Duration) -> bool {
        let end = Instant::now() + patience;
        loop {
            if lock(&self.got).iter().any(|m| contains(m, needle)) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn start(port: u16, work: impl FnOnce(&Arc<Mutex<Vec<Vec<u8>>>>, &Arc<AtomicBool>) + Send + 'static) -> Self {
        let (got, stop) = (Arc::default(), Arc::default());
        let (their_got, their_stop) = (Arc::clone(&got), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || work(&their_got, &their_stop)));
        Self { port, got, stop, thread }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

/// A conversation over one connection: a line there, the same line back, and the next.
#[derive(Debug)]
pub struct Talk {
    stream: TcpStream,
    said: u64,
}

impl Talk {
    /// # Errors
    /// The socket's: refused, or no answer within [`PATIENCE`].
    ///
    /// # Panics
    /// When the target is no test address.
    pub fn open(from: &Netns, to: SocketAddr) -> std::io::Result<Self> {
        check_target(to.ip());
        let stream = run(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, said: 0 })
    }

    /// One line there and back; gives how long it took.
    ///
    /// # Errors
    /// The socket's; also when something else came back.
    pub fn say(&mut self) -> std::io::Result<Duration> {
        let begun = Instant::now();
        self.said += 1;
        let line = format!("line {:08}\n", self.said);
        self.stream.write_all(line.as_bytes())?;
        let mut back = vec![0; line.len()];
        self.stream.read_exact(&mut back)?;
        if back == line.as_bytes() { Ok(begun.elapsed()) } else { Err(std::io::Error::other("another line came back")) }
    }

    /// Sends what nobody has to answer.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }
}

/// What a thread beside the test has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Answers to a line, or connections that were answered.
    pub answers: u64,
    pub failures: Vec<String>,
    /// The longest that one of them took.
    pub longest: Duration,
}

impl Seen {
    fn note(&mut self, took: std::io::Result<Duration>) {
        match took {
            Ok(took) => {
                self.answers += 1;
                self.longest = self.longest.max(took);
            }
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

/// Traffic that goes on beside the test until it is told to end.
#[derive(Debug)]
pub struct Beside {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// One connection over which line after line is said, every two milliseconds.
    ///
    /// # Panics
    /// When there is no connection.
    pub fn talk(from: &Netns, to: SocketAddr) -> Self {
        let mut talk = Talk::open(from, to).unwrap_or_else(|e| panic!("cannot connect to {to}: {e}"));
        Self::start(from, Duration::from_millis(2), move |seen, _| {
            let took = talk.say();
            let over = took.is_err();
            lock(seen).note(took);
            !over
        })
    }

    /// A new connection and one line over it, every twenty milliseconds.
    pub fn connect(from: &Netns, to: SocketAddr) -> Self {
        Self::start(from, Duration::from_millis(20), move |seen, from| {
            let begun = Instant::now();
            let took = Talk::open(from, to).and_then(|mut talk| talk.say()).map(|_| begun.elapsed());
            lock(seen).note(took);
            true
        })
    }

    /// A datagram of a new flow every millisecond; what becomes of it shows at the receiver only.
    pub fn datagrams(from: &Netns, to: SocketAddr, bytes: &'static [u8]) -> Self {
        Self::start(from, Duration::from_millis(1), move |seen, from| {
            if udp_send(from, to, &[bytes]).is_ok() {
                lock(seen).answers += 1;
            }
            true
        })
    }

    /// So far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// From here on the longest time begins anew.
    pub fn forget_longest(&self) -> Duration {
        std::mem::take(&mut lock(&self.seen).longest)
    }

    /// Ends it.
    pub fn end(mut self) -> Seen {
        self.finish();
        self.seen()
    }

    fn start(from: &Netns, pause: Duration, mut step: impl FnMut(&Mutex<Seen>, &Netns) -> bool + Send + 'static) -> Self {
        let from = from.try_clone().unwrap_or_else(|e| panic!("{e}"));
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let (theirs, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = Some(std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) && step(&theirs, &from) {
                std::thread::sleep(pause);
            }
        }));
        Self { seen, stop, thread }
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Sends frames as they are out of the node's `eth0`.
///
/// # Panics
/// When the kernel refuses.
pub fn send_frames(from: &Node, frames: &[Vec<u8>]) {
    let socket = PacketSocket::open_in(&from.netns, from.ifindex).unwrap_or_else(|e| panic!("{e}"));
    for frame in frames {
        socket.send(frame).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Bytes that crossed an interface so far `(in, out)`, as the kernel counts them.
///
/// # Panics
/// When there is no such interface.
pub fn link_bytes(at: &Netns, ifindex: u32) -> (u64, u64) {
    let link = Netlink::open_in(at).and_then(|mut n| n.link(ifindex));
    let stats = link.ok().flatten().unwrap_or_else(|| panic!("no interface {ifindex}")).stats;
    (stats.rx_bytes, stats.tx_bytes)
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|w| w == needle)
}

fn serve(mut stream: TcpStream, service: Service, got: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    let set = [stream.set_nonblocking(false), stream.set_nodelay(true), stream.set_read_timeout(Some(Duration::from_millis(100)))];
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut sound = set.iter().all(Result::is_ok);
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nserved";
    while sound && !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => {
                if service == Service::Page {
                    let _ = stream.write_all(page); // the other side may be gone
                }
                break;
            }
            Ok(n) => {
                bytes.extend_from_slice(&buffer[..n]);
                sound = service != Service::Echo || stream.write_all(&buffer[..n]).is_ok();
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    lock(got).push(bytes);
}

fn run<T: Send>(at: &Netns, work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    at.run(work).map_err(|e| std::io::Error::other(e.to_string()))?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
