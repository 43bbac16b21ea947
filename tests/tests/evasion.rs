//! The evasion lab: segments and fragments of every crooked kind, sent by raw socket from one namespace to a program that reads a
//! real Linux socket in another, through the agent in `protect`. What the program read is what the engine judged, all of it, and a
//! planted match never reaches it.
//!
//! **How what was judged is seen from outside.** A stream is twelve cells of four bytes, `<a1><b1>…<l1>`. Every byte is told by its
//! place but the third of each cell, which tells the version of the segment that brought it; a rule for each cell and version alerts.
//! So the alerts of a connection spell the engine's stream, wherever segments were cut and whichever of two overlapping ones won.
//! Version 9 is the planted match.
//!
//! Cases are made from a seed, played side by side in batches, and compared at the end with `eve.json`. `EVASION_CASES` and
//! `EVASION_SEED` in the environment make a longer or another run, `EVASION_ONLY` plays one case of it, and `EVASION_REPORT` names a
//! file for all that failed, each with what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bulkhead_kit::agent::{Agent, AgentPlan};
use bulkhead_kit::dice::Dice;
use bulkhead_kit::net::{self, Net, Node};
use bulkhead_kit::packet::{self, ACK, Ends, FIN, Ipv4, Ipv6, PSH, RST, SYN, Tcp, URG};
use bulkhead_kit::traffic::{PATIENCE, SILENCE, contains, send_frames};
use bulkhead_kit::{root_or_not_run, wait_until};
use bulkhead_sys::iptables::{self, Family};
use bulkhead_sys::rawpkt::PacketSocket;

const PORT: u16 = 8080;
const CELLS: usize = 12;
const LENGTH: usize = CELLS * 4;
const PLANTED: u8 = 9;
const BATCH: usize = 48;
/// A busy machine must not make a test fail open.
const CONFIG: &str = "mode: protect\nfail-after: 60 s\n";
/// For `./test`; a run by hand takes what it is told.
const CASES: usize = 1_200;

fn rules() -> String {
    let mut text = format!("drop ip any any -> any any (msg:\"planted\"; content:\"{PLANTED}>\"; sid:9000; rev:1;)\n");
    for protocol in ["tcp", "udp"] {
        let side = if protocol == "tcp" { " flow:to_server,established;" } else { "" };
        for cell in 0..CELLS {
            for version in 1..=3 {
                let sid = sid(cell, version, protocol == "udp");
                let name = char::from(b'a' + cell as u8);
                let _ = writeln!(
                    text,
                    "alert {protocol} any any -> any {PORT} (msg:\"{name}{version}\";{side} content:\"<{name}{version}>\"; sid:{sid}; rev:1;)"
                );
            }
        }
    }
    text
}

const fn sid(cell: usize, version: u8, udp: bool) -> u32 {
    1000 + cell as u32 * 10 + version as u32 + if udp { 1000 } else { 0 }
}

/// The bytes of one version.
fn text(version: u8) -> Vec<u8> {
    (0..CELLS).flat_map(|cell| [b'<', b'a' + cell as u8, b'0' + version, b'>']).collect()
}

/// The cells that stand in what a program read.
fn cells(bytes: &[u8]) -> BTreeSet<(usize, u8)> {
    let whole = bytes.windows(4).filter(|w| w[0] == b'<' && w[3] == b'>' && w[1].is_ascii_lowercase() && w[2].is_ascii_digit());
    whole.map(|w| (usize::from(w[1] - b'a'), w[2] - b'0')).collect()
}

/// What a case may contain, and with it what must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Whatever the receiver will hear agrees; beside it stands what no receiver hears. The stream arrives whole.
    Agrees,
    /// Overlaps that differ. What arrives is what was judged.
    Differs,
    /// As before, and some of it is the planted match.
    Planted,
    /// What only the way to the receiver throws away: judged, perhaps, and never read.
    Lost,
}

/// How a segment is put into IP packets.
#[derive(Debug, Clone, Default)]
struct Wrap {
    /// IPv4 options or IPv6 extension headers.
    extra: Extra,
    /// Which of the kinds of these.
    kind: usize,
    /// Cut into fragments of this many bytes (a multiple of 8), sent in an order.
    fragments: Option<(usize, Order)>,
    hops: Option<u8>,
    /// Spoil the sum of the IPv4 header.
    bad_sum: bool,
    to_nobody: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Extra {
    #[default]
    None,
    /// A receiver takes it: padding.
    Padding,
    /// A receiver throws the packet away: an IPv6 option of a kind that says so.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Straight,
    Reversed,
    Doubled,
}

/// One thing that is sent. Offsets are of the stream.
#[derive(Debug, Clone)]
struct Act {
    from: i64,
    bytes: Vec<u8>,
    flags: u8,
    ack_off: i64,
    urgent: u16,
    window: u16,
    old_stamp: bool,
    bad_sum: bool,
    doff: Option<u8>,
    options: Vec<u8>,
    wrap: Wrap,
    /// With the addresses and ports of the other side.
    forged: bool,
}

impl Act {
    fn data(from: usize, to: usize, version: u8) -> Self {
        Self::at(from as i64, text(version)[from..to].to_vec(), ACK)
    }

    fn at(from: i64, bytes: Vec<u8>, flags: u8) -> Self {
        Self {
            from,
            bytes,
            flags,
            ack_off: 0,
            urgent: 0,
            window: 64_240,
            old_stamp: false,
            bad_sum: false,
            doff: None,
            options: Vec::new(),
            wrap: Wrap::default(),
            forged: false,
        }
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = Self::at(self.from, Vec::new(), ACK);
        write!(out, "{:>3} {:?}", self.from, String::from_utf8_lossy(&self.bytes))?;
        let names = [(FIN, "FIN"), (SYN, "SYN"), (RST, "RST"), (PSH, "PSH"), (URG, "URG")];
        names.iter().filter(|(flag, _)| self.flags & flag != 0).try_for_each(|(_, name)| write!(out, " {name}"))?;
        for (odd, what) in [
            (self.flags & ACK == 0, "without ACK"),
            (self.old_stamp, "old time stamp"),
            (self.bad_sum, "wrong sum"),
            (self.wrap.bad_sum, "wrong sum of the header"),
            (self.wrap.to_nobody, "to a stranger's MAC"),
            (self.forged, "forged"),
        ] {
            if odd {
                write!(out, ", {what}")?;
            }
        }
        let told = [
            (self.ack_off != plain.ack_off, format!("ack off by {}", self.ack_off)),
            (self.urgent != 0, format!("urgent {}", self.urgent)),
            (self.window != plain.window, format!("window {}", self.window)),
            (self.doff.is_some(), format!("header words {:?}", self.doff)),
            (!self.options.is_empty(), format!("options {:02x?}", self.options)),
            (self.wrap.extra != Extra::None, format!("{:?} {}", self.wrap.extra, self.wrap.kind)),
            (self.wrap.fragments.is_some(), format!("fragments {:?}", self.wrap.fragments)),
            (self.wrap.hops.is_some(), format!("hops {:?}", self.wrap.hops)),
        ];
        told.iter().filter(|(odd, _)| *odd).try_for_each(|(_, what)| write!(out, ", {what}"))
    }
}

#[derive(Debug)]
struct Case {
    number: usize,
    class: Class,
    six: bool,
    stamps: bool,
    port: u16,
    first: u32,
    ack: Option<u32>,
    /// Data in the SYN itself.
    syn: Vec<u8>,
    acts: Vec<Act>,
    /// The stream is ended by a segment that resets it.
    cut: bool,
    read: Vec<u8>,
    ended: bool,
}

/// Everything a receiver hears, in tiny or large pieces, in any order, some of it twice.
fn heard(dice: &mut Dice, versions: &[u8]) -> Vec<Act> {
    let mut acts = Vec::new();
    let most = *dice.pick(&[1, 3, 8, 20, LENGTH]);
    let mut from = 0;
    while from < LENGTH {
        let to = (from + 1 + dice.below(most)).min(LENGTH);
        acts.push(Act::data(from, to, *dice.pick(versions)));
        from = to;
    }
    for _ in 0..dice.below(8) {
        let from = dice.below(LENGTH);
        let to = (from + 1 + dice.below(24)).min(LENGTH);
        acts.push(Act::data(from, to, *dice.pick(versions)));
    }
    if dice.once_in(2) {
        // A few places apart, or anywhere.
        let far = *dice.pick(&[2, 5, 50]);
        for at in (1..acts.len()).rev() {
            let other = at.saturating_sub(dice.below(far));
            acts.swap(at, other);
        }
    }
    for act in &mut acts {
        if dice.once_in(6) {
            act.flags |= PSH;
        }
        if dice.once_in(8) {
            act.window = *dice.pick(&[0, 1, 7]);
        }
        if dice.once_in(8) {
            act.wrap.extra = Extra::Padding;
            act.wrap.kind = dice.below(4);
        }
        if dice.once_in(10) {
            act.wrap.fragments = Some((8 * (1 + dice.below(3)), *dice.pick(&[Order::Straight, Order::Reversed, Order::Doubled])));
        }
        if dice.once_in(12) {
            act.options = dice.pick(&[&[1, 1, 1, 1][..], &[254, 4, 9, 9], &[5, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[8, 4, 0, 0]]).to_vec();
        }
    }
    acts
}

/// What no receiver hears: its bytes are those of another version.
fn unheard(dice: &mut Dice, class: Class, stamps: bool, six: bool) -> Act {
    let version = *dice.pick(&[2, 3]);
    let from = dice.below(LENGTH - 4);
    let mut act = Act::data(from, (from + 4 + dice.below(20)).min(LENGTH), version);
    match dice.below(11) {
        0 => act.bad_sum = true,
        1 => act.flags = PSH,
        2 => act.ack_off = 1 + dice.below(100_000) as i64,
        3 => act.from += 1 << 30,
        4 => act.from -= 1 << 20,
        5 => act.flags |= SYN,
        6 => act.doff = Some(*dice.pick(&[0, 4, 15])),
        7 => {
            act.flags |= RST;
            act.from = 5_000_000 + dice.below(1000) as i64;
        }
        // What the ends agreed upon in their SYNs is not known where SYNs are not held.
        8 if stamps && class != Class::Agrees => act.old_stamp = true,
        9 if !six && dice.once_in(2) => act.wrap.bad_sum = true,
        9 => {
            act.wrap.extra = Extra::Refused;
            act.wrap.kind = dice.below(4);
        }
        // Signed though nobody asked for it (RFC 2385).
        10 if class != Class::Agrees => act.options = vec![19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        _ => act.bad_sum = true,
    }
    act
}

/// In the other side's name, from this side's interface: nobody but the hook sees it.
fn forged(dice: &mut Dice) -> Act {
    let flags = *dice.pick(&[ACK, ACK, RST, RST | ACK, FIN | ACK, SYN | ACK, PSH | ACK]);
    let bytes = if dice.once_in(2) { b"from nobody".to_vec() } else { Vec::new() };
    Act { ack_off: dice.below(60) as i64, forged: true, ..Act::at(0, bytes, flags) }
}

impl Case {
    fn new(number: usize, seed: u64, routed: bool) -> Self {
        let mut dice = Dice::new(seed.wrapping_add(number as u64));
        let class = *dice.pick(&[Class::Agrees, Class::Agrees, Class::Differs, Class::Differs, Class::Planted, Class::Lost]);
        let (six, stamps) = (dice.once_in(3), dice.once_in(3));
        let versions: &[u8] = match class {
            Class::Agrees | Class::Lost => &[1],
            Class::Differs => &[1, 2, 3],
            Class::Planted => &[1, 2, PLANTED],
        };
        let mut acts = heard(&mut dice, versions);
        let mut put = |dice: &mut Dice, act: Act| {
            let at = dice.below(acts.len() + 1);
            acts.insert(at, act);
        };
        for _ in 0..dice.below(6) {
            let act = unheard(&mut dice, class, stamps, six);
            put(&mut dice, act);
        }
        if dice.once_in(4) {
            let act = forged(&mut dice);
            put(&mut dice, act);
        }
        if class != Class::Agrees && dice.once_in(6) {
            let from = dice.below(LENGTH - 8);
            let act = Act { flags: ACK | URG, urgent: dice.below(30) as u16, ..Act::data(from, from + 8, 1) };
            put(&mut dice, act);
        }
        if class == Class::Lost {
            for _ in 0..1 + dice.below(4) {
                let from = dice.below(LENGTH - 8);
                let mut act = Act::data(from, from + 8, *dice.pick(&[2, 3]));
                if routed && dice.once_in(2) {
                    act.wrap.hops = Some(1);
                } else {
                    act.wrap.to_nobody = true;
                }
                put(&mut dice, act);
            }
        }
        let cut = class == Class::Differs && dice.once_in(4);
        if class == Class::Differs && dice.once_in(4) {
            // An end with data, in the middle or where it belongs.
            let from = dice.below(LENGTH - 4);
            let act = Act { flags: FIN | ACK, ..Act::data(from, from + 4, 2) };
            put(&mut dice, act);
        }
        // Judged, as a receiver may be set to take it; one that is not set so takes the same bytes when they come again.
        let syn = if dice.once_in(5) { text(*dice.pick(&versions[..versions.len().min(2)]))[..8].to_vec() } else { Vec::new() };
        let first = dice.word() as u32 | if dice.once_in(4) { 0xffff_ffe0 } else { 0 };
        Self { number, class, six, stamps, port: 1025 + number as u16, first, ack: None, syn, acts, cut, read: Vec::new(), ended: false }
    }

    /// All of it again, in order, as a sender does that was not acknowledged, and the end.
    fn honest(&self) -> Vec<Act> {
        let again = Act::data(0, LENGTH, 1);
        if self.cut { vec![again] } else { vec![again, Act::at(LENGTH as i64, Vec::new(), FIN | ACK)] }
    }

    fn stamp(&self, old: bool) -> Vec<u8> {
        if !self.stamps {
            return Vec::new();
        }
        let value: u32 = if old { 0x1000_0000 } else { 0x2000_0000 };
        [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[0; 4]].concat()
    }

    fn frames(&self, act: &Act, ends: &Ends, id: u16) -> Vec<Vec<u8>> {
        let (seq, ack) = (self.first.wrapping_add(act.from as u32), self.ack.unwrap_or_default().wrapping_add(act.ack_off as u32));
        let options = [self.stamp(act.old_stamp), act.options.clone()].concat();
        let plain = Tcp { seq, ack, flags: act.flags, window: act.window, urgent: act.urgent, options, ..Tcp::new(self.port, PORT, ACK) };
        let (ends, tcp) = if act.forged {
            // The addresses only: on the wire it comes from where it comes from.
            let back = Ends { src: ends.dst, dst: ends.src, ..*ends };
            (back, Tcp { src_port: PORT, dst_port: self.port, seq: ack, ack: seq.wrapping_add(act.ack_off as u32), ..plain })
        } else {
            (*ends, plain)
        };
        let mut segment = ends.tcp(&tcp, &act.bytes);
        if act.bad_sum {
            segment[16] ^= 0x55;
        }
        if let Some(words) = act.doff {
            segment[12] = words << 4;
            segment[16..18].copy_from_slice(&[0, 0]);
            let sum = packet::transport_checksum(ends.src, ends.dst, packet::TCP, &segment);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        wrapped(&act.wrap, &ends, packet::TCP, &segment, id)
    }

    fn told(&self, acts: &[Act]) -> String {
        let mut told = format!(
            "case {} ({:?}, six: {}, stamps: {}, port {}), SYN with {:?}\n",
            self.number,
            self.class,
            self.six,
            self.stamps,
            self.port,
            String::from_utf8_lossy(&self.syn)
        );
        for act in acts {
            let _ = writeln!(told, "  {act}");
        }
        told
    }
}

/// The frames of one IP payload.
fn wrapped(wrap: &Wrap, ends: &Ends, protocol: u8, payload: &[u8], id: u16) -> Vec<Vec<u8>> {
    let lengths: Vec<usize> = wrap.fragments.map_or_else(Vec::new, |(size, _)| vec![size; payload.len().saturating_sub(1) / size]);
    let mut packets = match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options = match wrap.extra {
                Extra::None => Vec::new(),
                Extra::Padding => vec![1; 8],
                // A loose source route, and an option longer than the header.
                Extra::Refused if wrap.kind.is_multiple_of(2) => vec![131, 7, 4, 203, 0, 113, 9, 0],
                Extra::Refused => vec![30, 9, 0, 0],
            };
            let ip = Ipv4 { protocol, id, options, ttl: wrap.hops.unwrap_or(64), ..Ipv4::new(src, dst) };
            ip.fragments(payload, &lengths)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let extensions = match wrap.extra {
                Extra::None => Vec::new(),
                Extra::Padding if wrap.kind.is_multiple_of(2) => vec![(packet::HOP_BY_HOP, packet::padding_header(1))],
                Extra::Padding => vec![(packet::DESTINATION_OPTIONS, packet::padding_header(1))],
                // RFC 8200, section 4.2: the two highest bits `01` mean that the packet is thrown away. Linux does so with more
                // than seven bytes of padding too, with hop-by-hop options in the wrong place and a route that is not at its end.
                Extra::Refused => match wrap.kind {
                    0 => vec![(packet::DESTINATION_OPTIONS, vec![0, 0, 0x5e, 4, 0, 0, 0, 0])],
                    1 => vec![(packet::DESTINATION_OPTIONS, packet::padding_header(2))],
                    2 => vec![(packet::DESTINATION_OPTIONS, packet::padding_header(1)), (packet::HOP_BY_HOP, packet::padding_header(1))],
                    _ => vec![(packet::ROUTING, vec![0, 0, 0, 1, 0, 0, 0, 0])],
                },
            };
            let ip = Ipv6 { next: protocol, hop_limit: wrap.hops.unwrap_or(64), extensions, ..Ipv6::new(src, dst) };
            if wrap.fragments.is_some() { ip.fragments(id.into(), payload, &lengths) } else { vec![ip.packet(payload)] }
        }
        _ => unreachable!("one family"),
    };
    match wrap.fragments {
        Some((_, Order::Reversed)) => packets.reverse(),
        Some((_, Order::Doubled)) => packets = packets.iter().flat_map(|packet| [packet.clone(), packet.clone()]).collect(),
        Some((_, Order::Straight)) | None => {}
    }
    if wrap.bad_sum {
        packets.iter_mut().for_each(|packet| packet[10] ^= 0x55);
    }
    let kind = if ends.src.is_ipv4() { packet::ETHERTYPE_IPV4 } else { packet::ETHERTYPE_IPV6 };
    let to = if wrap.to_nobody { [2, 0, 0, 0xee, 0xee, 0xee] } else { ends.dst_mac };
    packets.iter().map(|packet| packet::ethernet(ends.src_mac, to, &[], kind, packet)).collect()
}

/// The sender's side: a raw socket below a kernel that keeps silent.
struct Peer {
    socket: PacketSocket,
    to: [Ends; 2],
    sent: u16,
}

impl Peer {
    fn new(node: &Node, server: &Node, next_hop: [u8; 6]) -> Self {
        for family in [Family::V4, Family::V6] {
            // It would answer the other side's SYN with a reset.
            let silence = "*filter\n-A INPUT -p tcp -j DROP\n-A OUTPUT -p tcp -j DROP\nCOMMIT\n";
            node.netns.run(|| iptables::restore(family, silence, None)).expect("namespace").expect("rules");
        }
        let socket = PacketSocket::open_in(&node.netns, node.ifindex).expect("a raw socket");
        let ends = |src: IpAddr, dst: IpAddr| Ends { src_mac: node.mac, dst_mac: next_hop, src, dst };
        Self { socket, to: [ends(node.v4.into(), server.v4.into()), ends(node.v6.into(), server.v6.into())], sent: 0 }
    }

    fn send(&mut self, case: &Case, act: &Act) {
        self.sent = self.sent.wrapping_add(1);
        for frame in case.frames(act, &self.to[usize::from(case.six)], self.sent) {
            self.socket.send(&frame).expect("sending");
        }
    }

    /// The three-way handshake of all of them.
    fn open(&mut self, cases: &mut [Case]) {
        for case in &*cases {
            // The number of a SYN is one less.
            self.send(case, &Act::at(-1, case.syn.clone(), SYN));
        }
        let end = Instant::now() + PATIENCE;
        while cases.iter().any(|case| case.ack.is_none()) {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(Some(frame)) = self.socket.receive_where(left, |_| true) else {
                panic!("no answer to a SYN: {:#?}", cases.iter().find(|case| case.ack.is_none()));
            };
            let Some(view) = packet::view(&frame).filter(|view| view.protocol == packet::TCP && view.payload.len() >= 20) else { continue };
            let tcp = &view.payload;
            let port = u16::from_be_bytes([tcp[2], tcp[3]]);
            if tcp[..2] == PORT.to_be_bytes()
                && tcp[13] & (SYN | ACK) == SYN | ACK
                && let Some(case) = cases.iter_mut().find(|case| case.port == port && case.six == view.src.is_ipv6())
            {
                case.ack = Some(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(1));
            }
        }
        for case in &*cases {
            self.send(case, &Act::at(0, Vec::new(), ACK));
        }
    }
}

/// The program that reads: all connections of one batch, by the port of their sender.
struct Reader {
    listener: TcpListener,
    open: BTreeMap<(bool, u16), TcpStream>,
}

impl Reader {
    fn new(server: &Node) -> Self {
        let listener = server.netns.run(|| TcpListener::bind(("::", PORT))).expect("namespace").expect("listening");
        listener.set_nonblocking(true).expect("a flag");
        Self { listener, open: BTreeMap::new() }
    }

    fn read(&mut self, cases: &mut [Case]) {
        while let Ok((stream, from)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a flag");
            let six = !matches!(from.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
            self.open.insert((six, from.port()), stream);
        }
        let mut buffer = [0; 4096];
        for case in cases {
            while let Some(stream) = self.open.get_mut(&(case.six, case.port)) {
                match stream.read(&mut buffer) {
                    Ok(0) => case.ended = true,
                    Ok(n) => {
                        case.read.extend_from_slice(&buffer[..n]);
                        continue;
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
                self.open.remove(&(case.six, case.port));
            }
        }
    }
}

/// What the events say of each connection or datagram: the cells that were judged, and whether it was dropped.
#[derive(Debug, Default)]
struct Judged {
    cells: BTreeSet<(usize, u8)>,
    planted: bool,
}

fn judged(agent: &Agent) -> BTreeMap<(bool, u16), Judged> {
    let path = agent.dir().path().join("eve.json");
    let mut len = 0;
    wait_until("all events are written", PATIENCE * 6, || {
        let before = std::mem::replace(&mut len, std::fs::metadata(&path).map_or(0, |m| m.len()));
        std::thread::sleep(Duration::from_millis(1200));
        before == len && len > 0
    });
    let lost = agent.client().status().expect("status").events.lost;
    assert_eq!(lost.values().sum::<u64>(), 0, "events were lost: the comparison would be of something else");
    let mut judged: BTreeMap<(bool, u16), Judged> = BTreeMap::new();
    for line in std::fs::read_to_string(&path).expect("events").lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let Some(sid) = event["alert"]["signature_id"].as_u64() else { continue };
        let port = event["src_port"].as_u64().unwrap_or_default() as u16;
        let six = event["src_ip"].as_str().is_some_and(|ip| ip.contains(':'));
        let of = judged.entry((six, port)).or_default();
        if sid == 9000 {
            of.planted = true;
        } else if sid < 9000 {
            let number = (sid as usize - 1000) % 1000;
            of.cells.insert((number / 10, (number % 10) as u8));
        }
    }
    judged
}

fn number_from(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Plays all cases from `client` to `server` and compares. On a routed way the rules that come with the program are in use besides,
/// of which one looks at SYNs: there the agent sees handshakes.
fn play(tag: &str, net: &Net, client: &str, server: &str, next_hop: [u8; 6], routed: bool) {
    let (client, server) = (net.node(client), net.node(server));
    let rules = rules();
    let plan = AgentPlan { tag, host: Some(net.host()), config: CONFIG, rules: &rules, built_in_rules: routed, ..AgentPlan::default() };
    let agent = Agent::start(&plan);
    wait_until("the interfaces are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));
    let mut peer = Peer::new(client, server, next_hop);
    let mut reader = Reader::new(server);
    let (count, seed) = (number_from("EVASION_CASES", CASES).min(60_000), number_from("EVASION_SEED", 1) as u64);
    let mut done: Vec<Case> = Vec::new();
    let only = std::env::var("EVASION_ONLY").ok().and_then(|number| number.parse::<usize>().ok());
    for from in (0..count).step_by(BATCH) {
        let wanted = |number: &usize| only.is_none_or(|only| only == *number);
        let mut cases: Vec<Case> =
            (from..(from + BATCH).min(count)).filter(wanted).map(|number| Case::new(number, seed << 20, routed)).collect();
        peer.open(&mut cases);
        for step in 0..cases.iter().map(|case| case.acts.len()).max().unwrap_or_default() {
            for case in &cases {
                if let Some(act) = case.acts.get(step) {
                    peer.send(case, act);
                }
            }
            reader.read(&mut cases);
        }
        for case in &cases {
            for act in case.honest() {
                peer.send(case, &act);
            }
        }
        // Those that must be whole are waited for; the others have as long as a batch needs.
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            reader.read(&mut cases);
            let whole = cases.iter().filter(|case| case.class == Class::Agrees).all(|case| case.ended);
            if whole || Instant::now() >= end {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(60));
        reader.read(&mut cases);
        reader.open.clear();
        done.append(&mut cases);
    }
    let mut judged = judged(&agent);
    if only.is_some() {
        println!("{:#?}", agent.client().status().expect("status").engine.0.into_iter().filter(|(_, n)| *n > 0).collect::<Vec<_>>());
    }
    let (mut whole, mut cut_short, mut planted) = (0, 0, 0);
    let mut wrong = String::new();
    for case in &done {
        let of = judged.remove(&(case.six, case.port)).unwrap_or_default();
        let read = cells(&case.read);
        let versions = |cells: &BTreeSet<(usize, u8)>| cells.iter().map(|(cell, _)| *cell).collect::<BTreeSet<_>>().len() == cells.len();
        let mut says = |what: &str| {
            let _ =
                writeln!(wrong, "{what}: read {:?}, judged {:?}\n{}", String::from_utf8_lossy(&case.read), of.cells, case.told(&case.acts));
        };
        if contains(&case.read, &[b'0' + PLANTED, b'>']) {
            says("the planted match reached the program");
        }
        if !read.is_subset(&of.cells) {
            says("the program read what was not judged");
        }
        if !versions(&of.cells) {
            says("two versions of one cell were judged");
        }
        if case.ended && !of.planted && read != of.cells {
            says("the program did not read what was judged");
        }
        if case.class == Class::Agrees && case.read != text(1) {
            says("a sender that never contradicts itself is not served whole");
        }
        whole += usize::from(case.read.len() == LENGTH);
        cut_short += usize::from(case.read.len() < LENGTH);
        planted += usize::from(of.planted);
    }
    println!("{} cases: {whole} streams read whole, {cut_short} cut short, {planted} with the planted match seen", done.len());
    if let Some(path) = std::env::var_os("EVASION_REPORT") {
        let _ = std::fs::write(path, &wrong);
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.lines().filter(|l| l.contains(": read ")).count(),
        &wrong[..wrong.len().min(12_000)]
    );
    assert!(only.is_some() || whole > count / 4 && planted > count / 20, "{whole} whole, {planted} planted of {count}");
}

#[test]
fn on_one_bridge_the_program_reads_what_was_judged() {
    if !root_or_not_run("on_one_bridge_the_program_reads_what_was_judged") {
        return;
    }
    let net = net::one_bridge("evbridge");
    let mac = net.node("server").mac;
    play("evbridge", &net, "client", "server", mac, false);
}

#[test]
fn across_a_router_the_program_reads_what_was_judged() {
    if !root_or_not_run("across_a_router_the_program_reads_what_was_judged") {
        return;
    }
    let net = net::two_bridges("evrouted");
    let mac = net.bridge_mac(0);
    play("evrouted", &net, "client", "far", mac, true);
}

/// Fragments of datagrams, all of which lie about each other: what the program got was judged, and the planted match was not among it.
#[test]
fn of_crooked_fragments_the_program_gets_what_was_judged() {
    if !root_or_not_run("of_crooked_fragments_the_program_gets_what_was_judged") {
        return;
    }
    let net = net::one_bridge("evfrag");
    let (client, server) = (net.node("client"), net.node("server"));
    let rules = rules();
    let plan = AgentPlan { tag: "evfrag", host: Some(net.host()), config: CONFIG, rules: &rules, ..AgentPlan::default() };
    let agent = Agent::start(&plan);
    wait_until("the interfaces are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));
    let socket = server.netns.run(|| UdpSocket::bind(("::", PORT))).expect("namespace").expect("a socket");
    socket.set_nonblocking(true).expect("a flag");
    let (count, seed) = (number_from("EVASION_CASES", CASES).min(60_000), number_from("EVASION_SEED", 1) as u64);
    let ends = |src: IpAddr, dst: IpAddr| Ends { src_mac: client.mac, dst_mac: server.mac, src, dst };
    let ways = [ends(client.v4.into(), server.v4.into()), ends(client.v6.into(), server.v6.into())];
    let raw = PacketSocket::open_in(&client.netns, client.ifindex).expect("a raw socket");
    let mut got: BTreeMap<(bool, u16), Vec<Vec<u8>>> = BTreeMap::new();
    let mut buffer = [0; 4096];
    let mut told = BTreeMap::new();
    for number in 0..count {
        let mut dice = Dice::new((seed << 20) + number as u64);
        let (six, port) = (dice.once_in(3), 1025 + number as u16);
        let versions: &[u8] = if dice.once_in(3) { &[1, 2, PLANTED] } else { &[1, 2, 3] };
        let mut log = String::new();
        // Mostly one datagram; sometimes a second one comes in between, or anew under the same number.
        for nth in 0..1 + dice.below(3) {
            let id = number as u32 * 2 + u32::from(nth == 2) + 1;
            let whole = ways[usize::from(six)].udp(port, PORT, &text(1));
            let mut at = 0;
            let mut pieces = Vec::new();
            while at < whole.len() {
                let to = (at + 8 * (1 + dice.below(4))).min(whole.len());
                pieces.push((at, to, if dice.once_in(3) { *dice.pick(versions) } else { 1 }));
                at = to;
            }
            for _ in 0..if dice.once_in(2) { dice.below(3) } else { 0 } {
                let from = 8 * dice.below(whole.len() / 8);
                pieces.push((from, (from + 8 * (1 + dice.below(3))).min(whole.len()), *dice.pick(versions)));
            }
            if dice.once_in(2) {
                for at in (1..pieces.len()).rev() {
                    pieces.swap(at, dice.below(at + 1));
                }
            }
            for (from, to, version) in pieces {
                // The sum that none has to have, so that every version has the right one.
                let mut bytes =
                    [&whole[..6], &if six { whole[6..8].to_vec() } else { vec![0, 0] }, &text(version)[..]].concat()[from..to].to_vec();
                let more = to < whole.len() || dice.once_in(60);
                if dice.once_in(60) {
                    bytes.truncate(bytes.len().saturating_sub(3));
                }
                let _ = write!(log, " {nth}:{from}..{to}={version}{}", if more { "+" } else { "" });
                raw.send(&piece(&ways[usize::from(six)], id, from, more, &bytes)).expect("sending");
            }
        }
        told.insert((six, port), log);
        if number % 16 == 15 || number + 1 == count {
            std::thread::sleep(Duration::from_millis(120)); // the store keeps up
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let six = !matches!(from.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
                got.entry((six, from.port())).or_default().push(buffer[..len].to_vec());
            }
        }
    }
    std::thread::sleep(SILENCE);
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let six = !matches!(from.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
        got.entry((six, from.port())).or_default().push(buffer[..len].to_vec());
    }
    let judged = judged(&agent);
    let mut wrong = String::new();
    for (case, log) in &told {
        let none = Judged::default();
        let (of, datagrams) = (judged.get(case).unwrap_or(&none), got.get(case).map_or(&[][..], Vec::as_slice));
        let read: BTreeSet<(usize, u8)> = datagrams.iter().flat_map(|datagram| cells(datagram)).collect();
        let planted = datagrams.iter().any(|datagram| contains(datagram, &[b'0' + PLANTED, b'>']));
        if planted || !read.is_subset(&of.cells) || (!of.planted && read != of.cells) {
            let _ = writeln!(wrong, "{case:?}: got {read:?}, judged {:?}, planted: {planted}\n {log}", of.cells);
        }
    }
    let (whole, blocked) = (got.values().map(Vec::len).sum::<usize>(), judged.values().filter(|of| of.planted).count());
    println!("{count} cases: {whole} datagrams arrived, {blocked} had the planted match and were dropped");
    assert!(wrong.is_empty(), "{}", &wrong[..wrong.len().min(6000)]);
    assert!(whole > count / 3 && blocked > count / 20, "{whole} datagrams, {blocked} blocked");
}

fn piece(ends: &Ends, id: u32, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let (kind, packet) = match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip = Ipv4 { id: id as u16, offset: offset as u16, more_fragments: more, ..Ipv4::new(src, dst) };
            (packet::ETHERTYPE_IPV4, ip.packet(bytes))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = [&[0, 0][..], &(offset as u16 | u16::from(more)).to_be_bytes(), &id.to_be_bytes()].concat();
            let ip = Ipv6 { extensions: vec![(packet::FRAGMENT, header)], ..Ipv6::new(src, dst) };
            (packet::ETHERTYPE_IPV6, ip.packet(bytes))
        }
        _ => unreachable!("one family"),
    };
    packet::ethernet(ends.src_mac, ends.dst_mac, &[], kind, &packet)
}

/// A neighbour of both helps the sender: it speaks in the server's name.
#[test]
fn what_a_third_one_says_in_the_servers_name_lets_nothing_pass() {
    if !root_or_not_run("what_a_third_one_says_in_the_servers_name_lets_nothing_pass") {
        return;
    }
    let net = Net::build(
        "evthird",
        vec![
            net::on_bridge("evthird", "client", 0, 2),
            net::on_bridge("evthird", "server", 0, 3),
            net::on_bridge("evthird", "third", 0, 4),
        ],
    );
    let (client, server, third) = (net.node("client"), net.node("server"), net.node("third"));
    let rules = rules();
    let plan = AgentPlan { tag: "evthird", host: Some(net.host()), config: CONFIG, rules: &rules, ..AgentPlan::default() };
    let agent = Agent::start(&plan);
    wait_until("the interfaces are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 3));
    let mut peer = Peer::new(client, server, server.mac);
    let mut reader = Reader::new(server);
    // Segments of the server's that the third one makes up, before the planted bytes are sent.
    let made_up: [&[(u8, u32, &[u8])]; 6] = [
        &[(ACK, 1000, b"")],
        &[(ACK, LENGTH as u32, b"")],
        &[(ACK, LENGTH as u32, b"from the third")],
        &[(SYN | ACK, 0, b"")],
        &[(RST | ACK, 0, b"")],
        &[(ACK, 4, b""), (FIN | ACK, 4, b"x"), (ACK, 100_000, b"")],
    ];
    for (number, segments) in made_up.iter().enumerate() {
        let mut cases = [Case { class: Class::Planted, six: number % 2 == 1, syn: Vec::new(), ..Case::new(number, 77, false) }];
        peer.open(&mut cases);
        let case = &cases[0];
        // Heard by nobody, so that it has been sent at least.
        let unheard = Act { bad_sum: true, ..Act::data(0, LENGTH, 1) };
        peer.send(case, &unheard);
        std::thread::sleep(Duration::from_millis(20));
        let to = peer.to[usize::from(case.six)].reversed();
        let ends = Ends { src_mac: third.mac, dst_mac: client.mac, ..to };
        for (flags, ack, bytes) in *segments {
            let seq = case.ack.unwrap_or_default();
            let tcp = Tcp { seq, ack: case.first.wrapping_add(*ack), ..Tcp::new(PORT, case.port, *flags) };
            send_frames(third, &[ends.frame(packet::TCP, &ends.tcp(&tcp, bytes))]);
        }
        std::thread::sleep(Duration::from_millis(20));
        peer.send(case, &Act::data(0, LENGTH, PLANTED));
        let end = Instant::now() + SILENCE;
        while Instant::now() < end {
            reader.read(&mut cases);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(
            !contains(&cases[0].read, &[b'0' + PLANTED, b'>']),
            "{segments:?}: the program read {:?}",
            String::from_utf8_lossy(&cases[0].read)
        );
    }
}

/// Behind an extension header the kernel tier sees no ports: what is let go for one connection must not let go another.
#[test]
fn what_is_let_go_behind_an_extension_header_is_let_go_alone() {
    if !root_or_not_run("what_is_let_go_behind_an_extension_header_is_let_go_alone") {
        return;
    }
    let net = net::one_bridge("evext");
    let (client, server) = (net.node("client"), net.node("server"));
    let (rules, config) = (rules(), "mode: protect\nfail-after: 60 s\ninspect:\n  stream-depth: 4 KiB\n");
    let plan = AgentPlan { tag: "evext", host: Some(net.host()), config, rules: &rules, ..AgentPlan::default() };
    let agent = Agent::start(&plan);
    wait_until("the interfaces are armed", PATIENCE, || agent.client().status().is_ok_and(|status| status.path.interfaces_armed >= 2));
    let mut peer = Peer::new(client, server, server.mac);
    let mut reader = Reader::new(server);
    let case = |number| Case { class: Class::Planted, six: true, syn: Vec::new(), ..Case::new(number, 99, false) };
    let behind = |act: Act| Act { wrap: Wrap { extra: Extra::Padding, kind: 1, ..Wrap::default() }, ..act };
    let mut cases = [case(0), case(1)];
    peer.open(&mut cases);
    let settle = |reader: &mut Reader, cases: &mut [Case]| {
        let end = Instant::now() + SILENCE;
        while Instant::now() < end {
            reader.read(cases);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for nth in 0..8 {
        peer.send(&cases[0], &behind(Act::at(nth * 1000, vec![b'x'; 1000], ACK)));
    }
    settle(&mut reader, &mut cases);
    assert_eq!(cases[0].read.len(), 8000, "past its depth a stream goes on");
    peer.send(&cases[1], &behind(Act::data(0, LENGTH, PLANTED)));
    settle(&mut reader, &mut cases);
    assert!(!contains(&cases[1].read, &[b'0' + PLANTED, b'>']), "{:?}", String::from_utf8_lossy(&cases[1].read));
}
