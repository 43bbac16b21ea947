//! Frames of connections, made by dice that always fall the same way, or read from captures.
//!
//! | load | as the reference's capture | what |
//! |---|---|---|
//! | `api` | 498,452 packets of 322 bytes | small questions and answers in JSON, forty on a connection, each answer acknowledged |
//! | `mix` | 1.27 million packets of 847 bytes | pages, half of them in gzip, one request in a hundred an attack |
//! | `real` | public captures, again and again under other addresses | whatever they hold |

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use bulkhead_net::craft::{self, Segment};
use bulkhead_net::decode::TcpFlags;
use serde_json::Value;

use crate::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// Short questions and answers in JSON
    Api,
    /// Pages, half of them compressed
    Mix,
    /// Public captures
    Real,
}

/// Connections that are open at a time.
const TOGETHER: usize = 256;
const MSS: usize = 1448;
pub const SEED: u64 = 0x0b0a_dcab;
/// Different pages; compressing one takes longer than judging it.
const PAGES: usize = 400;
/// Bytes of one capture file that are read.
const CAPTURE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Frames in the order in which they come, by the shard that their flow belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct Traffic {
    pub shards: Vec<Shard>,
    pub packets: u64,
    pub bytes: u64,
}

/// Frames one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shard {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Shard {
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }
}

/// What one request in a hundred of `mix` is.
#[derive(Debug)]
pub struct Attacks(Vec<Vec<u8>>);

impl Attacks {
    pub fn built_in() -> Self {
        let of = |target: &str| {
            format!("GET {target} HTTP/1.1\r\nHost: www.site.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n").into_bytes()
        };
        Self(vec![
            of("/shop/../../../../etc/passwd?id=1%27%20union%20select%20name"),
            of("/a/../../b?x=%3Cscript%3Ealert(1)%3C/script%3E%20union%20select"),
        ])
    }

    /// Tests of the Core Rule Set that say what they send: method, target, headers and perhaps a body.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
        let requests: Vec<Vec<u8>> = text.lines().filter_map(|line| request_of(&serde_json::from_str(line).ok()?)).collect();
        if requests.is_empty() {
            return Err(Error::Unreadable { program: file.display().to_string(), output: "no request in it".into() });
        }
        Ok(Self(requests))
    }
}

fn request_of(test: &Value) -> Option<Vec<u8>> {
    let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let method = test["method"].as_str().filter(plain)?;
    let target = test["uri"].as_str().filter(plain)?;
    let attacks = test["expect_ids"].as_array().is_some_and(|ids| !ids.is_empty());
    let body = test["data"].as_str().unwrap_or_default();
    if !attacks || body.len() > 16 * 1024 {
        return None;
    }
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    for (name, value) in test["headers"].as_object()? {
        let value =
            value.as_str().filter(|_| !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("transfer-encoding"));
        if let Some(value) = value {
            request += &format!("{name}: {value}\r\n");
        }
    }
    Some(format!("{request}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

impl Load {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Mix => "mix",
            Self::Real => "real",
        }
    }

    /// As many as the reference's capture has.
    pub const fn packets(self) -> usize {
        match self {
            Self::Api => 498_452,
            Self::Mix => 1_270_000,
            Self::Real => 1_000_000,
        }
    }
}

impl Traffic {
    pub fn make(load: Load, packets: usize, shards: usize, attacks: &Attacks) -> Self {
        let mut maker = Maker::new(attacks);
        let mut made = Self::none(shards);
        let mut open: Vec<(usize, std::vec::IntoIter<Vec<u8>>)> = Vec::new();
        let mut number = 0;
        while (made.packets as usize) < packets || !open.is_empty() {
            while open.len() < TOGETHER && (made.packets as usize) < packets {
                open.push((number % shards, maker.conversation(load, number).into_iter()));
                number += 1;
            }
            open.retain_mut(|(shard, frames)| match frames.next() {
                Some(frame) => {
                    made.push(*shard, &frame);
                    true
                }
                None => false,
            });
        }
        made
    }

    /// Ethernet frames of all captures below a directory, in the order of their names, until there are enough. Each time round the
    /// addresses are others, so that flows begin anew.
    pub fn of_captures(directory: &Path, packets: usize, shards: usize) -> Result<Self, Error> {
        let mut files = Vec::new();
        list(directory, &mut files)?;
        files.sort();
        let mut captures = Vec::new();
        for file in &files {
            let bytes = fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
            captures.extend((bytes.len() <= CAPTURE_BYTES_MAX).then_some(bytes));
        }
        let mut made = Self::none(shards);
        for round in 0..=u8::MAX {
            for (number, bytes) in captures.iter().enumerate() {
                for frame in ethernet_frames(bytes) {
                    let mut frame = frame.to_vec();
                    readdress(&mut frame, round);
                    made.push(number % shards, &frame);
                }
            }
            if made.packets == 0 || made.packets as usize >= packets {
                break;
            }
        }
        Ok(made)
    }

    fn none(shards: usize) -> Self {
        Self { shards: vec![Shard::default(); shards], packets: 0, bytes: 0 }
    }

    fn push(&mut self, shard: usize, frame: &[u8]) {
        self.packets += 1;
        self.bytes += frame.len() as u64;
        self.shards[shard].push(frame);
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::io(format!("read {}", directory.display())))?.flatten() {
        let path = entry.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Of a capture in the older format, as little-endian machines write it, of Ethernet; none of others.
fn ethernet_frames(capture: &[u8]) -> impl Iterator<Item = &[u8]> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let read = word(capture, 0) == Some(0xa1b2_c3d4) && word(capture, 20).is_some_and(|link| link & 0xffff == 1);
    let mut rest = if read { capture.get(24..).unwrap_or_default() } else { &[] };
    std::iter::from_fn(move || {
        let end = 16 + word(rest, 8)? as usize;
        let frame = rest.get(16..end)?;
        rest = &rest[end..];
        Some(frame)
    })
}

/// Other addresses of IPv4; checksums are not looked at.
fn readdress(frame: &mut [u8], round: u8) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] {
        frame[27] ^= round;
        frame[31] ^= round;
    }
}

/// Makes connections.
struct Maker<'a> {
    dice: Dice,
    words: Vec<String>,
    pages: Vec<Vec<u8>>,
    attacks: &'a Attacks,
}

impl<'a> Maker<'a> {
    fn new(attacks: &'a Attacks) -> Self {
        let mut dice = Dice(SEED);
        let words = dictionary(&mut dice);
        let pages = (0..PAGES).map(|number| page_response(number % 2 == 0, &words, &mut dice)).collect();
        Self { dice, words, pages, attacks }
    }

    /// One connection from its SYN to its last acknowledgement.
    fn conversation(&mut self, load: Load, number: usize) -> Vec<Vec<u8>> {
        let client = Ipv4Addr::new(203, 0, 113, 1 + (number / 50_000 % 200) as u8);
        let mut link = Link {
            client: (client.into(), 1024 + (number % 50_000) as u16),
            server: (Ipv4Addr::new(198, 51, 100, 7).into(), 80),
            seq: [self.dice.next() as u32, self.dice.next() as u32],
            frames: Vec::new(),
        };
        link.send(0, TcpFlags::SYN, &[]);
        link.send(1, both(TcpFlags::SYN), &[]);
        link.send(0, TcpFlags::ACK, &[]);
        let Self { dice, words, pages, attacks } = self;
        match load {
            Load::Api => {
                for _ in 0..40 {
                    // The answer acknowledges the question.
                    link.send(0, both(TcpFlags::PSH), &api_request(words, dice));
                    link.say(1, &api_response(words, dice));
                }
            }
            Load::Mix | Load::Real => {
                for _ in 0..4 {
                    let request = match dice.below(100) {
                        0 => attacks.0[dice.below(attacks.0.len())].clone(),
                        _ => page_request(words, dice),
                    };
                    link.say(0, &request);
                    link.say(1, &pages[dice.below(pages.len())]);
                }
            }
        }
        link.send(0, both(TcpFlags::FIN), &[]);
        link.send(1, both(TcpFlags::FIN), &[]);
        link.send(0, TcpFlags::ACK, &[]);
        link.frames
    }
}

/// With an acknowledgement.
const fn both(flags: TcpFlags) -> TcpFlags {
    TcpFlags(flags.0 | TcpFlags::ACK.0)
}

struct Link {
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    /// The next byte of the client, of the server.
    seq: [u32; 2],
    frames: Vec<Vec<u8>>,
}

impl Link {
    /// In segments; every second one is acknowledged.
    fn say(&mut self, from: usize, bytes: &[u8]) {
        let count = bytes.len().div_ceil(MSS);
        for (number, piece) in bytes.chunks(MSS).enumerate() {
            self.send(from, both(TcpFlags::PSH), piece);
            if number % 2 == 1 || number + 1 == count {
                self.send(1 - from, TcpFlags::ACK, &[]);
            }
        }
    }

    fn send(&mut self, from: usize, flags: TcpFlags, payload: &[u8]) {
        let (src, dst) = if from == 0 { (self.client, self.server) } else { (self.server, self.client) };
        let ack = if flags.contains(TcpFlags::ACK) { self.seq[1 - from] } else { 0 };
        let segment =
            Segment { src_port: src.1, dst_port: dst.1, seq: self.seq[from], ack, flags, window: 65_535, payload, ..Segment::default() };
        self.frames.push(craft::ethernet([2; 6], [4; 6], &craft::tcp(src.0, dst.0, &segment)));
        let flagged = u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
        self.seq[from] = self.seq[from].wrapping_add(payload.len() as u32 + flagged);
    }
}

fn api_request(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let body = format!(
        "{{\"id\":{},\"item\":\"{}\",\"note\":\"{} {}\",\"amount\":{}}}",
        dice.below(1_000_000),
        dice.pick(words),
        dice.pick(words),
        dice.pick(words),
        dice.below(500)
    );
    format!(
        "POST /api/v2/{}/{}?trace={:016x} HTTP/1.1\r\nHost: {}.svc.example\r\nUser-Agent: orders-client/1.4\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nAuthorization: Bearer {:016x}{:016x}\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
         Accept-Encoding: gzip\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{body}",
        dice.pick(words),
        dice.below(100_000),
        dice.next(),
        dice.pick(words),
        dice.next(),
        dice.next(),
        body.len()
    )
    .into_bytes()
}

fn api_response(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let body = format!(
        "{{\"status\":\"ok\",\"id\":{},\"items\":[{}],\"next\":null}}",
        dice.below(1_000_000),
        (0..7).map(|_| format!("{{\"name\":\"{}\",\"price\":{}}}", dice.pick(words), dice.below(9000))).collect::<Vec<_>>().join(",")
    );
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nX-Request-Id: {:016x}\r\nContent-Length: {}\r\n\
         Connection: keep-alive\r\n\r\n{body}",
        dice.next(),
        body.len()
    )
    .into_bytes()
}

fn page_request(words: &[String], dice: &mut Dice) -> Vec<u8> {
    let (a, b, c) = (dice.pick(words), dice.pick(words), dice.pick(words));
    let target = format!("/{a}/{b}/{c}.html?page={}&q={}+{}", dice.below(100), dice.pick(words), dice.pick(words));
    format!(
        "GET {target} HTTP/1.1\r\nHost: www.{}.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate\r\nReferer: http://www.{}.example/{}\r\nCookie: session={:016x}; theme={}\r\nConnection: keep-alive\r\n\r\n",
        dice.pick(words),
        dice.pick(words),
        dice.pick(words),
        dice.next(),
        dice.pick(words)
    )
    .into_bytes()
}

fn page_response(compressed: bool, words: &[String], dice: &mut Dice) -> Vec<u8> {
    let length = 2_000 + dice.below(40_000);
    let mut body = String::from("<!DOCTYPE html><html><head><title>page</title></head><body>");
    while body.len() < length {
        body += "<p class=\"text\">";
        for _ in 0..20 {
            body += dice.pick(words);
            body.push(' ');
        }
        body += &format!("<a href=\"/{}/{}\">{}</a></p>\n", dice.pick(words), dice.below(10_000), dice.pick(words));
    }
    body += "</body></html>";
    let (encoding, body) = if compressed { ("Content-Encoding: gzip\r\n", gzip(body.as_bytes())) } else { ("", body.into_bytes()) };
    let mut response = format!(
        "HTTP/1.1 200 OK\r\nServer: Apache/2.4.62\r\nContent-Type: text/html; charset=UTF-8\r\n{encoding}Cache-Control: no-cache\r\n\
         Set-Cookie: session={:016x}; path=/\r\nContent-Length: {}\r\n\r\n",
        dice.next(),
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}

/// RFC 1952.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut whole = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    whole.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    let crc = !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }));
    whole.extend(crc.to_le_bytes());
    whole.extend((bytes.len() as u32).to_le_bytes());
    whole
}

/// Two thousand words of two to four syllables: letters as frequent as in text, none of it text.
fn dictionary(dice: &mut Dice) -> Vec<String> {
    const SYLLABLES: [&str; 32] = [
        "an", "ber", "ca", "den", "el", "for", "gra", "hin", "ing", "jo", "ker", "lan", "men", "nor", "or", "pre", "qui", "ren", "sta",
        "ter", "un", "ver", "win", "ex", "ya", "ze", "con", "dis", "ment", "tion", "ly", "ous",
    ];
    (0..2000).map(|_| (0..2 + dice.below(3)).map(|_| SYLLABLES[dice.below(SYLLABLES.len())]).collect()).collect()
}

/// xorshift64* (Vigna 2016).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end.max(1)
    }

    fn pick<'a>(&mut self, words: &'a [String]) -> &'a str {
        words.get(self.below(words.len())).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_is_the_same_each_time_and_of_the_stated_kind() {
        for (load, least, most) in [(Load::Api, 300, 345), (Load::Mix, 790, 910)] {
            let make = || Traffic::make(load, 20_000, 2, &Attacks::built_in());
            let (one, other) = (make(), make());
            assert!(one == other && one.packets >= 20_000);
            let each = one.bytes / one.packets;
            assert!((least..most).contains(&each), "{}: {each} bytes a packet", load.name());
        }
    }

    #[test]
    fn compressed_pages_are_gzip() {
        let whole = gzip(b"a page, a page, a page");
        let body = miniz_oxide::inflate::decompress_to_vec(&whole[10..whole.len() - 8]).unwrap();
        assert_eq!(body, b"a page, a page, a page");
        // The check value of the CRC's definition.
        assert_eq!(gzip(b"123456789").rchunks(4).nth(1), Some(&0xcbf4_3926_u32.to_le_bytes()[..]));
    }

    #[test]
    fn frames_of_captures_are_read_and_get_other_addresses() {
        let frame: Vec<u8> = (0..40)
            .map(|byte| {
                if byte == 12 {
                    8
                } else if byte == 13 {
                    0
                } else {
                    byte
                }
            })
            .collect();
        let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1];
        capture.resize(20, 0);
        capture.extend([1, 0, 0, 0]);
        for _ in 0..2 {
            capture.extend([0; 8]);
            capture.extend([40, 0, 0, 0, 40, 0, 0, 0]);
            capture.extend(&frame);
        }
        // The last one is cut.
        capture.extend([0; 8]);
        capture.extend([40, 0, 0, 0, 40, 0, 0, 0, 1, 2]);
        assert_eq!(ethernet_frames(&capture).count(), 2);
        assert!(ethernet_frames(&capture).all(|found| found == frame) && ethernet_frames(b"not one").count() == 0);
        let mut other = frame.clone();
        readdress(&mut other, 3);
        assert!(other != frame && other[..26] == frame[..26] && other[34..] == frame[34..]);
    }

    #[test]
    fn attacks_are_requests() {
        let line = r#"{"method":"POST","uri":"/x?id=1","headers":{"Host":"a","Content-Length":"9"},"data":"q=1","expect_ids":[942100]}"#;
        let request = request_of(&serde_json::from_str(line).unwrap()).unwrap();
        assert_eq!(request, b"POST /x?id=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nq=1");
        assert!(request_of(&serde_json::json!({ "method": "GET", "uri": "/", "headers": {}, "expect_ids": [] })).is_none());
    }
}
