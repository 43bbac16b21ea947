//! The real Linux as the judge: hand-made segments and fragments are written into a TUN device, a real socket
//! reads what the kernel makes of them, and the same packets go through decode, defrag and stream.
//!
//! Everything lives in a network namespace that one thread makes for itself and that vanishes with the thread.
//! Needs root and `/dev/net/tun`; prints NOT RUN otherwise. Addresses are of TEST-NET-1 and 2001:db8::/32.
//!
//! Two devices are used. On the *plain* one the kernel glues adjacent segments of its out-of-order queue
//! together whenever their memory allows. On the *shared* one a packet socket that nobody reads holds a clone of
//! every packet, which forbids gluing (`skb_try_coalesce`): there the kernel's reading is certain byte by byte.
#![allow(unsafe_code)] // unshare, ioctl and socket options: the test makes its own little network.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream as Socket, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use bulkhead_model::Timestamp;
use bulkhead_net::craft::{self, Segment};
use bulkhead_net::decode::{Decoded, Decoder, FrameMeta, LinkType, Packet, TcpFlags};
use bulkhead_net::flow::{Direction, Handshake};
use bulkhead_net::stream::{Phase, Reassembler, StreamConfig, StreamEnd, StreamSink, TcpStream};
use bulkhead_net::{Defrag, DefragConfig, Defragged};

const KERNEL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const KERNEL6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const PEER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
const PORT: u16 = 8080;

/// No test goes on longer; each must have done a least number of rounds by then.
const SECONDS_MAX: u64 = 6;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, max: u64) -> u64 {
        (self.next() >> 11) % max
    }
}

/// A TUN device in the thread's own namespace.
struct Wire {
    tun: File,
    /// Holds clones of all packets; never read.
    _tap: Option<OwnedFd>,
}

fn check(what: &str, result: i32) -> i32 {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
    result
}

fn ioctl<T>(fd: i32, what: &str, request: u64, argument: &mut T) {
    // SAFETY: every caller passes the structure that the request is defined for (netdevice(7), tun(4)).
    check(what, unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(argument)) });
}

/// `struct in6_ifreq` (linux/ipv6.h).
#[repr(C)]
struct In6Ifreq {
    addr: [u8; 16],
    prefix_len: u32,
    ifindex: i32,
}

const TUNSETIFF: u64 = 0x4004_54ca;
const UDP_NO_CHECK6_RX: i32 = 102;

impl Wire {
    fn new(shared: bool) -> Self {
        // SAFETY: plain system calls without pointers but to a local, initialised set.
        unsafe {
            check("unshare", libc::unshare(libc::CLONE_NEWNET));
            // One CPU, so that packets are taken in the order in which they are written.
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let cpu = libc::sched_getcpu();
            libc::CPU_SET(cpu.max(0) as usize, &mut set);
            check("sched_setaffinity", libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set));
        }
        let tun = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").expect("tun");
        // SAFETY: all-zero is a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"oracle0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        ioctl(tun.as_raw_fd(), "TUNSETIFF", TUNSETIFF, &mut request);

        // SAFETY: creates sockets that are owned from here on.
        let (inet, inet6) = unsafe {
            (
                OwnedFd::from_raw_fd(check("socket", libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))),
                OwnedFd::from_raw_fd(check("socket", libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0))),
            )
        };
        let address = |octets: [u8; 4]| {
            // SAFETY: all-zero is a valid `sockaddr_in`, which has the size of a `sockaddr`.
            unsafe {
                let mut sin: libc::sockaddr_in = std::mem::zeroed();
                sin.sin_family = libc::AF_INET as u16;
                sin.sin_addr.s_addr = u32::from_ne_bytes(octets);
                std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(sin)
            }
        };
        request.ifr_ifru.ifru_addr = address([192, 0, 2, 1]);
        ioctl(inet.as_raw_fd(), "SIOCSIFADDR", libc::SIOCSIFADDR, &mut request);
        request.ifr_ifru.ifru_netmask = address([255, 255, 255, 0]);
        ioctl(inet.as_raw_fd(), "SIOCSIFNETMASK", libc::SIOCSIFNETMASK, &mut request);
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        ioctl(inet.as_raw_fd(), "SIOCSIFFLAGS", libc::SIOCSIFFLAGS, &mut request);
        // SAFETY: the name ends with a zero.
        let ifindex = unsafe { libc::if_nametoindex(c"oracle0".as_ptr()) } as i32;
        let IpAddr::V6(kernel6) = KERNEL6 else { unreachable!("it is IPv6") };
        let mut request6 = In6Ifreq { addr: kernel6.octets(), prefix_len: 64, ifindex };
        ioctl(inet6.as_raw_fd(), "SIOCSIFADDR of IPv6", libc::SIOCSIFADDR, &mut request6);

        let tap = shared.then(|| {
            // SAFETY: a socket that is owned from here on, and an option of the size that is said.
            unsafe {
                let all = i32::from((libc::ETH_P_ALL as u16).to_be());
                let fd = OwnedFd::from_raw_fd(check("packet socket", libc::socket(libc::AF_PACKET, libc::SOCK_RAW, all)));
                let size: i32 = 512 << 20;
                let option = std::ptr::from_ref(&size).cast();
                check("SO_RCVBUFFORCE", libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, option, 4));
                fd
            }
        });
        Self { tun, _tap: tap }
    }

    fn write(&mut self, packet: &[u8]) {
        assert_eq!(self.tun.write(packet).expect("write to the device"), packet.len());
    }

    /// The next packet that the kernel sends, within `wait`.
    fn read(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + wait;
        let mut buffer = vec![0; 70_000];
        loop {
            match self.tun.read(&mut buffer) {
                Ok(len) => {
                    buffer.truncate(len);
                    return Some(buffer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let mut poll = libc::pollfd { fd: self.tun.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                    // SAFETY: one entry, as said.
                    unsafe { libc::poll(&mut poll, 1, left.as_millis().clamp(1, 1000) as i32) };
                }
                Err(error) => panic!("read from the device: {error}"),
            }
        }
    }

    /// Throws away what the kernel has sent.
    fn drain(&mut self) {
        while self.read(Duration::ZERO).is_some() {}
    }
}

/// Runs a test in a thread with its own namespace, or says why not.
fn on_a_wire(name: &str, shared: bool, test: impl FnOnce(&mut Wire) + Send + 'static) {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    if !root || !std::path::Path::new("/dev/net/tun").exists() {
        println!("NOT RUN: {name} (needs root and /dev/net/tun)");
        return;
    }
    // Whether namespaces and devices may be made is found out apart from the test.
    let allowed = std::thread::spawn(|| {
        // SAFETY: no pointers.
        unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
    });
    if !allowed.join().unwrap_or(false) {
        println!("NOT RUN: {name} (network namespaces are not allowed here)");
        return;
    }
    let thread = std::thread::spawn(move || test(&mut Wire::new(shared)));
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn try_decode(bytes: &[u8]) -> Option<Packet<'_>> {
    let meta = FrameMeta { link: LinkType::RawIp, ..FrameMeta::default() };
    match Decoder::default().frame(meta, bytes) {
        Decoded::Packet(packet) => Some(packet),
        Decoded::Ignored(..) | Decoded::Malformed(_) => None,
    }
}

fn decode(bytes: &[u8]) -> Packet<'_> {
    try_decode(bytes).expect("a packet")
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: Option<StreamEnd>,
}

impl StreamSink for Heard {
    fn data(&mut self, dir: Direction, _offset: u64, bytes: &[u8]) {
        assert_eq!(dir, Direction::ToServer);
        self.bytes.extend_from_slice(bytes);
    }

    fn gap(&mut self, _dir: Direction, _offset: u64, len: u64) {
        panic!("a gap of {len}");
    }

    fn end(&mut self, dir: Direction, how: StreamEnd) {
        if dir == Direction::ToServer {
            self.ended = Some(how);
        }
    }
}

/// One connection: the kernel's socket on one side, our stream on the other.
struct Connection {
    socket: Socket,
    reassembler: Reassembler,
    stream: TcpStream,
    heard: Heard,
    enforce: bool,
    port: u16,
    first: u32,
    ack: u32,
    /// Options of every segment: built from a time stamp.
    timestamp: Option<u32>,
    now: Timestamp,
}

impl Connection {
    fn open(wire: &mut Wire, listener: &TcpListener, port: u16, random: &mut Random, enforce: bool, timestamp: Option<u32>) -> Self {
        wire.drain();
        let first = (random.next() as u32) | if random.below(4) == 0 { 0xffff_ffe0 } else { 0 };
        let isn = first.wrapping_sub(1);
        let mut options = vec![2, 4, 5, 0xb4];
        options.extend(timestamp.map(stamp).unwrap_or_default());
        let base = Segment { src_port: port, dst_port: PORT, window: 60_000, ..Segment::default() };
        wire.write(&craft::tcp(PEER, KERNEL, &Segment { seq: isn, flags: TcpFlags::SYN, options: &options, ..base }));
        let ack = loop {
            let answer = wire.read(Duration::from_secs(2)).expect("a SYN/ACK");
            if let Some(packet) = try_decode(&answer)
                && let Some(tcp) = packet.tcp()
                && tcp.dst_port == port
                && tcp.flags.syn()
            {
                assert_eq!(tcp.options.timestamp.is_some(), timestamp.is_some());
                break tcp.seq.wrapping_add(1);
            }
        };
        let options = timestamp.map(stamp).unwrap_or_default();
        wire.write(&craft::tcp(PEER, KERNEL, &Segment { seq: first, ack, flags: TcpFlags::ACK, options: &options, ..base }));
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
        let reassembler = Reassembler::new(StreamConfig::default());
        let handshake = Handshake { source_is_client: true, client_next: Some(first), server_next: Some(ack) };
        let stream = reassembler.open(enforce, Some(&handshake));
        let mut connection = Self {
            socket,
            reassembler,
            stream,
            heard: Heard::default(),
            enforce,
            port,
            first,
            ack,
            timestamp,
            now: Timestamp::from_secs(1),
        };
        if timestamp.is_some() {
            // The segment that ended the handshake, for its time stamp.
            connection.take(0, TcpFlags::ACK, 0, &[]);
        }
        connection
    }

    fn bytes(&self, at: u32, flags: TcpFlags, urgent: u16, payload: &[u8], extra: &[u8]) -> Vec<u8> {
        let mut options = self.timestamp.map(stamp).unwrap_or_default();
        options.extend_from_slice(extra);
        let segment = Segment {
            src_port: self.port,
            dst_port: PORT,
            seq: self.first.wrapping_add(at),
            ack: self.ack,
            flags,
            window: 60_000,
            urgent,
            options: &options,
            payload,
        };
        craft::tcp(PEER, KERNEL, &segment)
    }

    /// Our side's view of a segment.
    fn take(&mut self, at: u32, flags: TcpFlags, urgent: u16, payload: &[u8]) -> bool {
        self.take_with(at, flags, urgent, payload, &[]).0
    }

    fn take_with(&mut self, at: u32, flags: TcpFlags, urgent: u16, payload: &[u8], extra: &[u8]) -> (bool, Vec<u8>) {
        let bytes = self.bytes(at, flags, urgent, payload, extra);
        let packet = decode(&bytes);
        assert!(!packet.checksum_invalid());
        let tcp = packet.tcp().expect("tcp");
        self.now = Timestamp(self.now.0 + 1_000_000);
        let outcome = self.reassembler.segment(&mut self.stream, self.now, Direction::ToServer, tcp, packet.payload, &mut self.heard);
        (outcome.passes(payload.len()), bytes)
    }

    /// To us and, if it passes or we only observe, to the kernel, unless it is lost on the way.
    fn send(&mut self, wire: &mut Wire, at: u32, flags: TcpFlags, urgent: u16, payload: &[u8], lost: bool) -> bool {
        let (passes, bytes) = self.take_with(at, flags, urgent, payload, &[]);
        if (passes || !self.enforce) && !lost {
            wire.write(&bytes);
        }
        passes
    }

    /// What the program reads until the end of the stream.
    fn read_all(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        self.socket.read_to_end(&mut read).expect("the stream to end");
        read
    }

    /// What the program can read now.
    fn read_now(&mut self) -> Vec<u8> {
        self.socket.set_nonblocking(true).expect("a flag");
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len) = self.socket.read(&mut buffer) {
            if len == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..len]);
        }
        read
    }

    /// The kernel forgets the connection at once.
    fn abort(self, wire: &mut Wire, at: u32) {
        let bytes = self.bytes(at, TcpFlags::RST | TcpFlags::ACK, 0, &[], &[]);
        wire.write(&bytes);
        wire.drain();
    }
}

fn stamp(value: u32) -> Vec<u8> {
    let mut option = vec![1, 1, 8, 10];
    option.extend_from_slice(&value.to_be_bytes());
    option.extend_from_slice(&[0; 4]);
    option
}

fn listener() -> TcpListener {
    TcpListener::bind((KERNEL, PORT)).expect("a listener")
}

fn payload(random: &mut Random, max: u64, letters: u64) -> Vec<u8> {
    (0..1 + random.below(max)).map(|_| b'a' + random.below(letters) as u8).collect()
}

const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags(0x11);

#[test]
fn overlapping_segments_are_read_as_the_kernel_reads_them() {
    on_a_wire("overlapping_segments_are_read_as_the_kernel_reads_them", true, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0001);
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let mut rounds = 0;
        while rounds < 400 && Instant::now() < until {
            let mut connection = Connection::open(wire, &listener, 10_000 + rounds, &mut random, false, None);
            let mut log = Vec::new();
            for _ in 0..3 + random.below(22) {
                let at = random.below(60) as u32;
                let bytes = payload(&mut random, 20, 26);
                let flags = if random.below(40) == 0 { FIN } else { ACK };
                log.push((at, flags.fin(), String::from_utf8_lossy(&bytes).into_owned()));
                connection.send(wire, at, flags, 0, &bytes, false);
            }
            // Whatever holes are left, and the end.
            connection.send(wire, 0, FIN, 0, &[b'-'; 90], false);
            let read = connection.read_all();
            assert_eq!(
                String::from_utf8_lossy(&connection.heard.bytes),
                String::from_utf8_lossy(&read),
                "round {rounds}, first sequence number {:#x}, segments {log:?}",
                connection.first
            );
            rounds += 1;
        }
        println!("{rounds} connections with overlaps");
        assert!(rounds >= 20, "only {rounds} rounds");
    });
}

#[test]
fn an_enforced_stream_reaches_the_program_as_it_was_judged() {
    on_a_wire("an_enforced_stream_reaches_the_program_as_it_was_judged", false, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0002);
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let (mut rounds, mut refused, mut read_early) = (0, 0, 0);
        while rounds < 400 && Instant::now() < until {
            let mut connection = Connection::open(wire, &listener, 10_000 + rounds, &mut random, true, None);
            let mut read = Vec::new();
            for _ in 0..3 + random.below(30) {
                let at = random.below(60) as u32;
                // Two letters, so that overlaps agree now and then.
                let bytes = payload(&mut random, 12, 2);
                let lost = random.below(3) == 0;
                refused += u32::from(!connection.send(wire, at, ACK, 0, &bytes, lost));
                read.extend(connection.read_now());
                assert!(connection.heard.bytes.starts_with(&read), "{read:?} was read, {:?} was judged", connection.heard.bytes);
            }
            read_early += read.len();
            // An honest sender repeats all that was judged, and ends.
            let judged = connection.heard.bytes.clone();
            connection.socket.set_nonblocking(false).expect("a flag");
            let waiting = connection.stream.is_waiting(Direction::ToServer);
            assert!(connection.send(wire, 0, ACK, 0, &judged, false) || judged.is_empty());
            if waiting {
                // What waits behind a hole that nobody fills is never read.
                read.extend(connection.read_now());
                assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(&judged));
                let at = judged.len() as u32;
                connection.abort(wire, at);
            } else {
                assert!(connection.send(wire, judged.len() as u32, FIN, 0, b"end", false));
                read.extend(connection.read_all());
                assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(&connection.heard.bytes));
            }
            rounds += 1;
        }
        println!("{rounds} enforced connections, {refused} segments refused, {read_early} bytes read on the way");
        assert!(rounds >= 20 && refused > 20 && read_early > 20);
    });
}

#[test]
fn old_time_stamps_are_discarded_as_the_kernel_discards_them() {
    on_a_wire("old_time_stamps_are_discarded_as_the_kernel_discards_them", true, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0003);
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let mut rounds = 0;
        while rounds < 200 && Instant::now() < until {
            let mut connection = Connection::open(wire, &listener, 10_000 + rounds, &mut random, false, Some(1000));
            let mut log = Vec::new();
            let mut next = 0;
            for _ in 0..2 + random.below(12) {
                // In order only: when the kernel has acknowledged is then known, and `ts_recent` with it.
                let bytes = payload(&mut random, 6, 26);
                let value = 995 + random.below(12) as u32 + next;
                connection.timestamp = Some(value);
                log.push((next, value, String::from_utf8_lossy(&bytes).into_owned()));
                connection.send(wire, next, ACK, 0, &bytes, false);
                wire.drain();
                next = connection.heard.bytes.len() as u32;
            }
            connection.timestamp = Some(5000);
            connection.send(wire, next, FIN, 0, b"end", false);
            let read = connection.read_all();
            assert_eq!(String::from_utf8_lossy(&connection.heard.bytes), String::from_utf8_lossy(&read), "round {rounds}: {log:?}");
            rounds += 1;
        }
        println!("{rounds} connections with time stamps");
        assert!(rounds >= 20);
    });
}

#[test]
fn the_urgent_byte_is_left_out_as_the_kernel_leaves_it_out() {
    on_a_wire("the_urgent_byte_is_left_out_as_the_kernel_leaves_it_out", true, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0004);
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let mut rounds = 0;
        while rounds < 200 && Instant::now() < until {
            let mut connection = Connection::open(wire, &listener, 10_000 + rounds, &mut random, false, None);
            let text = payload(&mut random, 60, 26);
            let announced = random.below(text.len() as u64) as usize;
            let mut at = 0;
            let mut log = Vec::new();
            while at < text.len() {
                let len = (1 + random.below(20) as usize).min(text.len() - at);
                let (flags, urgent) =
                    if at <= announced && announced < at + len { (TcpFlags::URG | ACK, random.below(70) as u16) } else { (ACK, 0) };
                log.push((at, len, urgent, flags.urg()));
                connection.send(wire, at as u32, flags, urgent, &text[at..at + len], false);
                at += len;
            }
            connection.send(wire, at as u32, FIN, 0, &[b'-'; 40], false);
            let read = connection.read_all();
            assert_eq!(String::from_utf8_lossy(&connection.heard.bytes), String::from_utf8_lossy(&read), "round {rounds}: {log:?}");
            rounds += 1;
        }
        println!("{rounds} connections with urgent bytes");
        assert!(rounds >= 20);
    });
}

#[test]
fn resets_count_where_the_kernel_counts_them() {
    on_a_wire("resets_count_where_the_kernel_counts_them", true, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0005);
        let (mut closed, mut open) = (0, 0);
        for round in 0..60 {
            let mut connection = Connection::open(wire, &listener, 10_000 + round, &mut random, false, None);
            connection.send(wire, 0, ACK, 0, b"abcdef", false);
            let waits = random.below(2) == 0;
            if waits {
                connection.send(wire, 10, ACK, 0, b"later", false);
            }
            // The very next, or something around it; never the edge of what waits, which counts with SACK only.
            let at = if random.below(2) == 0 { 6 } else { random.below(10) as u32 };
            connection.send(wire, at, TcpFlags::RST | ACK, 0, b"", false);
            connection.socket.set_nonblocking(true).expect("a flag");
            let error = connection.socket.take_error().expect("an option");
            let reset = error.is_some_and(|error| error.kind() == ErrorKind::ConnectionReset);
            assert_eq!(connection.stream.phase() == Phase::Closed, reset, "a reset at {at}, waiting: {waits}");
            if reset {
                closed += 1;
            } else {
                open += 1;
                connection.abort(wire, 6);
            }
        }
        assert!(closed >= 10 && open >= 10, "{closed} closed, {open} open");
    });
}

#[test]
fn segments_that_the_kernel_throws_away_are_not_heard() {
    on_a_wire("segments_that_the_kernel_throws_away_are_not_heard", true, |wire| {
        let listener = listener();
        let mut random = Random(0x5eed_0006);
        let signature = [19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 1];
        for round in 0..20 {
            let mut connection = Connection::open(wire, &listener, 10_000 + round, &mut random, false, None);
            connection.send(wire, 0, ACK, 0, b"abc", false);
            // No ACK; a SYN in the middle; an acknowledgement of what was never sent.
            connection.send(wire, 3, TcpFlags::PSH, 0, b"one", false);
            connection.send(wire, 3, TcpFlags::SYN, 0, b"two", false);
            let ack = connection.ack;
            connection.ack = ack.wrapping_add(5);
            connection.send(wire, 3, ACK, 0, b"three", false);
            // Of what was acknowledged long ago: discarded where header prediction is off, as it is while
            // something waits.
            connection.ack = ack;
            connection.send(wire, 30, ACK, 0, b"waits", false);
            connection.ack = ack.wrapping_sub(1 << 30).wrapping_sub(9);
            connection.send(wire, 3, ACK, 0, b"five", false);
            connection.ack = ack;
            let mut bytes = connection.bytes(3, ACK, 0, b"four", &[]);
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(decode(&bytes).checksum_invalid());
            wire.write(&bytes);
            // Signed, though nobody agreed to it. Told of only where the kernel was built with it.
            if round % 2 == 0 {
                let (_, bytes) = connection.take_with(90, ACK, 0, b"x", &signature);
                wire.write(&bytes);
            }
            connection.send(wire, 3, FIN, 0, b"def", false);
            let read = connection.read_all();
            assert_eq!(String::from_utf8_lossy(&connection.heard.bytes), String::from_utf8_lossy(&read));
            assert_eq!(read, b"abcdef");
        }
    });
}

/// Fragments of several datagrams at once, with overlaps, repetitions and wrong ends.
#[test]
fn fragments_are_put_together_as_the_kernel_puts_them_together() {
    on_a_wire("fragments_are_put_together_as_the_kernel_puts_them_together", false, |wire| {
        for (ours, theirs, seed) in [(PEER, KERNEL, 0x5eed_0007), (PEER6, KERNEL6, 0x5eed_0008)] {
            let socket = UdpSocket::bind((theirs, 9000)).expect("a socket");
            socket.set_nonblocking(true).expect("a flag");
            if theirs.is_ipv6() {
                let on: i32 = 1;
                let option = std::ptr::from_ref(&on).cast();
                // SAFETY: an option of the size that is said.
                let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_NO_CHECK6_RX, option, 4) };
                check("UDP_NO_CHECK6_RX", result);
            }
            let mut random = Random(seed);
            let mut defrag = Defrag::new(DefragConfig::default());
            let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
            let mut faults: BTreeMap<String, u32> = BTreeMap::new();
            let (mut rounds, mut whole) = (0u32, 0);
            // What is left over must stay below the kernel's `ipfrag_high_thresh`.
            while rounds < 700 && Instant::now() < until {
                // Ids of a round are its own: what is left over does not meet the next.
                let ids: Vec<u32> = (0..1 + random.below(3) as u32).map(|i| rounds * 3 + i + 1).collect();
                let body_len = 8 * (2 + random.below(8)) + random.below(8);
                let mut log = Vec::new();
                let (mut expected, mut got) = (Vec::new(), Vec::new());
                for _ in 0..2 + random.below(14) {
                    let id = ids[random.below(ids.len() as u64) as usize];
                    // Mostly a proper cut of the datagram, sometimes anything.
                    let (offset, end, more) = if random.below(8) > 0 {
                        let from = 8 * random.below(body_len / 8);
                        let to = (from + 8 * (1 + random.below(4))).min(body_len);
                        (from, to, to != body_len)
                    } else {
                        let from = 8 * random.below(14);
                        (from, from + random.below(40), random.below(3) > 0)
                    };
                    let mut piece: Vec<u8> = (offset..end).map(|_| b'a' + random.below(26) as u8).collect();
                    if random.below(2) == 0 {
                        // The same bytes whenever: repetitions that agree.
                        piece = (offset..end).map(|at| b'A' + (at % 26) as u8).collect();
                    }
                    if offset == 0 {
                        // A UDP header without checksum, and with the length it should have.
                        let head = [0x10, 0, 0x23, 0x28, 0, body_len as u8, 0, 0];
                        let len = piece.len().min(8);
                        piece[..len].copy_from_slice(&head[..len]);
                    }
                    let bytes = craft::fragment(ours, theirs, 17, id, offset as u16, more, &piece);
                    log.push((id, offset, end, more));
                    wire.write(&bytes);
                    // Neither offset nor more: a datagram of its own, perhaps a malformed one.
                    let Some(packet) = try_decode(&bytes) else { continue };
                    if packet.ip.fragment.is_none() {
                        if packet.ports().1 == 9000 {
                            expected.push(packet.payload.to_vec());
                        }
                        continue;
                    }
                    match defrag.fragment(Timestamp::from_secs(1), 0, &packet, false) {
                        Defragged::Whole(datagram) => {
                            if let Decoded::Packet(packet) = Decoder::default().datagram(&packet, datagram)
                                && packet.ports().1 == 9000
                            {
                                expected.push(packet.payload.to_vec());
                                whole += 1;
                            }
                        }
                        other => *faults.entry(format!("{other:?}")).or_default() += 1,
                    }
                }
                let mut buffer = [0; 2000];
                while let Ok(len) = socket.recv(&mut buffer) {
                    got.push(buffer[..len].to_vec());
                }
                assert_eq!(
                    expected.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>(),
                    got.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>(),
                    "round {rounds}, datagrams of {body_len} bytes, fragments (id, from, to, more): {log:?}"
                );
                rounds += 1;
                wire.drain();
            }
            println!("{rounds} rounds of fragments from {ours}: {whole} datagrams, {faults:?}");
            assert!(rounds >= 100 && whole >= 50, "{rounds} rounds, {whole} datagrams");
        }
    });
}

/// `ip_frag_too_far`: how many fragments of others make a datagram begin anew.
#[test]
fn a_datagram_begins_anew_where_the_kernel_begins_anew() {
    on_a_wire("a_datagram_begins_anew_where_the_kernel_begins_anew", false, |wire| {
        let socket = UdpSocket::bind((KERNEL, 9000)).expect("a socket");
        socket.set_nonblocking(true).expect("a flag");
        let mut defrag = Defrag::new(DefragConfig::default());
        let mut anew = 0;
        for between in 58..70u32 {
            let mut send = |id: u32, offset: u16, more: bool, piece: &[u8]| {
                let bytes = craft::fragment(PEER, KERNEL, 17, id, offset, more, piece);
                wire.write(&bytes);
                match defrag.fragment(Timestamp::from_secs(1), 0, &decode(&bytes), false) {
                    Defragged::Whole(whole) => Some(whole[28..].to_vec()),
                    _ => None,
                }
            };
            let id = between * 100;
            let head = [0x10, 0, 0x23, 0x28, 0, 24, 0, 0];
            send(id, 0, true, &[&head[..], b"original"].concat());
            for other in 1..=between {
                send(id + other, 8, true, b"whatever");
            }
            send(id, 0, true, &[&head[..], b"replaced"].concat());
            let ours = send(id, 16, false, b"the end.");
            let mut buffer = [0; 100];
            let theirs = socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec());
            assert_eq!(ours, theirs, "{between} fragments between");
            anew += u32::from(ours.is_some_and(|bytes| bytes.starts_with(b"replaced")));
        }
        assert!((1..12).contains(&anew), "{anew} of 12");
    });
}
