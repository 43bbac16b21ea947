//! One rule on transactions: the tests that have to hold, each for itself, and what makes it a candidate.

use bulkhead_rules::tree::{Base, Endian};

use super::condition::{FileTest, Other, as_list};
use super::*;
use crate::sets::Sets;

#[derive(Debug)]
pub(crate) struct TxRule {
    /// Protocols as recognised, one bit each.
    pub(super) apps: u64,
    pub(super) tests: Vec<Test>,
    pub(super) trigger: Trigger,
    /// It waits for a flow bit, which a later part of the same message may set: told again as long as this direction goes on,
    /// so that it makes no difference how a message is cut.
    pub(super) again: Option<Direction>,
    /// A rule that names no direction, and could match in each: this is its form for the server's, and here is the other. Each is told
    /// of for itself, once.
    pub(super) turned: Option<Box<TxRule>>,
    /// To run it changes a set.
    pub(super) writes: bool,
}

/// What makes a rule a candidate.
#[derive(Debug, Clone)]
pub(super) enum Trigger {
    /// Place of a list, and a literal in it: without one, that its buffer is there.
    List(usize, Option<(Vec<u8>, bool)>),
    /// A literal in the payload.
    Payload((Vec<u8>, bool)),
    /// Without a name of its own any event of the protocol.
    Event(Option<&'static str>),
    Number(Field),
    File,
    Start,
}

/// One of the things that have to hold of a transaction, each for itself.
#[derive(Debug)]
pub(super) enum Test {
    List(List),
    Number {
        test: IntegerTest,
        to_server: bool,
        to_client: bool,
    },
    Event(Option<&'static str>),
    /// The version of TLS that the hello of a direction says: any of these, each negated or not.
    TlsVersion {
        versions: Vec<(bool, u64)>,
        to_server: bool,
        to_client: bool,
    },
    /// A PORT command with another address than the client's.
    FtpBounce,
    /// A condition that is decided on the numbers and stages of a transaction alone.
    Other(Other),
    /// A file of which all of this holds.
    File {
        file: FileTest,
        to_server: bool,
        to_client: bool,
    },
    /// Contents of the payload; asked when all else holds.
    Payload {
        steps: Steps,
        /// As of a list.
        steps_big: Option<Steps>,
        to_server: bool,
        to_client: bool,
    },
}

#[derive(Debug)]
pub(super) struct List {
    pub(super) buffer: BufferId,
    /// Where it may hold: to the server, to the client.
    pub(super) to_server: bool,
    pub(super) to_client: bool,
    pub(super) transforms: Arc<[Built]>,
    pub(super) steps: Steps,
    /// The same for numbers in network order, where that makes a difference.
    pub(super) steps_big: Option<Steps>,
    pub(super) absent: Absent,
    /// Place of the list that sets names which this one uses.
    pub(super) after: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    No,
    /// The buffer must not be there.
    Must,
    /// It is not there, or the matches hold.
    May,
}

impl TxRule {
    /// `None`: not a rule of transactions.
    pub(crate) fn new(rule: &Rule) -> Result<Option<Self>, (Code, String)> {
        let has_way = rule
            .signature
            .flow
            .iter()
            .any(|word| matches!(word, FlowWord::ToServer | FlowWord::ToClient | FlowWord::FromServer | FlowWord::FromClient));
        let Some(both) = Self::of(rule, None)? else { return Ok(None) };
        if has_way || rule.header.direction == bulkhead_rules::Direction::Transaction || !both.tests.iter().all(Test::is_of_either) {
            return Ok(Some(both));
        }
        let turned = Self::of(rule, Some(Direction::ToClient))?.map(Box::new);
        Ok(Self::of(rule, Some(Direction::ToServer))?.map(|one| Self { turned, ..one }))
    }

    fn of(rule: &Rule, only: Option<Direction>) -> Result<Option<Self>, (Code, String)> {
        let signature = &rule.signature;
        // What is decoded of the payload is the payload's.
        let named = signature
            .buffers
            .iter()
            .any(|list| matches!(list.buffer, BufferName::Named(id) if id != BufferId::Base64Data && !is_of_packet(id)));
        let hooked = rule.header.hook.is_some() && matches!(rule.header.protocol, bulkhead_rules::Protocol::App(_));
        let of_dce = signature.buffers.iter().flat_map(|list| &list.matches).any(of_dce);
        let of_file = FileTest::of(rule);
        if !named && !hooked && !of_dce && of_file.is_none() && !signature.conditions.iter().any(is_of_transactions) {
            return Ok(None);
        }
        if let Some(reason) = refused_beside_buffers(rule, |condition| is_of_flow(condition) || is_of_transactions(condition)) {
            return Err(reason);
        }
        let unsupported = |what: &str| Err((Code::KeywordUnsupported, format!("{what} is not supported yet")));
        if !signature.packet.is_empty() {
            return unsupported("a packet keyword beside a buffer of transactions");
        }
        if signature.buffers.len() + signature.conditions.len() > LISTS_MAX {
            return unsupported("a rule with more than 32 lists of matches");
        }
        let has = |word: FlowWord| signature.flow.contains(&word);
        let to_server = has(FlowWord::ToServer) || has(FlowWord::FromClient) || only == Some(Direction::ToServer);
        let to_client = has(FlowWord::ToClient) || has(FlowWord::FromServer) || only == Some(Direction::ToClient);
        let (to_server, to_client) = (to_server && !to_client, to_client && !to_server);
        let mut tests: Vec<Test> = Vec::new();
        let inner = decoded(signature).map_or(&[][..], |list| &list.matches);
        for list in signature.buffers.iter().filter(|list| list.buffer != BufferName::Named(BufferId::Base64Data)) {
            tests.push(match list.buffer {
                BufferName::Payload => {
                    if !list.transforms.is_empty() {
                        return unsupported("transforms of the payload");
                    }
                    if let Some(reason) = list.matches.iter().find_map(refused_match) {
                        return Err(reason);
                    }
                    let steps = Steps::with(&list.matches, inner, &[]).map_err(|message| (Code::PcreUnsupported, message))?;
                    let big = big_endian(&list.matches).map(|big| Steps::with(&big, inner, &[])).transpose();
                    let steps_big = big.map_err(|message| (Code::PcreUnsupported, message))?;
                    Test::Payload { steps, steps_big, to_server: !to_client, to_client: !to_server }
                }
                BufferName::Named(_) | BufferName::Frame { .. } => Test::List(List::new(list, to_server, to_client, inner, &tests)?),
            });
        }
        // Counters, bits and sizes are the flow's or its hosts'.
        for condition in signature.conditions.iter().filter(|condition| !is_of_flow(condition) && !FileTest::is_one(condition)) {
            tests.push(match condition {
                Condition::Integer(test) if as_list(condition).is_none() => {
                    if test.towards.is_some_and(|towards| towards == Towards::Both) {
                        return unsupported("a number of both directions at once");
                    }
                    let (server, client) = (test.towards == Some(Towards::ToServer), test.towards == Some(Towards::ToClient));
                    Test::Number { test: test.clone(), to_server: !client && !to_client, to_client: !server && !to_server }
                }
                Condition::AppLayerEvent { event, .. } => Test::Event(*event),
                Condition::TlsVersion(version) => {
                    Test::TlsVersion { versions: vec![(false, wire(*version))], to_server: !to_client, to_client: !to_server }
                }
                Condition::SslVersion(versions) => Test::TlsVersion {
                    versions: versions.iter().map(|(negated, version)| (*negated, wire(*version))).collect(),
                    to_server: !to_client,
                    to_client: !to_server,
                },
                Condition::FtpBounce => Test::FtpBounce,
                _ => match (as_list(condition), Other::new(condition, only)?) {
                    (Some(list), _) => Test::List(List::new(&list, to_server, to_client, &[], &[])?),
                    (None, Some(other)) => Test::Other(other),
                    (None, None) => return unsupported("a condition of the rule"),
                },
            });
        }
        if let Some((file, towards)) = of_file {
            let (server, client) = (towards == Some(Towards::ToServer), towards == Some(Towards::ToClient));
            tests.push(Test::File { file, to_server: !client && !to_client, to_client: !server && !to_server });
        }
        tests.extend(Other::hook(&rule.header)?.map(Test::Other));
        let trigger = trigger(rule, &tests, only.is_none());
        let mut compiled = Self {
            apps: if of_dce && signature.apps.is_empty() { apps_of(&[App::Dcerpc, App::Smb]) } else { apps_of(&signature.apps) },
            tests,
            trigger,
            again: None,
            turned: None,
            writes: false,
        };
        compiled.writes = compiled.changes();
        let waits = |condition: &Condition| matches!(condition, Condition::Xbits(bits) if bits.track == XbitsTrack::Transaction);
        if signature.flowbits.iter().any(|bits| bits.operation == FlowbitsOperation::IsSet) || signature.conditions.iter().any(waits) {
            compiled.again = match (to_server, to_client) {
                (true, _) => Some(Direction::ToServer),
                (_, true) => Some(Direction::ToClient),
                (false, false) => compiled.direction(),
            };
        }
        Ok(Some(compiled))
    }

    /// Whether it may be told of more than once in a transaction.
    pub(crate) const fn is_told_again(&self) -> bool {
        self.again.is_some()
    }

    /// To run it changes a set.
    fn changes(&self) -> bool {
        self.tests.iter().any(|test| match test {
            Test::List(List { steps, .. }) | Test::Payload { steps, .. } => steps.writes(),
            _ => false,
        })
    }

    /// Joins it to the sets that it names.
    pub(crate) fn bind(&mut self, sets: &mut Sets<'_>) -> Result<(), String> {
        for test in &mut self.tests {
            match test {
                Test::File { file, .. } => file.bind(sets)?,
                Test::List(list) => {
                    list.steps.bind(sets)?;
                    list.steps_big.as_mut().map_or(Ok(()), |steps| steps.bind(sets))?;
                }
                Test::Payload { steps, steps_big, .. } => {
                    steps.bind(sets)?;
                    steps_big.as_mut().map_or(Ok(()), |steps| steps.bind(sets))?;
                }
                Test::Number { .. } | Test::Event(_) | Test::TlsVersion { .. } | Test::FtpBounce | Test::Other(_) => {}
            }
        }
        self.turned.as_mut().map_or(Ok(()), |turned| turned.bind(sets))
    }

    /// Whether it is told of in each direction for itself.
    pub(crate) const fn is_in_each(&self) -> bool {
        self.turned.is_some()
    }

    /// Where it can match, when its tests are all of one direction.
    pub(crate) fn direction(&self) -> Option<Direction> {
        let all = |server: bool| {
            self.tests.iter().all(|test| match test {
                Test::List(List { to_server, to_client, .. })
                | Test::Number { to_server, to_client, .. }
                | Test::File { to_server, to_client, .. }
                | Test::TlsVersion { to_server, to_client, .. } => {
                    if server {
                        *to_server && !to_client
                    } else {
                        *to_client && !to_server
                    }
                }
                // Goes by the others.
                Test::Payload { .. } => true,
                Test::FtpBounce => server,
                Test::Other(other) => other.direction() == Some(if server { Direction::ToServer } else { Direction::ToClient }),
                Test::Event(_) => false,
            })
        };
        if all(true) {
            Some(Direction::ToServer)
        } else if all(false) {
            Some(Direction::ToClient)
        } else {
            None
        }
    }
}

/// A bit for each protocol as recognised.
pub(crate) fn apps_of(apps: &[App]) -> u64 {
    if apps.is_empty() { u64::MAX } else { apps.iter().flat_map(|app| app.members()).fold(0, |apps, app| apps | bit(app)) }
}

/// Conditions that are asked of a transaction.
pub(crate) fn is_of_transactions(condition: &Condition) -> bool {
    as_list(condition).is_some()
        || Other::is_one(condition)
        || FileTest::is_one(condition)
        || match condition {
            Condition::Integer(test) => APP_NUMBERS.contains(&test.field),
            Condition::AppLayerEvent { protocol: Some(app), .. } => is_parsed(*app),
            Condition::TlsVersion(_) | Condition::SslVersion(_) | Condition::FtpBounce => true,
            _ => false,
        }
}

/// Numbers that a parser gives.
pub(super) static APP_NUMBERS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let known = |field: &&Field| bulkhead_applayer::Field::from_name(field.name()).is_some();
    Field::ALL.iter().filter(known).copied().collect()
});

/// Whether a parser for this protocol, or one of those that its name stands for, is built.
pub(crate) fn is_parsed(app: App) -> bool {
    app.members().any(|member| crate::app::PROTOCOLS.contains(&Some(member)))
}

/// Bytes of a literal that says enough to wait for.
const GATE_BYTES_MIN: usize = 5;

/// `gated`: it may wait for the payload; one form for each direction cannot.
pub(super) fn trigger(rule: &Rule, tests: &[Test], gated: bool) -> Trigger {
    let named = fast_pattern(rule);
    let gate = || gate(rule, named.as_ref().map_or(0, |(_, (bytes, _))| bytes.len()));
    if let Some(literal) = gated.then(gate).flatten() {
        return Trigger::Payload(literal);
    }
    if let Some((place, literal)) = named {
        return Trigger::List(place, Some(literal));
    }
    // Addresses are there from the beginning, and are no news.
    let there = tests.iter().position(|test| matches!(test, Test::List(list) if list.absent == Absent::No && !is_of_packet(list.buffer)));
    if let Some(place) = there {
        return Trigger::List(place, None);
    }
    let found = tests.iter().find_map(|test| match test {
        Test::Event(name) => Some(Trigger::Event(*name)),
        Test::Number { test, .. } if matches!(test.which, Which::Any | Which::All | Which::Index(_)) => Some(Trigger::Number(test.field)),
        Test::File { .. } => Some(Trigger::File),
        Test::List(_) | Test::Number { .. } | Test::Payload { .. } | Test::TlsVersion { .. } | Test::FtpBounce | Test::Other(_) => None,
    });
    found.unwrap_or(Trigger::Start)
}

/// The list in which a rule's literal stands, and the literal: the author's choice, else the longest.
pub(super) fn fast_pattern(rule: &Rule) -> Option<(usize, (Vec<u8>, bool))> {
    let contents = || {
        let tested = rule.signature.buffers.iter().filter(|list| list.buffer != BufferName::Named(BufferId::Base64Data));
        tested.enumerate().flat_map(|(place, list)| {
            // Where a missing buffer is a match too, its bytes decide nothing.
            let absent = list.matches.iter().any(|found| matches!(found, Match::Absent { .. }));
            let optional = absent || !matches!(list.buffer, BufferName::Named(id) if id != BufferId::Base64Data);
            list.matches.iter().filter(move |_| !optional).filter_map(move |found| match found {
                Match::Content(content) if !content.negated => Some((place, content)),
                _ => None,
            })
        })
    };
    let chosen = contents().find(|(_, content)| content.fast_pattern.is_some());
    let (place, content) = chosen.or_else(|| contents().max_by_key(|(_, content)| content.bytes.len()))?;
    Some((place, (literal(content).to_vec(), content.nocase)))
}

/// A literal in the payload, where it says more than the best one of the buffers, which has `named` bytes: the author's choice,
/// else the longest.
fn gate(rule: &Rule, named: usize) -> Option<(Vec<u8>, bool)> {
    let of = |wanted: fn(&BufferName) -> bool| {
        let lists = rule.signature.buffers.iter().filter(move |list| wanted(&list.buffer));
        lists.flat_map(|list| &list.matches).filter_map(|found| match found {
            Match::Content(content) if !content.negated => Some(content),
            _ => None,
        })
    };
    let payload = || of(|buffer| *buffer == BufferName::Payload);
    let chosen = |content: &&ContentMatch| content.fast_pattern.is_some();
    let content = match payload().find(chosen) {
        Some(content) => content,
        None if of(|buffer| *buffer != BufferName::Payload).any(|content| content.fast_pattern.is_some()) => return None,
        None => payload().max_by_key(|content| content.bytes.len()).filter(|_| named < GATE_BYTES_MIN)?,
    };
    let literal = literal(content);
    (literal.len() >= GATE_BYTES_MIN).then(|| (literal.to_vec(), content.nocase))
}

pub(super) fn literal(content: &ContentMatch) -> &[u8] {
    let bytes = match content.fast_pattern {
        Some(FastPattern::Chop { offset, length }) => {
            content.bytes.get(usize::from(offset)..usize::from(offset) + usize::from(length)).unwrap_or(&content.bytes)
        }
        Some(FastPattern::Whole | FastPattern::Only) | None => &content.bytes,
    };
    &bytes[..bytes.len().min(LITERAL_BYTES_MAX)]
}

pub(super) enum Decision {
    Holds,
    Never,
    NotYet,
}

impl Test {
    /// It can hold in each direction for itself.
    fn is_of_either(&self) -> bool {
        match self {
            Self::List(List { to_server, to_client, .. })
            | Self::Number { to_server, to_client, .. }
            | Self::TlsVersion { to_server, to_client, .. }
            | Self::File { to_server, to_client, .. }
            | Self::Payload { to_server, to_client, .. } => *to_server && *to_client,
            Self::Other(other) => other.direction().is_none(),
            Self::Event(_) | Self::FtpBounce => false,
        }
    }

    pub(super) fn decide(&self, rule: &TxRule, values: &impl Values, scratch: &mut TxScratch, work: &mut Work) -> Decision {
        let apps = rule.apps;
        match self {
            Self::List(list) => {
                let before = list.after.and_then(|place| rule.tests.get(place));
                let Some(Self::List(before)) = before else { return list.decide(values, None, scratch, work) };
                match before.names(values, scratch, work) {
                    Some(names) => list.decide(values, Some(&names), scratch, work),
                    // It may hold later, or never: it is asked itself.
                    None => Decision::NotYet,
                }
            }
            Self::TlsVersion { versions, to_server, to_client } => {
                let dirs =
                    || [(*to_server, Direction::ToServer), (*to_client, Direction::ToClient)].into_iter().filter(|(there, _)| *there);
                let holds = |found: u64| {
                    // Drafts of 1.3 are 1.3.
                    let found = if found >> 8 == 0x7f { 0x0304 } else { found };
                    // Any of the list: `!tls1.3,tls1.2` is what is not 1.3, or is 1.2.
                    versions.iter().any(|(negated, version)| (*version == found) != *negated)
                };
                work.charge(1);
                let found = dirs().flat_map(|(_, dir)| values.named("tls.version", dir)).any(holds);
                match (found, dirs().all(|(_, dir)| values.is_complete(dir))) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
            Self::FtpBounce => {
                let dir = Direction::ToServer;
                let is_port = values.pieces(BufferId::FtpCommand, dir).any(|piece| piece.bytes.eq_ignore_ascii_case(b"PORT"));
                let other = |piece: Piece<'_>| port_address(piece.bytes).is_some_and(|found| values.client() != Some(IpAddr::V4(found)));
                work.charge(1);
                match (is_port && values.pieces(BufferId::FtpCommandData, dir).any(other), values.is_complete(dir)) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
            Self::Other(other) => other.decide(values, work),
            Self::File { file, to_server, to_client } => {
                let dirs =
                    || [(*to_server, Direction::ToServer), (*to_client, Direction::ToClient)].into_iter().filter(|(there, _)| *there);
                work.charge(1);
                let holds = dirs().any(|(_, dir)| values.files(dir).any(|one| file.holds(one)));
                match (holds, dirs().all(|(_, dir)| values.is_complete(dir))) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
            Self::Number { test, to_server, to_client } => {
                let dirs =
                    || [(*to_server, Direction::ToServer), (*to_client, Direction::ToClient)].into_iter().filter(|(there, _)| *there);
                let numbers = || dirs().flat_map(|(_, dir)| values.numbers(test.field, dir));
                work.charge(1 + numbers().count() / TRANSFORM_BYTES_PER_UNIT);
                if test.which == Which::Any && numbers().any(|number| test.test.matches(number)) {
                    return Decision::Holds;
                }
                if !dirs().all(|(_, dir)| values.is_complete(dir)) {
                    return Decision::NotYet;
                }
                if numbers_hold(test, &numbers().collect::<Vec<_>>()) { Decision::Holds } else { Decision::Never }
            }
            Self::Payload { steps, steps_big, to_server, to_client } => {
                let steps = steps_big.as_ref().filter(|_| values.is_big_endian()).unwrap_or(steps);
                let wanted = |dir: Direction| if dir == Direction::ToServer { *to_server } else { *to_client };
                let mut raw = std::mem::take(&mut scratch.transformed);
                let found = values.raw(&mut raw).filter(|(dir, _)| wanted(*dir) && (steps.only_gains() || values.is_complete(*dir)));
                let holds = found.is_some_and(|(_, base)| {
                    if !work.charge(1 + raw.len() / TRANSFORM_BYTES_PER_UNIT) {
                        return false;
                    }
                    let inspection = steps.run(Buffer { bytes: &raw, base }, work);
                    scratch.exhausted += u32::from(inspection == Inspection::Exhausted && !work.is_spent());
                    matches!(inspection, Inspection::Match { .. })
                });
                scratch.transformed = raw;
                let open = [Direction::ToServer, Direction::ToClient].into_iter().any(|dir| wanted(dir) && !values.is_complete(dir));
                match (holds, open) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::NotYet,
                    (false, false) => Decision::Never,
                }
            }
            Self::Event(name) => {
                let of = |found: &str| match name {
                    Some(name) => found == *name,
                    None => App::ALL
                        .iter()
                        .any(|app| apps & bit(*app) != 0 && found.strip_prefix(app.name()).is_some_and(|rest| rest.starts_with('.'))),
                };
                match (values.events().any(of), values.is_complete(Direction::ToServer) && values.is_complete(Direction::ToClient)) {
                    (true, _) => Decision::Holds,
                    (false, true) => Decision::Never,
                    (false, false) => Decision::NotYet,
                }
            }
        }
    }
}

/// As a hello says it.
pub(super) const fn wire(version: TlsVersion) -> u64 {
    match version {
        TlsVersion::Ssl2 => 0x0200,
        TlsVersion::Ssl3 => 0x0300,
        TlsVersion::Tls10 => 0x0301,
        TlsVersion::Tls11 => 0x0302,
        TlsVersion::Tls12 => 0x0303,
        TlsVersion::Tls13 => 0x0304,
        TlsVersion::Number(number) => number as u64,
    }
}

/// `198,51,100,7,4,210` (RFC 959, section 4.1.2).
pub(super) fn port_address(text: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(text.get(..text.len().min(64))?).ok()?;
    let mut octets = text.split(',').map(|octet| octet.trim().parse::<u8>().ok());
    let mut next = || octets.next().flatten();
    Some(Ipv4Addr::new(next()?, next()?, next()?, next()?))
}

/// Of all numbers there will be.
pub(crate) fn numbers_hold(test: &IntegerTest, all: &[u64]) -> bool {
    let holds = |number: &u64| test.test.matches(*number);
    let at = |index: i32| {
        let index = if index < 0 { all.len().checked_sub(index.unsigned_abs() as usize)? } else { index as usize };
        all.get(index)
    };
    match &test.which {
        Which::Any => all.iter().any(holds),
        Which::AllOrAbsent => all.iter().all(holds),
        Which::All => !all.is_empty() && all.iter().all(holds),
        Which::AnyOrAbsent => all.is_empty() || all.iter().any(holds),
        Which::Index(index) => at(*index).is_some_and(holds),
        Which::IndexOrAbsent(index) => at(*index).is_none_or(holds),
        Which::Count { count, range } => {
            let place = |at: i32| if at < 0 { all.len().saturating_sub(at.unsigned_abs() as usize) } else { (at as usize).min(all.len()) };
            let part = match range {
                Some((first, last)) => all.get(place(*first)..place(*last)).unwrap_or_default(),
                None => all,
            };
            count.matches(part.iter().filter(|number| holds(number)).count() as u64)
        }
        Which::Number => test.test.matches(all.len() as u64),
    }
}

/// Matches with `dce` as they are for a message in network order; those given are for one in the other, as Windows speaks.
/// `None`: there is none with `dce`.
fn big_endian(matches: &[Match]) -> Option<Vec<Match>> {
    let mut any = false;
    let mut turn = |base: &mut Base| {
        if *base == Base::Binary(Endian::Dce) {
            *base = Base::Binary(Endian::Big);
            any = true;
        }
    };
    let mut big = matches.to_vec();
    for found in &mut big {
        match found {
            Match::ByteTest(test) => turn(&mut test.base),
            Match::ByteJump(jump) => turn(&mut jump.base),
            Match::ByteExtract(extract) => turn(&mut extract.base),
            Match::ByteMath(math) => turn(&mut math.base),
            _ => {}
        }
    }
    any.then_some(big)
}

impl List {
    pub(super) fn is_slow(&self) -> bool {
        self.steps.is_slow()
    }

    /// `inner`: what is asked of that which it decodes. `before`: the rule's tests so far, whose names it may use.
    fn new(list: &BufferMatches, to_server: bool, to_client: bool, inner: &[Match], before: &[Test]) -> Result<Self, (Code, String)> {
        let BufferName::Named(buffer) = list.buffer else {
            return Err((Code::KeywordUnsupported, "`frame` is not supported yet".to_owned()));
        };
        let transforms = build(&list.transforms).map_err(|message| (Code::PcreUnsupported, message))?;
        let (only_server, only_client) = match list.towards {
            Some(Towards::ToServer) => (true, false),
            Some(Towards::ToClient) => (false, true),
            Some(Towards::Both) => {
                return Err((Code::ValueUnsupported, "a buffer of both directions at once is not supported yet".to_owned()));
            }
            Some(Towards::Either) | None => (to_server, to_client),
        };
        let info = buffer.info();
        if crate::app::buffer_of(buffer).is_none() && !matches!(buffer, BufferId::FileMagic | BufferId::IpSrc | BufferId::IpDst) {
            return Err((Code::KeywordUnsupported, format!("`{}` is not supported yet", info.name)));
        }
        if let Some(reason) = list.matches.iter().filter(|found| !matches!(found, Match::Absent { .. })).find_map(refused_match) {
            return Err(reason);
        }
        let absent = list.matches.iter().find_map(|found| match found {
            Match::Absent { or_else: true } => Some(Absent::May),
            Match::Absent { or_else: false } => Some(Absent::Must),
            _ => None,
        });
        let matches: Vec<Match> = list.matches.iter().filter(|found| !matches!(found, Match::Absent { .. })).cloned().collect();
        let pcre = |message: String| (Code::PcreUnsupported, message);
        let (steps, after) = match Steps::with(&matches, inner, &[]) {
            Ok(steps) => (steps, None),
            Err(message) => {
                // It may use names that one of those before it sets.
                let setting = before.iter().enumerate().find_map(|(place, test)| match test {
                    Test::List(list) if !list.steps.names().is_empty() && list.after.is_none() => Some((place, list.steps.names())),
                    _ => None,
                });
                match setting {
                    Some((place, names)) => (Steps::with(&matches, inner, names).map_err(pcre)?, Some(place)),
                    None => return Err(pcre(message)),
                }
            }
        };
        let steps_big = match big_endian(&matches) {
            Some(big) => {
                let known = after.and_then(|place| before.get(place)).map_or(&[][..], |test| match test {
                    Test::List(list) => list.steps.names(),
                    _ => &[],
                });
                Some(Steps::with(&big, inner, known).map_err(pcre)?)
            }
            None => None,
        };
        Ok(Self {
            steps_big,
            buffer,
            // A buffer of the other direction than the rule's is the other direction's all the same.
            to_server: info.to_server && (!only_client || !info.to_client),
            to_client: info.to_client && (!only_server || !info.to_server),
            transforms: transforms.into(),
            steps,
            after,
            absent: absent.unwrap_or(Absent::No),
        })
    }

    /// The names' values where it holds.
    fn names(&self, values: &impl Values, scratch: &mut TxScratch, work: &mut Work) -> Option<NameValues> {
        let dirs = [(self.to_server, Direction::ToServer), (self.to_client, Direction::ToClient)];
        for (_, dir) in dirs.into_iter().filter(|(there, _)| *there) {
            for piece in values.pieces(self.buffer, dir) {
                let bytes = transform(&self.transforms, piece.bytes, &mut scratch.transformed, &mut scratch.other, work)?;
                let steps = self.steps_big.as_ref().filter(|_| values.is_big_endian()).unwrap_or(&self.steps);
                if let Some(names) = steps.values(Buffer { bytes, base: piece.base }, work) {
                    return Some(names);
                }
            }
        }
        None
    }

    /// `names`: of the list that it comes after.
    fn decide(&self, values: &impl Values, names: Option<&NameValues>, scratch: &mut TxScratch, work: &mut Work) -> Decision {
        let mut settled = true;
        let mut any = false;
        for dir in [(self.to_server, Direction::ToServer), (self.to_client, Direction::ToClient)].iter().filter(|(there, _)| *there) {
            let dir = dir.1;
            settled &= values.is_settled(self.buffer, dir);
            for piece in values.pieces(self.buffer, dir) {
                any = true;
                settled &= piece.done;
                if self.absent == Absent::Must {
                    return Decision::Never;
                }
                // What holds of a part may not hold of the whole.
                if !piece.done && (!self.steps.only_gains() || self.transforms.iter().any(needs_whole)) {
                    continue;
                }
                let bytes = match transform(&self.transforms, piece.bytes, &mut scratch.transformed, &mut scratch.other, work) {
                    Some(bytes) => bytes,
                    None => return Decision::NotYet,
                };
                let buffer = Buffer { bytes, base: piece.base };
                let steps = self.steps_big.as_ref().filter(|_| values.is_big_endian()).unwrap_or(&self.steps);
                let inspection = match names {
                    Some(names) => steps.run_with(buffer, names, work),
                    None => steps.run(buffer, work),
                };
                match inspection {
                    Inspection::Match { end } => {
                        // Of a list without contents: its beginning.
                        let end = if end == 0 { bytes.len().min(EXCERPT_BYTES_MAX) } else { end.min(bytes.len()) };
                        scratch.found.clear();
                        scratch.found.extend_from_slice(&bytes[end.saturating_sub(EXCERPT_BYTES_MAX)..end]);
                        return Decision::Holds;
                    }
                    Inspection::NoMatch => {}
                    Inspection::Exhausted => scratch.exhausted += u32::from(!work.is_spent()),
                }
            }
        }
        match (settled, any, self.absent) {
            (false, ..) => Decision::NotYet,
            (true, false, Absent::Must | Absent::May) => Decision::Holds,
            (true, ..) => Decision::Never,
        }
    }
}
