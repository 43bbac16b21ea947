//! Published captures against what their cases say of them: each value that a case expects of a record
//! has to be among the transactions of the capture.
//!
//! The reader of captures here is deliberately simple: classic files, Ethernet, cooked and raw IP, TCP bytes by sequence number
//! as far as they come without a hole.

mod play;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_applayer::{Buffer, Config, Context, Dir, Field, Protocol, Session, Sink, Transaction, Transport};

/// Values of one capture, by buffer.
#[derive(Default)]
struct Seen {
    values: Vec<(Buffer, Vec<u8>)>,
    numbers: Vec<(Field, u64)>,
    /// All of `file.data`, by transaction and the value's number in it.
    files: BTreeMap<(u64, usize), Vec<u8>>,
    transactions: u64,
    /// `PROTOCOL.PATH=VALUE` of what is for the log.
    notes: Vec<String>,
    recognised: std::collections::BTreeSet<&'static str>,
}

impl Sink for Seen {
    fn recognised(&mut self, protocol: Protocol) {
        self.recognised.insert(protocol.name());
    }

    fn update(&mut self, tx: &mut Transaction, _: Dir) {
        if tx.user == 0 {
            self.transactions += 1;
            tx.user = self.transactions;
        }
        for value in tx.news().filter(|value| value.buffer == Buffer::FileData) {
            let window = tx.window(value);
            let number = tx.values().iter().position(|other| std::ptr::eq(other, value)).unwrap_or(usize::MAX);
            self.files.entry((tx.user, number)).or_default().extend_from_slice(&window.bytes[window.fresh..]);
        }
    }

    fn complete(&mut self, tx: &mut Transaction) {
        self.notes.extend(play::paths(tx).into_iter().map(|path| format!("{}.{path}", tx.protocol.name())));
        self.numbers.extend(tx.integers().iter().map(|(field, _, number)| (*field, *number)));
        self.values.extend(tx.values().iter().filter(|value| !value.is_stream()).map(|value| (value.buffer, tx.bytes(value).to_vec())));
    }
}

/// What a record calls a buffer.
const KEYS: &[(&str, Buffer)] = &[
    ("tls.sni", Buffer::TlsSni),
    ("tls.subject", Buffer::TlsCertSubject),
    ("tls.issuerdn", Buffer::TlsCertIssuer),
    ("tls.serial", Buffer::TlsCertSerial),
    ("tls.fingerprint", Buffer::TlsCertFingerprint),
    ("tls.ja3.hash", Buffer::Ja3Hash),
    ("tls.ja3.string", Buffer::Ja3String),
    ("tls.ja3s.hash", Buffer::Ja3sHash),
    ("tls.ja3s.string", Buffer::Ja3sString),
    ("tls.ja4", Buffer::Ja4Hash),
    ("ssh.client.software_version", Buffer::SshSoftware),
    ("ssh.server.software_version", Buffer::SshSoftware),
    ("ssh.client.proto_version", Buffer::SshProto),
    ("ssh.client.hassh.hash", Buffer::SshHassh),
    ("ssh.client.hassh.string", Buffer::SshHasshString),
    ("ssh.server.hassh.hash", Buffer::SshHasshServer),
    ("ssh.server.hassh.string", Buffer::SshHasshServerString),
    ("ftp.command", Buffer::FtpCommand),
    ("ftp.command_data", Buffer::FtpCommandData),
    ("ftp.reply[0]", Buffer::FtpReply),
    ("ftp.completion_code[0]", Buffer::FtpCompletionCode),
    ("smtp.helo", Buffer::SmtpHelo),
    ("smtp.mail_from", Buffer::SmtpMailFrom),
    ("smtp.rcpt_to[0]", Buffer::SmtpRcptTo),
    ("email.from", Buffer::EmailFrom),
    ("email.subject", Buffer::EmailSubject),
    ("email.date", Buffer::EmailDate),
    ("email.x_mailer", Buffer::EmailXMailer),
    ("email.received[0]", Buffer::EmailReceived),
    ("email.attachment[0]", Buffer::FileName),
    ("http.hostname", Buffer::HttpHost),
    ("http.url", Buffer::HttpUriRaw),
    ("http.http_method", Buffer::HttpMethod),
    ("http.http_user_agent", Buffer::HttpUserAgent),
    ("http.http_refer", Buffer::HttpReferer),
    ("http.protocol", Buffer::HttpProtocol),
    ("http.status", Buffer::HttpStatCode),
    ("dns.queries[0].rrname", Buffer::DnsQueriesRrname),
    ("dns.query[0].rrname", Buffer::DnsQueriesRrname),
    ("dns.rrname", Buffer::DnsQueriesRrname),
    ("dns.answers[0].rrname", Buffer::DnsAnswersRrname),
];

/// Kinds of records that are compared.
const KINDS: &[&str] = &["tls", "http", "dns", "ssh", "ftp", "smtp", "dcerpc"];

/// What a record calls a number.
const NUMBERS: &[(&str, Field)] = &[("dcerpc.req.opnum", Field::DcerpcOpnum), ("dcerpc.call_id", Field::DcerpcCallId)];

/// Kinds of records that are all notes.
const RECORDS: &[&str] = &[
    "dcerpc", "dhcp", "dnp3", "ike", "krb5", "ldap", "modbus", "mqtt", "nfs", "ntp", "pgsql", "pop3", "quic", "rdp", "rfb", "sip", "smb",
    "snmp", "tftp",
];

#[derive(Debug, Clone)]
enum Name {
    Buffer(Buffer),
    Field(Field),
    Note(String),
}

/// One flow as it was seen: by sequence number for TCP, in order else.
#[derive(Default)]
struct Talk {
    tcp: bool,
    /// Next sequence numbers, and what came early.
    next: [Option<u32>; 2],
    early: [BTreeMap<u32, Vec<u8>>; 2],
    session: Option<Session>,
}

/// `cut`: no more bytes than these at once.
fn read(path: &Path, config: Config, cut: usize) -> Option<Seen> {
    let file = std::fs::read(path).ok()?;
    let u32_at = |at: usize| -> Option<[u8; 4]> { file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()) };
    let little = match u32_at(0)? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
        _ => return None,
    };
    let number = |bytes: [u8; 4]| if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    let link = number(u32_at(20)?);
    let (mut at, mut seen, mut context) = (24, Seen::default(), Context::new(config));
    let mut talks: BTreeMap<Vec<u8>, (Vec<u8>, Talk)> = BTreeMap::new();
    while let Some(len) = u32_at(at + 8) {
        let len = number(len) as usize;
        let Some(frame) = file.get(at + 16..at + 16 + len) else { break };
        at += 16 + len;
        packet(frame, link, cut, &mut talks, &mut context, &mut seen);
    }
    for (_, talk) in talks.values_mut() {
        if let Some(session) = &mut talk.session {
            session.close(&mut context, &mut seen);
        }
    }
    Some(seen)
}

fn packet(
    frame: &[u8],
    link: u32,
    cut: usize,
    talks: &mut BTreeMap<Vec<u8>, (Vec<u8>, Talk)>,
    context: &mut Context,
    seen: &mut Seen,
) -> Option<()> {
    let mut rest = match link {
        1 => {
            let mut at = 12;
            while matches!(frame.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
                at += 4;
            }
            frame.get(at + 2..)?
        }
        113 => frame.get(16..)?,
        0 => frame.get(4..)?,
        _ => frame,
    };
    let (kind, from, to, payload) = match rest.first()? >> 4 {
        4 => {
            let len = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
            rest = rest.get(..len).unwrap_or(rest);
            (*rest.get(9)?, rest.get(12..16)?, rest.get(16..20)?, rest.get(usize::from(rest[0] & 15) * 4..)?)
        }
        6 => {
            let len = usize::from(u16::from_be_bytes([*rest.get(4)?, *rest.get(5)?]));
            rest = rest.get(..40 + len).unwrap_or(rest);
            (*rest.get(6)?, rest.get(8..24)?, rest.get(24..40)?, rest.get(40..)?)
        }
        _ => return None,
    };
    let (from, to) = ([from, payload.get(..2)?].concat(), [to, payload.get(2..4)?].concat());
    let mut key = [from.as_slice().min(&to), from.as_slice().max(&to)].concat();
    key.push(kind);
    let (client, talk) = talks.entry(key).or_insert_with(|| (from.clone(), Talk::default()));
    match kind {
        17 => {
            let dir = if *client == from { Dir::ToServer } else { Dir::ToClient };
            let session = talk.session.get_or_insert_with(|| Session::new(Transport::Udp));
            session.data(dir, payload.get(8..)?, context, seen);
        }
        6 => {
            let sequence = u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?);
            let flags = *payload.get(13)?;
            let bytes = payload.get(usize::from(payload[12] >> 4) * 4..)?;
            if !talk.tcp {
                talk.tcp = true;
                // An answer to a connection whose beginning is not there.
                if flags & 0x12 == 0x12 {
                    client.clone_from(&to);
                }
            }
            let dir = if *client == from { Dir::ToServer } else { Dir::ToClient };
            let session = talk.session.get_or_insert_with(|| Session::new(Transport::Tcp));
            let side = dir as usize;
            if flags & 2 != 0 {
                talk.next[side] = Some(sequence.wrapping_add(1));
            }
            let next = talk.next[side].get_or_insert(sequence);
            if !bytes.is_empty() {
                let first = sequence.wrapping_add(u32::from(flags >> 1 & 1));
                talk.early[side].entry(first).or_insert_with(|| bytes.to_vec());
            }
            // What begins at or before the next byte and goes beyond it.
            while let Some((&first, _)) = talk.early[side].iter().find(|(first, _)| next.wrapping_sub(**first) < 1 << 30) {
                let bytes = talk.early[side].remove(&first)?;
                if let Some(fresh) = bytes.get(next.wrapping_sub(first) as usize..).filter(|fresh| !fresh.is_empty()) {
                    *next = next.wrapping_add(fresh.len() as u32);
                    fresh.chunks(cut).for_each(|piece| session.data(dir, piece, context, seen));
                }
            }
        }
        _ => {}
    }
    Some(())
}

/// What one filter of a case wants: values that are in some record of its capture.
fn wanted(case: &str) -> Vec<(Name, String)> {
    let mut all = Vec::new();
    for filter in case.split("filter:").skip(1) {
        let kind = KINDS.iter().chain(RECORDS).find(|kind| filter.lines().any(|line| line.trim() == format!("event_type: {kind}")));
        if kind.is_none()
            || filter.lines().any(|line| line.trim() == "count: 0" || line.contains("max-version") || line.contains("lt-version"))
        {
            continue;
        }
        let mut lines = filter.lines().peekable();
        while let Some(line) = lines.next() {
            // A value may go on in the next line.
            if lines.peek().is_some_and(|next| !next.trim().is_empty() && !next.contains(": ") && !next.trim_end().ends_with(':')) {
                continue;
            }
            let Some((key, value)) = line.trim().split_once(": ") else { continue };
            let value = value.trim();
            let inner = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
            let value = inner('"').or_else(|| inner('\'')).unwrap_or(value);
            if let Some(kind) = kind.filter(|kind| RECORDS.contains(kind))
                && key.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'))
                && !key.contains("__")
                && !value.starts_with(['[', '{', '|'])
                && !value.contains(['\\', '\''])
            {
                all.push((Name::Note(key.to_owned()), value.to_owned()));
            }
            if let Some((_, field)) = NUMBERS.iter().find(|(of, _)| *of == key) {
                all.push((Name::Field(*field), value.to_owned()));
            }
            if let Some((_, buffer)) = KEYS.iter().find(|(of, _)| *of == key) {
                // Escapes, folded lines and patterns are not read here.
                if !value.is_empty() && !value.contains('\\') && !value.starts_with('|') && !value.starts_with('>') && !value.ends_with(',')
                {
                    all.push((Name::Buffer(*buffer), value.to_owned()));
                }
            }
        }
    }
    all
}

fn cases(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && depth < 4 {
            cases(&path, depth + 1, found);
        } else if path.file_name().is_some_and(|name| name == "test.yaml") {
            found.push(path);
        }
    }
}

/// The capture of a case: named, or the only one in its folder.
fn capture(case: &Path, text: &str) -> Option<PathBuf> {
    let folder = case.parent()?;
    if let Some(named) = text.lines().find_map(|line| line.strip_prefix("pcap:")) {
        return Some(folder.join(named.trim()));
    }
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng"))
}

/// Cases whose values may be missing, and why.
const KNOWN: &[(&str, &str)] = &[
    ("decode-chdlc-02", "link type that the reader here does not know"),
    ("decode-teredo-01", "tunnel that the reader here does not know"),
    ("ldap-unsolicited", "its first packet is the server's, and the reader here does not turn the flow round"),
    ("mqtt-limit-1", "another limit than the default"),
    ("mqtt-limit-2", "another limit than the default"),
    ("mqtt-limit-3", "another limit than the default"),
    ("mqtt-midstream-split", "begins with an answer, which the reader here takes for a request"),
    ("smb1-03-midstream", "its first packet is the server's, and the reader here does not turn the flow round"),
    ("truncate-applayer-test-01", "the case stops reading at a depth"),
];

#[test]
fn captures_have_the_values_that_their_cases_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the root of the repository");
    let tests = root.join("../shared/data/suricata-verify/tests");
    let mut all = Vec::new();
    cases(&tests, 0, &mut all);
    if all.is_empty() {
        println!("NOT RUN: captures_have_the_values_that_their_cases_name (no captures beside the repository)");
        return;
    }
    let (mut checked, mut missing) = (0, Vec::new());
    for case in all {
        let Ok(text) = std::fs::read_to_string(&case) else { continue };
        let wanted = wanted(&text);
        if wanted.is_empty() {
            continue;
        }
        let Some(seen) = capture(&case, &text).and_then(|path| read(&path, Config::default(), usize::MAX)) else { continue };
        let name = case.parent().and_then(|folder| folder.strip_prefix(&tests).ok()).unwrap_or(&case).display().to_string();
        for (wanted, value) in wanted {
            checked += 1;
            let found = match &wanted {
                Name::Buffer(buffer) => seen.values.iter().any(|(of, bytes)| of == buffer && bytes == value.as_bytes()),
                Name::Field(field) => seen.numbers.iter().any(|(of, number)| of == field && number.to_string() == value),
                Name::Note(path) => seen.notes.contains(&format!("{path}={value}")),
            };
            if !found && !KNOWN.iter().any(|(known, _)| name == *known) {
                missing.push(format!("{name}: {wanted:?} {value}"));
            }
        }
    }
    println!("{checked} values checked");
    assert!(checked > 300 && missing.is_empty(), "{checked} checked, {} missing:\n{}", missing.len(), missing.join("\n"));
}

/// The cases of an evasion tool: an answer dressed up in odd ways, which browsers take for a test virus.
#[test]
fn the_test_virus_is_found_in_every_dress_that_the_reference_engine_sees_through() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the root of the repository");
    let mut all = Vec::new();
    cases(&root.join("../shared/data/suricata-verify/tests/http-evader"), 0, &mut all);
    if all.is_empty() {
        println!(
            "NOT RUN: the_test_virus_is_found_in_every_dress_that_the_reference_engine_sees_through (no captures beside the repository)"
        );
        return;
    }
    let (mut checked, mut wrong) = (0, Vec::new());
    for case in all {
        let Ok(text) = std::fs::read_to_string(&case) else { continue };
        let Some(count) = text.split("filter:").find(|filter| filter.contains("signature_id: 2")).and_then(|filter| {
            filter.lines().find_map(|line| line.trim().strip_prefix("count: ")).and_then(|count| count.trim().parse::<u32>().ok())
        }) else {
            continue;
        };
        let config = Config { coding_layers_max: if text.contains("layer-limit=3") { 3 } else { 2 }, ..Config::default() };
        let Some(path) = capture(&case, &text) else { continue };
        for cut in [usize::MAX, 1, 7] {
            let Some(seen) = read(&path, config.clone(), cut) else { continue };
            checked += 1;
            let has = |text: &[u8]| seen.files.values().any(|file| memchr::memmem::find(file, text).is_some());
            let found = has(b"X5O!P%@AP[4") && has(b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE");
            let named = text.lines().find_map(|line| line.trim().strip_prefix("fileinfo.filename: ")).unwrap_or_default();
            let is_named = |(buffer, bytes): &(Buffer, Vec<u8>)| *buffer == Buffer::FileName && bytes == named.as_bytes();
            if !named.is_empty() && !seen.values.iter().any(is_named) {
                let names: Vec<_> = seen
                    .values
                    .iter()
                    .filter(|(buffer, _)| *buffer == Buffer::FileName)
                    .map(|(_, name)| name.escape_ascii().to_string())
                    .collect();
                wrong.push(format!("{} by {cut}: {named} {names:?}", case.display()));
            }
            if found != (count > 0) {
                wrong.push(format!("{} by {cut}: {count} {found}", case.display()));
            }
        }
    }
    println!("{checked} cases checked");
    assert!(checked > 900 && wrong.is_empty(), "{checked} checked, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Captures under a folder that are small enough to be read byte by byte.
fn small_captures(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    const BYTES_MAX: u64 = 300_000;
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth < 6 {
            small_captures(&path, depth + 1, found);
        } else if entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= BYTES_MAX) {
            found.push(path);
        }
    }
}

#[test]
fn captures_of_all_kinds_say_the_same_byte_by_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the root of the repository");
    let mut all = Vec::new();
    small_captures(&root.join("../shared/data/pcaps"), 0, &mut all);
    small_captures(&root.join("../shared/data/suricata-verify"), 0, &mut all);
    if all.is_empty() {
        println!("NOT RUN: captures_of_all_kinds_say_the_same_byte_by_byte (no captures beside the repository)");
        return;
    }
    all.sort();
    let (mut checked, mut wrong) = (0, Vec::new());
    for path in &all {
        let Some(whole) = read(path, Config::default(), usize::MAX) else { continue };
        checked += 1;
        let Some(cut) = read(path, Config::default(), 1) else { continue };
        if whole.values != cut.values || whole.numbers != cut.numbers || whole.files != cut.files {
            let other = whole.values.iter().zip(&cut.values).find(|(a, b)| a != b);
            let other = other.map(|((buffer, a), (_, b))| format!("{} {} | {}", buffer.name(), a.escape_ascii(), b.escape_ascii()));
            wrong.push(format!("{}: {} {} values, {other:?}", path.display(), whole.values.len(), cut.values.len()));
        }
    }
    println!("{checked} captures compared");
    assert!(checked > 1000 && wrong.is_empty(), "{checked} compared, {} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Protocols that are rare enough for a capture to be named for them: what its path says then, or that of one known to have it too.
const NAMED: &[(&str, &[&str])] = &[
    ("mqtt", &["mqtt", "arkime_synthetic"]),
    ("mysql", &["mysql", "arkime_synthetic", "no-syn-ack", "community-id-sameip"]),
    ("ntp", &["ntp", "ospf", "tls_certificate_too_long"]),
    ("pgsql", &["pgsql", "postgres", "arkime_synthetic"]),
    ("quic", &["quic", "ja4", "arkime_synthetic"]),
    ("redis", &["redis", "arkime_synthetic"]),
    ("sip", &["sip", "fuzz-2006-06-26-2594", "arkime_synthetic"]),
    ("tftp", &["tftp", "arkime_synthetic"]),
    ("websocket", &["websocket", "arkime_synthetic"]),
];

#[test]
fn nothing_else_is_taken_for_what_captures_are_named_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the root of the repository");
    let mut all = Vec::new();
    small_captures(&root.join("../shared/data/pcaps"), 0, &mut all);
    small_captures(&root.join("../shared/data/suricata-verify"), 0, &mut all);
    if all.is_empty() {
        println!("NOT RUN: nothing_else_is_taken_for_what_captures_are_named_for (no captures beside the repository)");
        return;
    }
    let (mut found, mut wrong) = (BTreeMap::<&str, u32>::new(), Vec::new());
    for path in &all {
        let Some(seen) = read(path, Config::default(), usize::MAX) else { continue };
        let name = path.display().to_string().to_ascii_lowercase();
        for (protocol, words) in NAMED.iter().filter(|(protocol, _)| seen.recognised.contains(protocol)) {
            *found.entry(protocol).or_default() += 1;
            if !words.iter().any(|word| name.contains(word)) {
                wrong.push(format!("{protocol}: {name}"));
            }
        }
    }
    println!("{found:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(NAMED.iter().all(|(protocol, _)| found.get(protocol).is_some_and(|count| *count >= 3)), "{found:?}");
}
