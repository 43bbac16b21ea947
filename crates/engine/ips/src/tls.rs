//! Is this TLS, and does only ciphertext follow? The question decides whether inspection of a flow ends, so record headers
//! alone do not answer it: anybody can write `17 03 03` in front of clear text.
//!
//! What has to be seen, from the first byte of both directions on and without a gap:
//! 1. a whole ClientHello, well formed to its last extension, as the client's first record;
//! 2. after it a whole ServerHello as the server's first record, which chooses one of the client's cipher suites, and a
//!    version that the client has offered;
//! 3. then, in each direction, application data: in TLS 1.3 (`supported_versions` says 0x0304) at once, before that
//!    behind a ChangeCipherSpec.
//!
//! Everything else (early data, heartbeats, hellos above [`HELLO_BYTES_MAX`], STARTTLS) is not an error, it only stays
//! under inspection. What this cannot stop is two ends that work together: they can as well encrypt.
//! RFC 8446 sections 4.1.2, 4.1.3, 4.2.1 and 5.1; RFC 5246 sections 6.2.1 and 7.4.1.

use bulkhead_net::flow::Direction;

/// Bytes of a hello that are kept until it is whole. With post-quantum key shares and tickets a ClientHello has two or three
/// thousand.
pub(crate) const HELLO_BYTES_MAX: usize = 8 * 1024;
/// RFC 5246 allows 2^14 + 2048, RFC 8446 2^14 + 256.
const RECORD_MAX: u16 = 16_384 + 2_048;
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SUPPORTED_VERSIONS: u16 = 43;

/// One connection. Nothing is allocated before a direction begins like a handshake.
#[derive(Debug, Default)]
pub(crate) struct TlsWatch {
    halves: [Walk; 2],
    broken: bool,
    /// The ClientHello, kept until the server has answered it.
    client_hello: Vec<u8>,
    server_hello: Vec<u8>,
    /// What the ServerHello has chosen.
    chosen: Option<Version>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    UpTo12,
    Tls13,
}

/// Records of one direction.
#[derive(Debug, Default)]
struct Walk {
    header: [u8; 5],
    have: u8,
    kind: u8,
    /// Bytes of the current record still to come.
    left: u16,
    hello_done: bool,
    changed_cipher: bool,
    encrypted: bool,
}

impl TlsWatch {
    /// Both directions have come to application data of a session that both have agreed on.
    pub const fn is_encrypted(&self) -> bool {
        !self.broken && self.halves[0].encrypted && self.halves[1].encrypted
    }

    /// Inspection goes on: this is nothing that could be let go.
    pub const fn is_over(&self) -> bool {
        self.broken
    }

    /// Nothing can be said any more: bytes were lost, or the caller has no memory left.
    pub fn give_up(&mut self) {
        self.broken = true;
        self.client_hello = Vec::new();
        self.server_hello = Vec::new();
    }

    /// Heap bytes held now.
    pub const fn memory(&self) -> usize {
        self.client_hello.capacity() + self.server_hello.capacity()
    }

    /// The next bytes of a direction, from its first.
    pub fn push(&mut self, dir: Direction, mut bytes: &[u8]) {
        let at = match dir {
            Direction::ToServer => 0,
            Direction::ToClient => 1,
        };
        while !self.broken && !bytes.is_empty() && !self.halves[at].encrypted {
            let walk = &mut self.halves[at];
            if walk.left > 0 {
                let (piece, rest) = bytes.split_at(usize::from(walk.left).min(bytes.len()));
                walk.left -= piece.len() as u16;
                bytes = rest;
                if self.contents(at, piece).is_none() {
                    self.give_up();
                }
                continue;
            }
            let have = usize::from(walk.have);
            let (piece, rest) = bytes.split_at((5 - have).min(bytes.len()));
            walk.header[have..have + piece.len()].copy_from_slice(piece);
            walk.have += piece.len() as u8;
            bytes = rest;
            if walk.have == 5 {
                walk.have = 0;
                if self.record(at).is_none() {
                    self.give_up();
                }
            }
        }
    }

    /// A record's header is whole. `None`: this is not, or not only, TLS as described above.
    fn record(&mut self, at: usize) -> Option<()> {
        let chosen = self.chosen;
        let walk = &mut self.halves[at];
        let [kind, major, minor, high, low] = walk.header;
        let len = u16::from_be_bytes([high, low]);
        if major != 3 || minor > 4 || len > RECORD_MAX {
            return None;
        }
        let expected = match kind {
            HANDSHAKE => len > 0,
            // An alert may stand in an encrypted record too, which is longer.
            ALERT => walk.hello_done && len > 0,
            CHANGE_CIPHER_SPEC => {
                walk.changed_cipher = true;
                walk.hello_done && len == 1
            }
            APPLICATION_DATA => {
                walk.encrypted = match chosen {
                    Some(Version::Tls13) => true,
                    Some(Version::UpTo12) => walk.changed_cipher,
                    None => false,
                };
                walk.encrypted
            }
            _ => false,
        };
        walk.kind = kind;
        walk.left = len;
        expected.then_some(())
    }

    /// Bytes of a record. Only hellos and the one byte of a ChangeCipherSpec are looked at.
    fn contents(&mut self, at: usize, piece: &[u8]) -> Option<()> {
        let walk = &self.halves[at];
        if walk.kind == CHANGE_CIPHER_SPEC {
            return (piece == [1]).then_some(());
        }
        if walk.kind != HANDSHAKE || walk.hello_done {
            return Some(());
        }
        // The server speaks second.
        if at == 1 && !self.halves[0].hello_done {
            return None;
        }
        let kept = if at == 0 { &mut self.client_hello } else { &mut self.server_hello };
        kept.extend_from_slice(piece);
        let kept: &[u8] = if at == 0 { &self.client_hello } else { &self.server_hello };
        let Some(&[kind, high, middle, low]) = kept.first_chunk::<4>() else { return Some(()) };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != [1, 2][at] || length > HELLO_BYTES_MAX {
            return None;
        }
        // Only the server puts more messages into the record of its hello.
        if at == 0 && kept.len() > 4 + length {
            return None;
        }
        let Some(body) = kept.get(4..4 + length) else { return Some(()) };
        if at == 0 {
            Hello::parse(body, true)?;
            self.halves[0].hello_done = true;
        } else {
            let client = self.client_hello.get(4..).and_then(|body| Hello::parse(body, true))?;
            self.chosen = Some(Hello::parse(body, false)?.answers(&client)?);
            self.halves[1].hello_done = true;
            self.client_hello = Vec::new();
            self.server_hello = Vec::new();
        }
        Some(())
    }
}

/// What a hello says that matters here.
struct Hello<'a> {
    legacy_version: u16,
    /// Two bytes each; one of them from the server.
    suites: &'a [u8],
    /// Contents of `supported_versions`, two bytes each; one version from the server.
    versions: &'a [u8],
}

impl<'a> Hello<'a> {
    /// `None`: a length is wrong somewhere.
    fn parse(body: &'a [u8], client: bool) -> Option<Self> {
        let mut rest = Reader(body);
        let legacy_version = rest.u16()?;
        rest.take(32)?;
        let session = rest.u8()?;
        rest.take(usize::from(session)).filter(|id| id.len() <= 32)?;
        let suites = if client {
            let len = rest.u16()?;
            let suites = rest.take(usize::from(len)).filter(|suites| !suites.is_empty() && suites.len() % 2 == 0)?;
            let methods = rest.u8()?;
            // The null method must be among them.
            rest.take(usize::from(methods))?.contains(&0).then_some(suites)?
        } else {
            let suite = rest.take(2)?;
            // Compression.
            (rest.u8()? == 0).then_some(suite)?
        };
        let mut versions: &[u8] = &[];
        if !rest.0.is_empty() {
            let len = rest.u16()?;
            if usize::from(len) != rest.0.len() {
                return None;
            }
            while !rest.0.is_empty() {
                let (kind, len) = (rest.u16()?, rest.u16()?);
                let mut contents = Reader(rest.take(usize::from(len))?);
                if kind == SUPPORTED_VERSIONS {
                    if client {
                        let len = contents.u8()?;
                        versions = contents.take(usize::from(len)).filter(|all| all.len() % 2 == 0)?;
                    } else {
                        versions = contents.take(2)?;
                    }
                    if !contents.0.is_empty() {
                        return None;
                    }
                }
            }
        }
        (legacy_version >> 8 == 3 && legacy_version <= TLS_1_2).then_some(Self { legacy_version, suites, versions })
    }

    /// This ServerHello to that ClientHello.
    fn answers(&self, client: &Hello<'_>) -> Option<Version> {
        let offered = |list: &[u8], wanted: &[u8]| list.chunks_exact(2).any(|one| one == wanted);
        if !offered(client.suites, self.suites) {
            return None;
        }
        if self.versions.is_empty() {
            return (self.legacy_version <= client.legacy_version).then_some(Version::UpTo12);
        }
        (self.versions == TLS_1_3.to_be_bytes() && offered(client.versions, self.versions)).then_some(Version::Tls13)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn record(kind: u8, contents: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3][..], &(contents.len() as u16).to_be_bytes(), contents].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    /// Suites 0x1301 and 0xc02f.
    pub fn client_hello(offers_13: bool) -> Vec<u8> {
        let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 4, 0x13, 1, 0xc0, 0x2f, 1, 0]].concat();
        let versions: &[u8] = if offers_13 { &[0, 9, 0, 43, 0, 5, 4, 3, 4, 3, 3] } else { &[0, 4, 0, 23, 0, 0] };
        body.extend_from_slice(versions);
        record(22, &message(1, &body))
    }

    pub fn server_hello(suite: u16, is_13: bool) -> Vec<u8> {
        let mut body = [&[3, 3][..], &[8; 32], &[0], &suite.to_be_bytes(), &[0]].concat();
        let extensions: &[u8] = if is_13 { &[0, 6, 0, 43, 0, 2, 3, 4] } else { &[0, 0] };
        body.extend_from_slice(extensions);
        record(22, &message(2, &body))
    }

    fn watch(steps: &[(Direction, &[u8])]) -> TlsWatch {
        let mut watch = TlsWatch::default();
        for (dir, bytes) in steps {
            watch.push(*dir, bytes);
        }
        watch
    }

    use Direction::{ToClient, ToServer};

    #[test]
    fn sessions_of_both_kinds_end_in_ciphertext_wherever_they_are_cut() {
        let (data, change) = (record(23, b"ciphertext"), record(20, &[1]));
        let finished = record(22, b"encrypted finished");
        let new = ([client_hello(true), server_hello(0x1301, true)], [change.clone(), data.clone()].concat(), data.clone());
        let old = [&change[..], &finished, &data].concat();
        let old = ([client_hello(false), server_hello(0xc02f, false)], old.clone(), old);
        for ([client, server], client_rest, server_rest) in [new, old] {
            for cut in 0..client.len() + server.len() + client_rest.len() + server_rest.len() {
                let mut watch = TlsWatch::default();
                let mut done = 0;
                for (dir, bytes) in [(ToServer, &client), (ToClient, &server), (ToServer, &client_rest), (ToClient, &server_rest)] {
                    assert!(!watch.is_encrypted());
                    let here = cut.saturating_sub(done).min(bytes.len());
                    watch.push(dir, &bytes[..here]);
                    watch.push(dir, &bytes[here..]);
                    done += bytes.len();
                }
                assert!(watch.is_encrypted() && watch.memory() == 0, "{cut}");
            }
        }
    }

    #[test]
    fn clear_text_dressed_as_records_is_not_believed() {
        let (data, change) = (record(23, b"GET /bin/sh"), record(20, &[1]));
        let hello = (client_hello(true), server_hello(0x1301, true));
        let both = |client: &[&[u8]], server: &[&[u8]]| watch(&[(ToServer, &client.concat()), (ToClient, &server.concat())]).is_encrypted();
        // The order of arrival is client's first, so the control case is one of TLS 1.3 with data behind the answer.
        assert!(watch(&[(ToServer, &hello.0), (ToClient, &[&hello.1[..], &data].concat()), (ToServer, &data)]).is_encrypted());
        // Headers alone; a handshake of no bytes; half a hello; rubbish in it.
        assert!(!both(&[&record(22, b"x"), &data], &[&record(22, b"y"), &data]));
        assert!(!both(&[&record(22, b""), &data], &[&record(22, b""), &data]));
        assert!(!both(&[&data], &[&data]));
        let mut torn = hello.0.clone();
        torn.truncate(40);
        torn[3..5].copy_from_slice(&35u16.to_be_bytes());
        assert!(!both(&[&torn, &data], &[&hello.1, &data]));
        // The server echoes, or answers with what was not offered, or before it was asked.
        for answer in [&hello.0[..], &server_hello(0x1302, true), &server_hello(0x002f, false)] {
            assert!(!watch(&[(ToServer, &hello.0), (ToClient, &[answer, &data].concat()), (ToServer, &data)]).is_encrypted());
        }
        assert!(!watch(&[(ToClient, &hello.1), (ToServer, &hello.0), (ToClient, &data), (ToServer, &data)]).is_encrypted());
        // 1.3 chosen though only 1.2 was offered.
        assert!(!watch(&[(ToServer, &client_hello(false)), (ToClient, &hello.1), (ToServer, &data), (ToClient, &data)]).is_encrypted());
        // 1.2 without ChangeCipherSpec in one of the directions, or with one that says something else.
        let old = (client_hello(false), server_hello(0xc02f, false));
        let good = [&change[..], &data].concat();
        let wrong = [&record(20, &[2])[..], &data].concat();
        for (client, server) in [(&data, &good), (&good, &data), (&wrong, &good)] {
            assert!(!watch(&[(ToServer, &old.0), (ToClient, &old.1), (ToServer, client), (ToClient, server)]).is_encrypted());
        }
        // Bytes were lost.
        let mut lost = watch(&[(ToServer, &hello.0), (ToClient, &hello.1)]);
        lost.give_up();
        lost.push(ToServer, &data);
        lost.push(ToClient, &data);
        assert!(!lost.is_encrypted());
    }

    #[test]
    fn every_byte_of_both_hellos_may_be_anything() {
        let data = record(23, b"x");
        let hello = [client_hello(true), server_hello(0x1301, true)];
        for which in 0..2 {
            for at in 0..hello[which].len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = hello.clone();
                    changed[which][at] = value;
                    let _ = watch(&[(ToServer, &changed[0]), (ToClient, &changed[1]), (ToServer, &data), (ToClient, &data)]).is_encrypted();
                }
            }
        }
        // A hello that never ends is not kept for ever.
        let mut endless = TlsWatch::default();
        endless.push(ToServer, &record(22, &[1, 0, 0x20, 0, 3, 3]));
        for _ in 0..100 {
            endless.push(ToServer, &record(22, &[0; 1000]));
            assert!(endless.memory() <= 2 * (HELLO_BYTES_MAX + 2_000));
        }
    }
}
