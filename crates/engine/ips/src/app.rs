//! The application layers of flows: bytes go to a flow's session, and what its transactions hold goes to the rules.
//!
//! ```text
//! stream, datagram ─ AppFlow (Session) ─ update ─ news ─ verify ─ Matched ─ the pipeline's decision on this packet
//!                                      └ complete ─ TransactionEvent, when somebody asked for it
//! ```
//! All of it happens before the verdict on the packet that brought the bytes: what completes a match is not let go. Everything a
//! transaction remembers for detection lies in a slot of the shard ([`Apps`]), whose number is the transaction's `user`.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex};

use bulkhead_applayer::{
    Buffer, BufferSet, Config, Context, Dir, Expectation, Finished, Protocol, Session, Sink, Stage, Transaction, Transport,
};
use bulkhead_model::Timestamp;
use bulkhead_net::flow::Direction;
use bulkhead_rules::buffer::BufferId;
use bulkhead_rules::condition::BitsOperation;
use bulkhead_rules::{App, Field};

use crate::across::locked;
use crate::detect::{End, Matched, Scratch, index};
use crate::expected::Expected;
use crate::files::{File, FileWants, TxFiles};
use crate::hosts::TxBit;
use crate::outcome::{PipelineConfig, Record, Stats};
use crate::rules::{NO_APP, RuleId, Ruleset};
use crate::transaction::{Piece, TxScratch, TxState, Values, bit};

/// Payload matches of one flow that wait until its protocol is recognised.
const WAITING_MAX: usize = 64;
/// Rules of one flow whose literal was in the payload, while the transaction that it belongs to goes on.
const GATES_MAX: usize = 64;
/// Slots that stay when no transaction is open.
const SLOTS_KEPT: usize = 4_096;
/// Rules of one flow that may be told of again and have had their turn.
const DONE_MAX: usize = 32;
/// Bits of transactions of one flow.
const TX_BITS_MAX: usize = 128;
/// Transactions of one flow whose files are kept.
const STORED_MAX: usize = 64;
/// Events of sessions in one packet.
const APP_EVENTS_MAX: usize = 16;
/// Transactions that end in one packet and are told of.
const TOLD_MAX: usize = 1024;

/// The rule language's names of what parsers recognise, by the parsers' numbers.
pub(crate) static PROTOCOLS: LazyLock<Vec<Option<App>>> = LazyLock::new(|| {
    let app = |protocol: &Protocol| match protocol.name() {
        // In a rule `http` stands for all its versions.
        "http" => Some(App::Http1),
        name => App::ALL.iter().copied().find(|app| app.name() == name),
    };
    Protocol::ALL.iter().map(app).collect()
});

static BUFFERS: LazyLock<Vec<Option<Buffer>>> =
    LazyLock::new(|| BufferId::ALL.iter().map(|buffer| Buffer::from_name(buffer.name())).collect());

static BUFFER_IDS: LazyLock<Vec<Option<BufferId>>> =
    LazyLock::new(|| Buffer::ALL.iter().map(|buffer| BufferId::named(buffer.name())).collect());

static FIELDS: LazyLock<Vec<Option<bulkhead_applayer::Field>>> =
    LazyLock::new(|| Field::ALL.iter().map(|field| bulkhead_applayer::Field::from_name(field.name())).collect());

static FIELD_IDS: LazyLock<Vec<Option<Field>>> = LazyLock::new(|| {
    let named = |name: &str| Field::ALL.iter().copied().find(|field| field.name() == name);
    bulkhead_applayer::Field::ALL.iter().map(|field| named(field.name())).collect()
});

pub(crate) fn app_of(protocol: Protocol) -> Option<App> {
    PROTOCOLS.get(protocol as usize).copied().flatten()
}

/// What a parser fills for a rule's buffer; `None`: no parser does.
pub(crate) fn buffer_of(buffer: BufferId) -> Option<Buffer> {
    BUFFERS.get(buffer as usize).copied().flatten()
}

pub(crate) const fn dir_of(dir: Direction) -> Dir {
    match dir {
        Direction::ToServer => Dir::ToServer,
        Direction::ToClient => Dir::ToClient,
    }
}

pub(crate) const fn direction_of(dir: Dir) -> Direction {
    match dir {
        Dir::ToServer => Direction::ToServer,
        Dir::ToClient => Direction::ToClient,
    }
}

/// Why nobody can say whether a rule on application layers would have matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppFault {
    /// The session's parser has stopped.
    Finished(Finished),
    /// A transaction has more values than are kept.
    Overflowed,
    /// More rules wait for the rest of a transaction than are remembered.
    Candidates,
    /// The shard's memory for application layers is used up ([`PipelineConfig::app_memory_max`]).
    Memory,
}

/// The application layer of one flow.
#[derive(Debug)]
pub(crate) struct AppFlow {
    session: Session,
    /// Bytes that are counted in [`Apps::memory`].
    counted: usize,
    /// Another rule set is in force since the session was last given bytes.
    search_again: bool,
    /// Payload matches of rules about a protocol, while it is not recognised.
    waiting: Vec<Matched>,
    /// Rules that have had their turn in a transaction ([`Self::first_turn`]).
    done: Vec<(RuleId, u64)>,
    /// Bits of its transactions, oldest first.
    tx_bits: Vec<(u64, u64)>,
    /// Transactions whose files are kept, by direction.
    stored: Vec<(u64, [bool; 2])>,
    /// Files of all further transactions are.
    stored_all: [bool; 2],
    /// Transactions that are not to be logged, and whether none further is.
    quiet: Vec<u64>,
    quiet_all: bool,
    /// Offset in each direction before which all bytes belong to transactions that are complete.
    raw_from: [u64; 2],
    /// Rules whose literal was in the payload.
    gates: Vec<Gate>,
    transport: Transport,
}

/// A rule on transactions whose literal was in a direction's bytes, before an offset.
#[derive(Debug, Clone, Copy)]
struct Gate {
    rule: RuleId,
    dir: Direction,
    before: u64,
}

/// Bytes of one direction as they came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub dir: Direction,
    /// Offset of the first byte of `before`.
    pub base: u64,
    pub before: &'a [u8],
    pub fresh: &'a [u8],
}

impl AppFlow {
    /// A connection that was announced.
    pub fn expected(what: &Expectation) -> Self {
        Self { session: Session::expected(what), ..Self::new(Transport::Tcp) }
    }

    /// Between these ports.
    pub fn between(transport: Transport, ports: [u16; 2]) -> Self {
        Self { session: Session::new(transport).between(ports), ..Self::new(transport) }
    }

    pub fn new(transport: Transport) -> Self {
        Self {
            session: Session::new(transport),
            counted: 0,
            search_again: false,
            waiting: Vec::new(),
            done: Vec::new(),
            tx_bits: Vec::new(),
            stored: Vec::new(),
            stored_all: [false; 2],
            quiet: Vec::new(),
            quiet_all: false,
            raw_from: [0; 2],
            gates: Vec::new(),
            transport,
        }
    }

    pub fn protocol(&self) -> Option<Protocol> {
        self.session.protocol()
    }

    /// What it was before it became what it is.
    pub fn original(&self) -> Option<Protocol> {
        self.session.original()
    }

    /// After a genuine handshake in both directions.
    pub fn is_encrypted(&self) -> bool {
        self.session.finished() == Some(Finished::Encrypted)
    }

    /// The protocol is known, or never will be.
    pub fn is_resolved(&self) -> bool {
        self.session.protocol().is_some() || self.session.finished().is_some()
    }

    pub fn search_again(&mut self) {
        self.search_again = true;
        self.done.clear();
        self.gates.clear();
    }

    /// Whether a rule that is told of more than once in a transaction has its first turn in it.
    pub fn first_turn(&mut self, rule: RuleId, tx: u64) -> bool {
        if self.done.contains(&(rule, tx)) {
            return false;
        }
        if self.done.len() >= DONE_MAX {
            self.done.remove(0);
        }
        self.done.push((rule, tx));
        true
    }

    /// A rule wants files of these directions kept: those of one transaction, or of the whole flow.
    pub fn store(&mut self, tx: Option<u64>, dirs: [bool; 2]) {
        let join = |one: [bool; 2]| [one[0] | dirs[0], one[1] | dirs[1]];
        match tx {
            None => self.stored_all = join(self.stored_all),
            Some(tx) => match self.stored.iter_mut().find(|(known, _)| *known == tx) {
                Some((_, known)) => *known = join(*known),
                None => {
                    if self.stored.len() >= STORED_MAX {
                        self.stored.remove(0);
                    }
                    self.stored.push((tx, dirs));
                }
            },
        }
    }

    /// A rule wants a transaction not to be logged, or none of the flow.
    pub fn quiet(&mut self, tx: Option<u64>) {
        match tx {
            None => self.quiet_all = true,
            Some(tx) => {
                if self.quiet.len() >= STORED_MAX {
                    self.quiet.remove(0);
                }
                self.quiet.push(tx);
            }
        }
    }

    pub fn is_quiet(&self, tx: u64) -> bool {
        self.quiet_all || self.quiet.contains(&tx)
    }

    pub fn is_stored(&self, tx: u64, dir: Dir) -> bool {
        let of = |dirs: &[bool; 2]| dirs[dir as usize];
        of(&self.stored_all) || self.stored.iter().any(|(known, dirs)| *known == tx && of(dirs))
    }

    /// Whether a reading of a transaction's bits holds; writings do.
    pub fn tx_bit_holds(&self, tx: u64, bit: &TxBit) -> bool {
        let set = self.tx_bits.contains(&(tx, bit.name));
        match bit.operation {
            BitsOperation::IsSet => set,
            BitsOperation::IsNotSet => !set,
            BitsOperation::Set | BitsOperation::Unset | BitsOperation::Toggle => true,
        }
    }

    /// Carries out a writing. The oldest bits of all transactions of the flow go first.
    pub fn write_tx_bit(&mut self, tx: u64, bit: &TxBit) {
        let place = self.tx_bits.iter().position(|known| *known == (tx, bit.name));
        match (bit.operation, place) {
            (BitsOperation::Unset | BitsOperation::Toggle, Some(place)) => _ = self.tx_bits.remove(place),
            (BitsOperation::Set | BitsOperation::Toggle, None) => {
                if self.tx_bits.len() >= TX_BITS_MAX {
                    self.tx_bits.remove(0);
                }
                self.tx_bits.push((tx, bit.name));
            }
            (BitsOperation::Set | BitsOperation::Unset | BitsOperation::IsSet | BitsOperation::IsNotSet, _) => {}
        }
    }

    /// Remembers which rules' literals are in the bytes in hand. False: there was no room for one.
    fn open_gates(&mut self, raw: &Raw<'_>, found: &[RuleId]) -> bool {
        // Each datagram is for itself.
        let before = match self.transport {
            Transport::Tcp => raw.base + (raw.before.len() + raw.fresh.len()) as u64,
            Transport::Udp => u64::MAX,
        };
        for rule in found {
            if let Some(gate) = self.gates.iter_mut().find(|gate| gate.rule == *rule && gate.dir == raw.dir) {
                gate.before = before;
            } else if self.gates.len() < GATES_MAX || self.transport == Transport::Udp {
                self.gates.push(Gate { rule: *rule, dir: raw.dir, before });
            } else {
                return false;
            }
        }
        true
    }

    /// Forgets those of transactions that are over.
    fn close_gates(&mut self) {
        match self.transport {
            Transport::Tcp => self.gates.retain(|gate| gate.before > self.raw_from[index(gate.dir)]),
            Transport::Udp => self.gates.clear(),
        }
    }

    /// Transactions so far.
    pub const fn transactions(&self) -> u64 {
        self.session.transactions()
    }

    /// The bit of what was recognised, or [`NO_APP`]; 0: not known yet.
    pub fn app_bit(&self) -> u64 {
        match self.session.protocol().and_then(app_of) {
            Some(app) => bit(app),
            None if self.session.finished().is_some() => NO_APP,
            None => 0,
        }
    }
}

/// What the sessions of a shard share.
#[derive(Debug)]
pub(crate) struct Apps {
    pub context: Context,
    slots: Vec<TxState>,
    free: Vec<u32>,
    scratch: TxScratch,
    /// Bytes of all sessions and slots.
    pub memory: usize,
    /// Of the packet in hand.
    pub now: Timestamp,
    /// By the slots of transactions.
    files: Vec<TxFiles>,
    file_wants: FileWants,
    /// Connections that were announced.
    pub expected: Arc<Mutex<Expected>>,
}

impl Apps {
    pub fn new(config: Config, expected: Arc<Mutex<Expected>>) -> Self {
        Self {
            context: Context::new(config),
            slots: Vec::new(),
            free: Vec::new(),
            scratch: TxScratch::default(),
            memory: 0,
            now: Timestamp::default(),
            files: Vec::new(),
            file_wants: FileWants::default(),
            expected,
        }
    }

    /// Another rule set: what its rules look at, and the log.
    pub fn want(&mut self, rules: &Ruleset, log: bool, files: FileWants) {
        let keeps = rules.keeps_files();
        let follow = FileWants { follow: log || keeps, content: keeps, sha256: keeps, ..FileWants::default() };
        self.file_wants = rules.transactions().file_wants().and(files).and(follow);
        let ruled: BufferSet = rules.transactions().buffers().filter_map(buffer_of).collect();
        let mut wanted = if log { BufferSet::ALL } else { ruled };
        match self.context.config.email_body_md5.unwrap_or(ruled.contains(Buffer::EmailBodyMd5)) {
            true => wanted.insert(Buffer::EmailBodyMd5),
            false => wanted.remove(Buffer::EmailBodyMd5),
        }
        self.context.config.wanted = wanted;
        self.context.config.notes = log;
    }

    pub fn data(&mut self, flow: &mut AppFlow, dir: Direction, bytes: &[u8], with: With<'_>) {
        self.call(flow, with, |session, context, sink| session.data(dir_of(dir), bytes, context, sink));
    }

    pub fn gap(&mut self, flow: &mut AppFlow, dir: Direction, len: u64, with: With<'_>) {
        self.call(flow, with, |session, context, sink| session.gap(dir_of(dir), len, context, sink));
    }

    pub fn end(&mut self, flow: &mut AppFlow, dir: Direction, with: With<'_>) {
        self.call(flow, with, |session, context, sink| session.end(dir_of(dir), context, sink));
    }

    /// The flow is over, or is not looked at any more.
    pub fn close(&mut self, flow: &mut AppFlow, with: With<'_>) {
        self.call(flow, with, |session, context, sink| session.close(context, sink));
        self.memory = self.memory.saturating_sub(std::mem::take(&mut flow.counted));
    }

    fn call(&mut self, flow: &mut AppFlow, with: With<'_>, act: impl FnOnce(&mut Session, &mut Context, &mut dyn Sink)) {
        let With { rules, config, ends, raw, scratch, stats } = with;
        let raw_from = flow.raw_from;
        if let Some(raw) = &raw
            && !scratch.gates.is_empty()
            && !flow.open_gates(raw, &scratch.gates)
        {
            scratch.cap_reached = true;
            stats.pending_overflow += 1;
        }
        let gates = std::mem::take(&mut flow.gates);
        let protocol = flow.session.protocol();
        let Self { context, slots, free, scratch: tx_scratch, memory, now, files, file_wants, expected } = self;
        let now = *now;
        let file_wants = *file_wants;
        let mut slots = Slots { slots, files, free, memory };
        let mut listener = Listener {
            rules,
            config,
            ends,
            raw,
            raw_from,
            gates,
            completes: false,
            now,
            file_wants,
            scratch,
            stats,
            slots: &mut slots,
            tx_scratch,
            protocol,
            expected,
        };
        if std::mem::take(&mut flow.search_again) {
            for tx in flow.session.open_transactions() {
                listener.look_again(tx);
            }
        }
        act(&mut flow.session, context, &mut listener);
        let now = flow.session.memory();
        *listener.slots.memory = (*listener.slots.memory + now).saturating_sub(flow.counted);
        flow.counted = now;
        if *listener.slots.memory > listener.config.app_memory_max && flow.session.finished().is_none() {
            listener.fault(AppFault::Memory);
            flow.session.stop("app_memory_max", context, &mut listener);
            let now = flow.session.memory();
            *listener.slots.memory = (*listener.slots.memory + now).saturating_sub(flow.counted);
            flow.counted = now;
        }
        let Listener { scratch, stats, raw_from, gates, completes, .. } = listener;
        (flow.raw_from, flow.gates) = (raw_from, gates);
        if let Some(raw) = raw
            && completes
            && flow.session.pending() == 0
        {
            // Nothing of these bytes belongs to the next one.
            flow.raw_from[index(raw.dir)] = raw.base + (raw.before.len() + raw.fresh.len()) as u64;
        }
        if !flow.gates.is_empty() {
            flow.close_gates();
        }
        settle(flow, rules, scratch.settled_from, scratch, stats);
    }

    /// Payload matches since `from` that depend on the protocol: kept, put off, or dropped.
    pub fn settle(flow: &mut AppFlow, rules: &Ruleset, from: usize, scratch: &mut Scratch, stats: &mut Stats) {
        settle(flow, rules, from, scratch, stats);
    }
}

fn settle(flow: &mut AppFlow, rules: &Ruleset, from: usize, scratch: &mut Scratch, stats: &mut Stats) {
    if flow.is_resolved() {
        let bit = flow.app_bit();
        scratch.matched.extend(flow.waiting.drain(..).filter(|found| rules.rule(found.rule).apps & bit != 0));
        return;
    }
    let mut at = from;
    while let Some(found) = scratch.matched.get(at) {
        if found.tx.is_some() || found.stream.is_none() || rules.rule(found.rule).apps == u64::MAX {
            at += 1;
        } else if flow.waiting.len() < WAITING_MAX {
            flow.waiting.push(scratch.matched.swap_remove(at));
        } else {
            scratch.matched.swap_remove(at);
            scratch.cap_reached = true;
            stats.app_waiting_refused += 1;
        }
    }
}

/// What a call into a session is lent.
pub(crate) struct With<'a> {
    pub rules: &'a Ruleset,
    pub config: &'a PipelineConfig,
    /// Client and server.
    pub ends: (End, End),
    /// What the call is about, for rules that look at the payload as well.
    pub raw: Option<Raw<'a>>,
    pub scratch: &'a mut Scratch,
    pub stats: &'a mut Stats,
}

/// Slots of transactions.
struct Slots<'a> {
    slots: &'a mut Vec<TxState>,
    files: &'a mut Vec<TxFiles>,
    free: &'a mut Vec<u32>,
    memory: &'a mut usize,
}

impl Slots<'_> {
    /// The transaction's own, and whether it is new.
    fn of(&mut self, tx: &mut Transaction) -> (&mut TxState, &mut TxFiles, bool) {
        let fresh = tx.user == 0;
        if fresh {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(TxState::default());
                self.files.push(TxFiles::default());
                self.slots.len() as u32 - 1
            });
            *self.memory += self.slots[slot as usize].memory();
            tx.user = u64::from(slot) + 1;
        }
        let slot = tx.user as usize - 1;
        (&mut self.slots[slot], &mut self.files[slot], fresh)
    }

    fn files_of(&mut self, tx: &Transaction) -> Option<&mut TxFiles> {
        tx.user.checked_sub(1).and_then(|slot| self.files.get_mut(slot as usize))
    }

    fn give_back(&mut self, tx: &mut Transaction) {
        if let Some(slot) = std::mem::take(&mut tx.user).checked_sub(1)
            && let Some(state) = self.slots.get_mut(slot as usize)
        {
            *self.memory = self.memory.saturating_sub(state.memory());
            state.clear();
            let files = &mut self.files[slot as usize];
            *self.memory = self.memory.saturating_sub(files.memory());
            files.clear();
            self.free.push(slot as u32);
            if self.slots.len() > SLOTS_KEPT && self.free.len() == self.slots.len() {
                self.slots.clear();
                self.slots.shrink_to(SLOTS_KEPT);
                self.files.clear();
                self.files.shrink_to(SLOTS_KEPT);
                *self.free = Vec::new();
            }
        }
    }
}

/// Hears of the transactions of one session during one call.
struct Listener<'a, 'b> {
    rules: &'a Ruleset,
    config: &'a PipelineConfig,
    ends: (End, End),
    raw: Option<Raw<'a>>,
    raw_from: [u64; 2],
    gates: Vec<Gate>,
    /// What was told of last is complete in the direction in hand.
    completes: bool,
    now: Timestamp,
    file_wants: FileWants,
    scratch: &'a mut Scratch,
    stats: &'a mut Stats,
    slots: &'a mut Slots<'b>,
    tx_scratch: &'a mut TxScratch,
    protocol: Option<Protocol>,
    expected: &'a Mutex<Expected>,
}

impl Listener<'_, '_> {
    /// Nothing is wrong where no rule looks.
    fn fault(&mut self, fault: AppFault) {
        let (client, server) = self.ends;
        if self.protocol.and_then(app_of).is_some_and(|app| self.rules.transaction_can_match(app, client, server)) {
            self.scratch.app_fault.get_or_insert(fault);
        }
    }

    /// Candidates of another rule set mean nothing: what is there is news again.
    fn look_again(&mut self, tx: &mut Transaction) {
        let Some(app) = app_of(tx.protocol) else { return };
        if self.rules.transactions().is_empty() {
            return;
        }
        let (state, ..) = self.slots.of(tx);
        state.clear();
        self.rules.transactions().begin(app, state);
        for value in tx.values() {
            let Some(buffer) = BUFFER_IDS[value.buffer as usize] else { continue };
            let window = tx.window(value);
            let piece = Piece { bytes: window.bytes, base: window.base, fresh: 0, done: window.done };
            let dir = direction_of(value.dir);
            self.rules.transactions().news(app, buffer, dir, piece, state, self.tx_scratch, &mut self.scratch.work);
        }
        for (event, _) in tx.events() {
            self.rules.transactions().event(app, event, state);
        }
    }

    /// Before the rules look: what has come of the transaction's files.
    fn follow_files(&mut self, tx: &mut Transaction) {
        if tx.first(Buffer::FileData, Dir::ToServer).or_else(|| tx.first(Buffer::FileData, Dir::ToClient)).is_none() {
            return;
        }
        let (state, files, fresh) = self.slots.of(tx);
        if fresh {
            state.raw_from = self.raw_from;
            if let Some(app) = app_of(tx.protocol) {
                self.rules.transactions().begin(app, state);
            }
        }
        let (wants, max) = (self.file_wants, self.config.file_store_bytes_max);
        let held = files.memory();
        files.follow(tx, wants, max);
        self.stats.files_refused += std::mem::take(&mut files.refused);
        files.told(tx, false, self.config.transactions, &mut self.scratch.files);
        let now = files.memory();
        *self.slots.memory = (*self.slots.memory + now).saturating_sub(held);
    }

    fn detect(&mut self, tx: &mut Transaction, dir: Direction) {
        let rules = self.rules.transactions();
        let Some(app) = app_of(tx.protocol) else { return };
        let (state, files, fresh) = self.slots.of(tx);
        let held = state.memory();
        if fresh {
            state.raw_from = self.raw_from;
            rules.begin(app, state);
        }
        if let Some(raw) = &self.raw {
            self.completes = tx.progress(dir_of(raw.dir)) == Stage::Complete;
            if self.completes {
                self.raw_from[index(raw.dir)] = raw.base + raw.before.len() as u64;
            }
        }
        for gate in &self.gates {
            if self.raw.is_some_and(|raw| raw.dir == gate.dir) && gate.before > state.raw_from[index(gate.dir)] {
                rules.open(app, gate.rule, state);
            }
        }
        for value in tx.news() {
            let Some(buffer) = BUFFER_IDS[value.buffer as usize] else { continue };
            let window = tx.window(value);
            let piece = Piece { bytes: window.bytes, base: window.base, fresh: window.fresh, done: window.done };
            rules.news(app, buffer, direction_of(value.dir), piece, state, self.tx_scratch, &mut self.scratch.work);
        }
        for (dir, magic) in files.new_magic() {
            let piece = Piece::whole(magic.as_bytes());
            rules.news(app, BufferId::FileMagic, direction_of(dir), piece, state, self.tx_scratch, &mut self.scratch.work);
        }
        if files.all().next().is_some() {
            rules.file(app, state);
        }
        for (event, _) in tx.new_events() {
            rules.event(app, event, state);
        }
        if rules.wants_numbers() {
            for field in tx.integers().iter().filter_map(|(field, _, _)| FIELD_IDS[*field as usize]) {
                rules.number(app, field, state);
            }
        }
        if !state.is_idle() {
            let values = TxValues {
                tx,
                now: self.now,
                client: self.ends.0.0,
                raw: self.raw,
                raw_from: state.raw_from,
                files,
                rules: self.rules,
                ends: self.ends,
                addresses: [octets(self.ends.0.0), octets(self.ends.1.0)],
            };
            rules.verify(&values, state, self.tx_scratch, &mut self.scratch.work);
            if self.tx_scratch.exhausted > 0 {
                self.stats.steps_exhausted += u64::from(self.tx_scratch.exhausted);
                self.scratch.cap_reached = true;
            }
            let TxScratch { matched, excerpts, turned, .. } = &mut *self.tx_scratch;
            for ((rule, mut excerpt), turned) in matched.drain(..).zip(excerpts.drain(..)).zip(turned.drain(..)) {
                let compiled = self.rules.rule(rule);
                let form = match (compiled.in_each, turned) {
                    (true, true) => Some(Direction::ToClient),
                    (true, false) => Some(Direction::ToServer),
                    (false, _) => None,
                };
                let dir = compiled.flow.direction.or(compiled.tx_direction).or(form).unwrap_or(dir);
                let of = if compiled.of_client { Direction::ToServer } else { dir };
                let (from, to) = match of {
                    Direction::ToServer => self.ends,
                    Direction::ToClient => (self.ends.1, self.ends.0),
                };
                if compiled.header_matches(from, to) {
                    self.stats.matched += 1;
                    let beyond = excerpt.len().saturating_sub(self.config.excerpt_bytes_max);
                    excerpt.drain(..beyond);
                    let record = self.config.transactions.then(|| Box::new(Record::of(tx)));
                    let tx = Some(TxMatch { id: tx.id, protocol: tx.protocol, record });
                    self.scratch.matched.push(Matched { rule, stream: Some(dir), excerpt, tx });
                }
            }
        }
        let refused = state.refused;
        let now = state.memory();
        *self.slots.memory = (*self.slots.memory + now).saturating_sub(held);
        if refused {
            self.fault(AppFault::Candidates);
        }
    }
}

/// The transaction in which a rule has matched.
#[derive(Debug)]
pub(crate) struct TxMatch {
    pub id: u64,
    pub protocol: Protocol,
    pub record: Option<Box<Record>>,
}

impl Sink for Listener<'_, '_> {
    fn recognised(&mut self, protocol: Protocol) {
        self.protocol = Some(protocol);
    }

    fn update(&mut self, tx: &mut Transaction, dir: Dir) {
        if self.file_wants.follow {
            self.follow_files(tx);
        }
        if !self.rules.transactions().is_empty() {
            self.detect(tx, direction_of(dir));
        }
        if tx.overflowed {
            self.fault(AppFault::Overflowed);
        }
    }

    fn event(&mut self, event: &'static str, _dir: Dir) {
        if self.scratch.app_events.len() < APP_EVENTS_MAX && !self.scratch.app_events.contains(&event) {
            self.scratch.app_events.push(event);
        }
    }

    fn expect(&mut self, what: &Expectation) {
        self.stats.expected_forgotten += u64::from(locked(self.expected).announce(self.ends, what, self.now));
    }

    fn complete(&mut self, tx: &mut Transaction) {
        if let Some(files) = self.slots.files_of(tx) {
            files.told(tx, true, self.config.transactions, &mut self.scratch.files);
        }
        self.slots.give_back(tx);
        if self.config.transactions {
            if self.scratch.told.len() < TOLD_MAX {
                self.scratch.told.push((tx.id, tx.protocol, Record::of(tx)));
            } else {
                self.stats.lost_transactions += 1;
            }
        }
    }

    fn finished(&mut self, why: Finished) {
        match why {
            Finished::Encrypted | Finished::Unknown | Finished::Tunnel => {}
            Finished::Malformed(_) | Finished::Cap(_) | Finished::Gap => self.fault(AppFault::Finished(why)),
        }
    }
}

/// A transaction as rules see it.
struct TxValues<'a> {
    tx: &'a Transaction,
    now: Timestamp,
    client: IpAddr,
    raw: Option<Raw<'a>>,
    raw_from: [u64; 2],
    files: &'a TxFiles,
    rules: &'a Ruleset,
    ends: (End, End),
    /// Of client and server, and how many octets of each count.
    addresses: [([u8; 16], usize); 2],
}

fn octets(address: IpAddr) -> ([u8; 16], usize) {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            (octets, 4)
        }
        IpAddr::V6(address) => (address.octets(), 16),
    }
}

impl Values for TxValues<'_> {
    fn pieces(&self, buffer: BufferId, dir: Direction) -> impl Iterator<Item = Piece<'_>> {
        // What no parser fills is found out here.
        let wanted = (buffer == BufferId::FileMagic).then_some(dir_of(dir));
        let kinds = self.files.all().filter(move |(of, _)| wanted == Some(*of)).filter_map(|(_, file)| file.magic.as_deref());
        let kinds = kinds.map(|kind| Piece::whole(kind.as_bytes()));
        let ends = match (buffer, dir) {
            (BufferId::IpSrc, Direction::ToServer) | (BufferId::IpDst, Direction::ToClient) => Some(&self.addresses[0]),
            (BufferId::IpSrc, Direction::ToClient) | (BufferId::IpDst, Direction::ToServer) => Some(&self.addresses[1]),
            _ => None,
        };
        let kinds = kinds.chain(ends.map(|(octets, length)| Piece::whole(&octets[..*length])));
        let all = buffer_of(buffer).map(|buffer| self.tx.all(buffer, dir_of(dir)));
        kinds.chain(all.into_iter().flatten().map(|value| {
            let window = self.tx.window(value);
            Piece { bytes: window.bytes, base: window.base, fresh: window.fresh, done: window.done }
        }))
    }

    fn is_settled(&self, buffer: BufferId, dir: Direction) -> bool {
        match buffer_of(buffer) {
            Some(buffer) => self.tx.is_settled(buffer, dir_of(dir)),
            None if matches!(buffer, BufferId::IpSrc | BufferId::IpDst) => true,
            None => self.is_complete(dir),
        }
    }

    fn numbers(&self, field: Field, dir: Direction) -> impl Iterator<Item = u64> {
        let wanted = FIELDS.get(field as usize).copied().flatten();
        self.tx.integers().iter().filter(move |(of, at, _)| Some(*of) == wanted && *at == dir_of(dir)).map(|(_, _, value)| *value)
    }

    fn is_complete(&self, dir: Direction) -> bool {
        self.tx.progress(dir_of(dir)) == Stage::Complete
    }

    fn named(&self, name: &str, dir: Direction) -> impl Iterator<Item = u64> {
        let wanted = bulkhead_applayer::Field::from_name(name);
        self.tx.integers().iter().filter(move |(of, at, _)| Some(*of) == wanted && *at == dir_of(dir)).map(|(_, _, value)| *value)
    }

    fn client(&self) -> Option<IpAddr> {
        Some(self.client)
    }

    fn interfaces(&self) -> impl Iterator<Item = &[u8]> {
        [Dir::ToServer, Dir::ToClient].into_iter().flat_map(|dir| self.tx.all(Buffer::DcerpcIface, dir)).map(|value| self.tx.bytes(value))
    }

    fn is_big_endian(&self) -> bool {
        let of = |dir| self.tx.integer(bulkhead_applayer::Field::DcerpcLittleEndian, dir);
        of(Dir::ToServer).or_else(|| of(Dir::ToClient)) == Some(0)
    }

    fn may(&self, rule: RuleId) -> bool {
        let rule = self.rules.rule(rule);
        let forth = || rule.header_matches(self.ends.0, self.ends.1);
        let back = || rule.header_matches(self.ends.1, self.ends.0);
        match rule.tx_side() {
            Some(Direction::ToServer) => forth(),
            Some(Direction::ToClient) if !rule.of_client => back(),
            Some(Direction::ToClient) => forth(),
            None => forth() || back(),
        }
    }

    fn files(&self, dir: Direction) -> impl Iterator<Item = &File> {
        self.files.all().filter(move |(of, _)| *of == dir_of(dir)).map(|(_, file)| file)
    }

    fn progress(&self, dir: Direction) -> u8 {
        self.tx.progress(dir_of(dir)) as u8
    }

    fn now(&self) -> Option<i64> {
        i64::try_from(self.now.0 / 1_000_000_000).ok()
    }

    fn events(&self) -> impl Iterator<Item = &str> {
        self.tx.events().map(|(event, _)| event)
    }

    fn raw(&self, into: &mut Vec<u8>) -> Option<(Direction, u64)> {
        let raw = self.raw?;
        let skipped = self.raw_from[index(raw.dir)].saturating_sub(raw.base);
        let before = raw.before.get(usize::try_from(skipped).ok()?..).unwrap_or_default();
        into.clear();
        into.extend_from_slice(before);
        into.extend_from_slice(raw.fresh);
        Some((raw.dir, raw.base + (raw.before.len() - before.len()) as u64))
    }
}
