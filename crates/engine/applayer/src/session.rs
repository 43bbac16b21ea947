//! One conversation: recognises the protocol, keeps what its parser could not use yet, and joins both to a [`Sink`].
//!
//! Bytes are copied only while they wait for the rest of something; else the parser reads them where they are.

use crate::context::{Context, Io, Open};
use crate::detect::{self, Found};
use crate::ftp;
use crate::http2::Upgraded;
use crate::names::{Dir, Protocol};
use crate::protocol::{Next, Parser};
use crate::sink::{Expectation, Finished, Sink};
use crate::transaction::Transaction;

/// Changes of protocol within one session (a proxy behind a proxy, an upgrade); more are not followed.
const SWITCHES_MAX: u32 = 8;
/// Protocols whose clients say commands, some of them the same.
const COMMANDS: &[Protocol] = &[Protocol::Ftp, Protocol::Pop3, Protocol::Smtp];
/// Ends of lines that a conversation may begin with.
const BLANK_BYTES_MAX: usize = 64;
/// An empty inbox does not keep more memory than this.
const KEPT_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Bytes in order.
    Tcp,
    /// Each call is a datagram.
    Udp,
}

#[derive(Debug)]
pub struct Session {
    transport: Transport,
    ports: [u16; 2],
    layer: Layer,
    protocol: Option<Protocol>,
    /// What was recognised before a switch.
    original: Option<Protocol>,
    inbox: [Vec<u8>; 2],
    ended: [bool; 2],
    spoke: [bool; 2],
    /// The direction that spoke first.
    first: Option<Dir>,
    switches: u32,
    /// Of the parser before a switch.
    left: Option<Box<Upgraded>>,
    /// That were not recognised.
    datagrams: u32,
    open: Open,
}

#[derive(Debug)]
enum Layer {
    Unknown {
        /// No probe can be right for this direction any more.
        none: [bool; 2],
    },
    Known(Box<dyn Parser>),
    Done(Finished),
}

impl Session {
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            ports: [0; 2],
            layer: Layer::Unknown { none: [false; 2] },
            protocol: None,
            original: None,
            inbox: [Vec::new(), Vec::new()],
            ended: [false; 2],
            spoke: [false; 2],
            first: None,
            switches: 0,
            left: None,
            datagrams: 0,
            open: Open::default(),
        }
    }

    /// Between these ports, which tell a few protocols apart.
    pub const fn between(mut self, ports: [u16; 2]) -> Self {
        self.ports = ports;
        self
    }

    /// A connection that another one has announced ([`Sink::expect`]): nothing is left to recognise, and [`Sink::recognised`] is not
    /// told.
    pub fn expected(expected: &Expectation) -> Self {
        let layer = Layer::Known(Box::new(ftp::Data::new(&expected.command)));
        Self { layer, protocol: Some(expected.protocol), ..Self::new(Transport::Tcp) }
    }

    /// As far as it was recognised; after a switch, what it was last.
    pub const fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// What it was first, where it has become another one since.
    pub const fn original(&self) -> Option<Protocol> {
        self.original
    }

    fn recognised_as(&mut self, protocol: Protocol) {
        let before = self.protocol.replace(protocol);
        self.original = self.original.or(before);
    }

    /// Why nothing is read any more.
    pub const fn finished(&self) -> Option<Finished> {
        match &self.layer {
            Layer::Done(why) => Some(*why),
            Layer::Unknown { .. } | Layer::Known(_) => None,
        }
    }

    /// Bytes of memory that wait for the rest of something.
    pub fn pending(&self) -> usize {
        self.inbox[0].len() + self.inbox[1].len()
    }

    /// Bytes of memory: what waits, and open transactions. What a parser itself keeps beside them is bounded for each session.
    pub fn memory(&self) -> usize {
        self.inbox[0].capacity() + self.inbox[1].capacity() + self.open.memory
    }

    /// Transactions so far.
    pub const fn transactions(&self) -> u64 {
        self.open.count()
    }

    /// Transactions that are not complete, in the order of their numbers: for whoever looks for something else in them now.
    pub fn open_transactions(&mut self) -> impl Iterator<Item = &mut Transaction> {
        self.open.iter_mut()
    }

    /// Nothing further is read: a cap of the caller's was reached.
    pub fn stop(&mut self, cap: &'static str, context: &mut Context, sink: &mut dyn Sink) {
        self.finish(Finished::Cap(cap), sink);
        self.report(Dir::ToClient, context, sink);
    }

    /// The next bytes of a direction, or a datagram.
    pub fn data(&mut self, dir: Dir, bytes: &[u8], context: &mut Context, sink: &mut dyn Sink) {
        if bytes.is_empty() || self.is_done() || self.ended[dir.index()] {
            return;
        }
        if self.first.is_none() {
            self.first = Some(dir);
            context.stats.sessions += 1;
        }
        match self.layer {
            Layer::Known(_) => {
                self.compare(dir, bytes, &context.config.disabled, sink);
                self.feed(dir, bytes, context, sink);
            }
            Layer::Unknown { .. } => self.probe(dir, bytes, context, sink),
            Layer::Done(_) => {}
        }
        self.spoke[dir.index()] = true;
        self.report(dir, context, sink);
    }

    /// The first words of the side that answers may be those of another protocol.
    fn compare(&self, dir: Dir, bytes: &[u8], disabled: &[(Protocol, Transport)], sink: &mut dyn Sink) {
        if self.spoke[dir.index()] || self.transport == Transport::Udp || self.switches > 0 {
            return;
        }
        if let Found::Protocol(entry) = detect::detect(self.transport, self.ports, dir, bytes, disabled)
            && let Some(protocol) = self.protocol.filter(|protocol| *protocol != entry.protocol)
            // Some begin with the same words.
            && !(COMMANDS.contains(&protocol) && COMMANDS.contains(&entry.protocol))
            && !detect::may_be(self.transport, protocol, dir, bytes)
        {
            sink.event("applayer_mismatch_protocol_both_directions", dir);
        }
    }

    /// `len` bytes of a direction will not come.
    pub fn gap(&mut self, dir: Dir, len: u64, context: &mut Context, sink: &mut dyn Sink) {
        if len == 0 || self.is_done() {
            return;
        }
        context.stats.gaps += 1;
        let pending = std::mem::take(&mut self.inbox[dir.index()]);
        let next = match &mut self.layer {
            Layer::Known(parser) => parser.gap(len, &pending, &mut Io { context, open: &mut self.open, sink, dir }),
            Layer::Unknown { .. } => Next::Finished(Finished::Gap),
            Layer::Done(_) => Next::Continue,
        };
        self.follow(next, dir, context, sink);
        self.report(dir, context, sink);
    }

    /// No more bytes come in this direction.
    pub fn end(&mut self, dir: Dir, context: &mut Context, sink: &mut dyn Sink) {
        if self.ended[dir.index()] || self.is_done() {
            return;
        }
        self.ended[dir.index()] = true;
        let pending = std::mem::take(&mut self.inbox[dir.index()]);
        if let Layer::Known(parser) = &mut self.layer {
            parser.end(&pending, &mut Io { context, open: &mut self.open, sink, dir });
        }
        self.report(dir, context, sink);
    }

    /// The conversation is over: transactions that are open are told of for the last time, and memory is given back.
    pub fn close(&mut self, context: &mut Context, sink: &mut dyn Sink) {
        for dir in [Dir::ToServer, Dir::ToClient] {
            self.end(dir, context, sink);
        }
        Io { context, open: &mut self.open, sink, dir: Dir::ToClient }.close();
    }

    const fn is_done(&self) -> bool {
        matches!(self.layer, Layer::Done(_))
    }

    fn report(&mut self, dir: Dir, context: &mut Context, sink: &mut dyn Sink) {
        Io { context, open: &mut self.open, sink, dir }.report();
        if self.is_done() {
            Io { context, open: &mut self.open, sink, dir }.close();
            self.inbox = [Vec::new(), Vec::new()];
        }
    }

    /// Each datagram for itself: one that says nothing does not hide the next.
    fn probe_datagram(&mut self, dir: Dir, bytes: &[u8], context: &mut Context, sink: &mut dyn Sink) {
        if let Found::Protocol(entry) = detect::detect(self.transport, self.ports, dir, bytes, &context.config.disabled) {
            self.protocol = Some(entry.protocol);
            self.layer = Layer::Known((entry.parser)(&context.config));
            context.stats.recognised += 1;
            sink.recognised(entry.protocol);
            return self.feed(dir, bytes, context, sink);
        }
        self.datagrams += 1;
        if self.datagrams >= context.config.probe_datagrams_max {
            context.stats.unknown += 1;
            self.finish(Finished::Unknown, sink);
        }
    }

    fn probe(&mut self, dir: Dir, bytes: &[u8], context: &mut Context, sink: &mut dyn Sink) {
        if self.transport == Transport::Udp {
            return self.probe_datagram(dir, bytes, context, sink);
        }
        let cap = context.config.probe_bytes_max;
        let inbox = &mut self.inbox[dir.index()];
        inbox.extend_from_slice(bytes);
        // Servers pass over empty lines before a request, however many: they must not use up what is looked at.
        let blank = inbox.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > BLANK_BYTES_MAX {
            inbox.drain(..blank - 2);
        }
        let Layer::Unknown { none } = &mut self.layer else { return };
        if !none[dir.index()] {
            match detect::detect(self.transport, self.ports, dir, &self.inbox[dir.index()], &context.config.disabled) {
                Found::Protocol(entry) => {
                    self.recognised_as(entry.protocol);
                    let mut parser = (entry.parser)(&context.config);
                    if self.switches > 0 {
                        parser.follows_another();
                    }
                    if let Some(left) = self.left.take() {
                        parser.inherits(left);
                    }
                    self.layer = Layer::Known(parser);
                    context.stats.recognised += 1;
                    sink.recognised(entry.protocol);
                    // In the order in which they spoke, each from its first byte.
                    let first = self.first.unwrap_or(dir);
                    for dir in [first, first.other()] {
                        let waiting = std::mem::take(&mut self.inbox[dir.index()]);
                        if !waiting.is_empty() {
                            self.feed(dir, &waiting, context, sink);
                        }
                    }
                    return;
                }
                Found::More => {}
                Found::None => none[dir.index()] = true,
            }
        }
        // While only one side speaks, the other's first words may still tell.
        let silent = self.inbox[dir.other().index()].is_empty() && !self.ended[dir.other().index()];
        let over = self.inbox[dir.index()].len() >= if silent { cap.saturating_mul(4) } else { cap };
        if none.iter().all(|none| *none) || over {
            context.stats.unknown += 1;
            self.finish(Finished::Unknown, sink);
        }
    }

    /// Lets the parser read; what it leaves is kept.
    fn feed(&mut self, dir: Dir, bytes: &[u8], context: &mut Context, sink: &mut dyn Sink) {
        let mut wakes = self.read(dir, bytes, context, sink);
        // Each turn has an answer to a request that waited for it.
        let mut dir = dir;
        while wakes && matches!(self.layer, Layer::Known(_)) {
            dir = dir.other();
            let waiting = std::mem::take(&mut self.inbox[dir.index()]);
            wakes = !waiting.is_empty() && self.read(dir, &waiting, context, sink);
        }
    }

    /// Whether the other direction may read on now.
    fn read(&mut self, dir: Dir, bytes: &[u8], context: &mut Context, sink: &mut dyn Sink) -> bool {
        let mut inbox = std::mem::take(&mut self.inbox[dir.index()]);
        let copied = !inbox.is_empty();
        if copied {
            inbox.extend_from_slice(bytes);
        }
        let all: &[u8] = if copied { &inbox } else { bytes };
        let Layer::Known(parser) = &mut self.layer else { return false };
        let step = parser.data(all, &mut Io { context, open: &mut self.open, sink, dir });
        let wakes = parser.wakes_other();
        if let Some(protocol) = parser.becomes() {
            self.recognised_as(protocol);
            sink.recognised(protocol);
        }
        let consumed = step.consumed.min(all.len());
        if copied {
            inbox.drain(..consumed);
        } else {
            inbox.extend_from_slice(&bytes[consumed..]);
        }
        if self.transport == Transport::Udp {
            // What was not used of a datagram is not the beginning of the next.
            inbox.clear();
        }
        if inbox.is_empty() && inbox.capacity() > KEPT_BYTES {
            inbox = Vec::new();
        }
        let over = inbox.len() > context.config.pending_bytes_max;
        self.inbox[dir.index()] = inbox;
        if over && step.next == Next::Continue {
            context.stats.pending_refused += 1;
            self.finish(Finished::Cap("pending_bytes_max"), sink);
            return false;
        }
        self.follow(step.next, dir, context, sink);
        wakes
    }

    fn follow(&mut self, next: Next, dir: Dir, context: &mut Context, sink: &mut dyn Sink) {
        match next {
            Next::Continue => {}
            Next::Finished(why) => {
                context.stats.malformed += u64::from(matches!(why, Finished::Malformed(_)));
                self.finish(why, sink);
            }
            Next::Blind(why) => sink.finished(why),
            Next::Switch | Next::Become(_) if self.switches >= SWITCHES_MAX => self.finish(Finished::Cap("SWITCHES_MAX"), sink),
            Next::Switch | Next::Become(_) => {
                self.switches += 1;
                if let Layer::Known(parser) = &mut self.layer {
                    self.left = parser.leaves();
                }
                self.report(dir, context, sink);
                self.layer = Layer::Unknown { none: [false; 2] };
                self.first = None;
                if let Next::Become(protocol) = next
                    && let Some(entry) = detect::entry(self.transport, protocol)
                {
                    self.protocol = Some(protocol);
                    self.layer = Layer::Known((entry.parser)(&context.config));
                    context.stats.recognised += 1;
                    sink.recognised(protocol);
                }
                for dir in [Dir::ToServer, Dir::ToClient] {
                    let waiting = std::mem::take(&mut self.inbox[dir.index()]);
                    if !waiting.is_empty() {
                        self.first.get_or_insert(dir);
                        match self.layer {
                            Layer::Known(_) => self.feed(dir, &waiting, context, sink),
                            Layer::Unknown { .. } => self.probe(dir, &waiting, context, sink),
                            Layer::Done(_) => {}
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self, why: Finished, sink: &mut dyn Sink) {
        if !self.is_done() {
            self.layer = Layer::Done(why);
            sink.finished(why);
        }
    }
}
