//! Patterns that no linear-time engine can run: look-around, back references, possessive and atomic groups. A backtracking
//! machine on bytes with its own stack, so that neither patterns nor input can exhaust the thread's, and with a cap on steps
//! ([`STEPS_MAX`]) that are charged to the packet's [`Work`].
//!
//! ```text
//! pattern ─ Parser ─ Node ─ Compiler ─ Op … ─ Machine: (op, place) and a stack of what else could be tried
//! ```
//! The meaning of the syntax is PCRE's (`pcrepattern(3)`), without Unicode. What is not known here is refused, by name.

use bulkhead_rules::tree::PcreFlags;

use crate::inspect::Work;

mod parse;

use parse::{Mode, Parser};

/// Steps of one search; more is no match, and is told.
pub const STEPS_MAX: u32 = 1_000_000;
/// Steps that cost one unit of work: a step takes about 2 ns.
const STEPS_PER_UNIT: u32 = 16;
/// Places to go back to at once.
const STACK_MAX: usize = 1 << 16;
/// Operations of one pattern; a counted repetition is written out.
const OPS_MAX: usize = 16_384;
/// Groups in groups.
const DEPTH_MAX: u32 = 32;
const CAPTURES_MAX: usize = 64;
const REPETITIONS_MAX: u32 = 4_096;

/// 256 bits.
type Set = [u64; 4];

#[derive(Debug, Clone)]
enum Node {
    Set(Set),
    At(Place),
    Cat(Vec<Node>),
    Alt(Vec<Node>),
    Capture(Box<Node>, usize),
    Repeat { node: Box<Node>, min: u32, max: Option<u32>, greed: Greed },
    Look { node: Box<Node>, behind: bool, negated: bool },
    Atomic(Box<Node>),
    Back { group: usize, caseless: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greed {
    Most,
    Least,
    Possessive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    LineStart,
    End,
    /// Or before a last line feed.
    AlmostEnd,
    LineEnd,
    Word,
    NoWord,
}

#[derive(Debug, Clone)]
enum Op {
    Set(Box<Set>),
    /// As many of them as there are, then fewer.
    Run(Box<Set>),
    At(Place),
    /// Try the first, then the second.
    Split(usize, usize),
    Jump(usize),
    Save(usize),
    /// Remembers the place; at the other end, goes on only when bytes were used.
    LoopBegin(usize),
    LoopEnd(usize),
    /// Runs on to its `Return` from `back` bytes before, then goes on at `after`.
    Look {
        back: usize,
        negated: bool,
        after: usize,
    },
    /// The same, and takes the place where it ended.
    Atomic {
        after: usize,
    },
    Back {
        group: usize,
        caseless: bool,
    },
    Return,
    Match,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Program {
    ops: Vec<Op>,
    /// Captures, two each, then the loops' places.
    slots: usize,
    /// Bytes a match can begin with; `None`: it may be empty, or begin with anything.
    first: Option<Box<Set>>,
    anchored: bool,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    Found {
        start: usize,
        end: usize,
    },
    NoMatch,
    /// A cap was reached before anybody could tell.
    Exhausted,
}

impl Program {
    /// The error is for the rule's author.
    pub fn new(pattern: &str, flags: &PcreFlags) -> Result<Self, String> {
        let mode = Mode {
            caseless: flags.caseless,
            dot_all: flags.dot_all,
            multi_line: flags.multi_line,
            extended: flags.extended,
            ungreedy: flags.ungreedy,
            end_only: flags.dollar_end_only,
        };
        let mut parser = Parser::new(pattern);
        let (node, _) = parser.alternatives(mode)?;
        if !parser.is_over() {
            return Err("a `)` too many".to_owned());
        }
        let mut compiler = Compiler { ops: Vec::new(), slots: 2 * (parser.groups + 1), groups: parser.groups };
        compiler.node(&node)?;
        compiler.push(Op::Match)?;
        let (first, nullable) = first(&node);
        Ok(Self {
            ops: compiler.ops,
            slots: compiler.slots,
            first: (!nullable && first != [u64::MAX; 4]).then(|| Box::new(first)),
            anchored: flags.anchored || begins_at_start(&node),
        })
    }

    /// The first match that begins anywhere in `bytes`.
    pub fn find(&self, bytes: &[u8], work: &mut Work) -> Search {
        let mut machine =
            Machine { ops: &self.ops, bytes, stack: Vec::new(), slots: vec![usize::MAX; self.slots], undo: Vec::new(), steps: 0 };
        let last = if self.anchored { 0 } else { bytes.len() };
        let mut start = 0;
        let mut result = Search::NoMatch;
        while start <= last {
            if let Some(first) = &self.first
                && !self.anchored
            {
                let skipped = bytes[start..].iter().position(|byte| has(first, *byte));
                // A skipped byte costs as little as one of a literal's search.
                machine.steps = machine.steps.saturating_add(1 + (skipped.unwrap_or(bytes.len() - start) / 16) as u32);
                match skipped {
                    Some(skipped) => start += skipped,
                    None => break,
                }
            }
            machine.slots.fill(usize::MAX);
            machine.undo.clear();
            match machine.run(0, start) {
                Ok(Some(end)) => {
                    result = Search::Found { start, end };
                    break;
                }
                Ok(None) => start += 1,
                Err(TooMuch) => {
                    result = Search::Exhausted;
                    break;
                }
            }
        }
        if work.charge(1 + (machine.steps / STEPS_PER_UNIT) as usize) { result } else { Search::Exhausted }
    }
}

const fn has(set: &Set, byte: u8) -> bool {
    set[(byte >> 6) as usize] >> (byte & 63) & 1 != 0
}

fn put(set: &mut Set, byte: u8) {
    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

fn range(first: u8, last: u8) -> Set {
    let mut set = [0; 4];
    (first..=last).for_each(|byte| put(&mut set, byte));
    set
}

fn join(a: Set, b: Set) -> Set {
    std::array::from_fn(|word| a[word] | b[word])
}

fn not(set: Set) -> Set {
    set.map(|word| !word)
}

fn digits() -> Set {
    range(b'0', b'9')
}

fn letters() -> Set {
    join(range(b'a', b'z'), range(b'A', b'Z'))
}

fn words() -> Set {
    join(join(letters(), digits()), range(b'_', b'_'))
}

fn spaces() -> Set {
    join(range(b'\t', b'\r'), range(b' ', b' '))
}

/// Bytes a match can begin with, and whether it can be empty.
fn first(node: &Node) -> (Set, bool) {
    match node {
        Node::Set(set) => (*set, false),
        Node::At(_) | Node::Look { .. } => ([0; 4], true),
        Node::Back { .. } => ([u64::MAX; 4], true),
        Node::Capture(node, _) | Node::Atomic(node) => first(node),
        Node::Repeat { node, min, .. } => {
            let (set, nullable) = first(node);
            (set, nullable || *min == 0)
        }
        Node::Alt(all) => all.iter().map(first).fold(([0; 4], false), |(set, any), (more, nullable)| (join(set, more), any || nullable)),
        Node::Cat(all) => {
            let mut set = [0; 4];
            for node in all {
                let (more, nullable) = first(node);
                set = join(set, more);
                if !nullable {
                    return (set, false);
                }
            }
            (set, true)
        }
    }
}

fn begins_at_start(node: &Node) -> bool {
    match node {
        Node::At(Place::Start) => true,
        Node::Cat(all) => all.first().is_some_and(begins_at_start),
        Node::Alt(all) => !all.is_empty() && all.iter().all(begins_at_start),
        Node::Capture(node, _) | Node::Atomic(node) => begins_at_start(node),
        Node::Set(_) | Node::At(_) | Node::Repeat { .. } | Node::Look { .. } | Node::Back { .. } => false,
    }
}

/// Bytes that a node always takes.
fn width(node: &Node) -> Option<usize> {
    match node {
        Node::At(_) | Node::Look { .. } => Some(0),
        Node::Set(_) => Some(1),
        Node::Capture(node, _) | Node::Atomic(node) => width(node),
        Node::Cat(all) => all.iter().map(width).sum(),
        Node::Alt(all) => {
            let widths: Option<Vec<usize>> = all.iter().map(width).collect();
            widths.filter(|widths| widths.windows(2).all(|pair| pair[0] == pair[1]))?.first().copied()
        }
        Node::Repeat { node, min, max, .. } if *max == Some(*min) => Some(width(node)? * *min as usize),
        Node::Repeat { .. } | Node::Back { .. } => None,
    }
}

// === Operations ===

struct Compiler {
    ops: Vec<Op>,
    slots: usize,
    groups: usize,
}

impl Compiler {
    fn push(&mut self, op: Op) -> Result<usize, String> {
        if self.ops.len() >= OPS_MAX {
            return Err("the pattern is too large".to_owned());
        }
        self.ops.push(op);
        Ok(self.ops.len() - 1)
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        match node {
            Node::Set(set) => _ = self.push(Op::Set(Box::new(*set)))?,
            Node::At(place) => _ = self.push(Op::At(*place))?,
            Node::Cat(all) => {
                for node in all {
                    self.node(node)?;
                }
            }
            Node::Alt(all) => {
                let mut ends = Vec::new();
                for (number, node) in all.iter().enumerate() {
                    if number + 1 == all.len() {
                        self.node(node)?;
                        break;
                    }
                    let split = self.push(Op::Match)?;
                    self.node(node)?;
                    ends.push(self.push(Op::Match)?);
                    self.ops[split] = Op::Split(split + 1, self.ops.len());
                }
                for end in ends {
                    self.ops[end] = Op::Jump(self.ops.len());
                }
            }
            Node::Capture(node, group) => {
                self.push(Op::Save(2 * group))?;
                self.node(node)?;
                self.push(Op::Save(2 * group + 1))?;
            }
            Node::Repeat { node, min, max, greed: Greed::Possessive } => {
                let inner = Node::Repeat { node: node.clone(), min: *min, max: *max, greed: Greed::Most };
                self.node(&Node::Atomic(Box::new(inner)))?;
            }
            Node::Repeat { node, min, max: None, greed: Greed::Most } if matches!(**node, Node::Set(_)) => {
                for _ in 0..*min {
                    self.node(node)?;
                }
                if let Node::Set(set) = &**node {
                    self.push(Op::Run(Box::new(*set)))?;
                }
            }
            Node::Repeat { node, min, max, greed } => {
                for _ in 0..*min {
                    self.node(node)?;
                }
                let split = |next, after| if *greed == Greed::Most { Op::Split(next, after) } else { Op::Split(after, next) };
                match max {
                    Some(max) => {
                        let mut splits = Vec::new();
                        for _ in *min..*max {
                            splits.push(self.push(Op::Match)?);
                            self.node(node)?;
                        }
                        for at in splits {
                            self.ops[at] = split(at + 1, self.ops.len());
                        }
                    }
                    None => {
                        let slot = self.slots;
                        self.slots += 1;
                        let begin = self.push(Op::Match)?;
                        self.push(Op::LoopBegin(slot))?;
                        self.node(node)?;
                        self.push(Op::LoopEnd(slot))?;
                        self.push(Op::Jump(begin))?;
                        self.ops[begin] = split(begin + 1, self.ops.len());
                    }
                }
            }
            Node::Look { node, behind: true, negated } => {
                let alone = std::slice::from_ref(&**node);
                let alternatives = if let Node::Alt(all) = &**node { all.as_slice() } else { alone };
                if *negated {
                    // None of them.
                    for node in alternatives {
                        self.look(node, true, true)?;
                    }
                } else if let [only] = alternatives {
                    self.look(only, true, false)?;
                } else {
                    let each = |node: &Node| Node::Look { node: Box::new(node.clone()), behind: true, negated: false };
                    self.node(&Node::Alt(alternatives.iter().map(each).collect()))?;
                }
            }
            Node::Look { node, behind: false, negated } => self.look(node, false, *negated)?,
            Node::Atomic(node) => {
                let at = self.push(Op::Match)?;
                self.node(node)?;
                self.push(Op::Return)?;
                self.ops[at] = Op::Atomic { after: self.ops.len() };
            }
            Node::Back { group, caseless } => {
                if *group == 0 || *group > self.groups {
                    return Err(format!("there is no group {group}"));
                }
                self.push(Op::Back { group: *group, caseless: *caseless })?;
            }
        }
        Ok(())
    }

    fn look(&mut self, node: &Node, behind: bool, negated: bool) -> Result<(), String> {
        let back = if behind { width(node).ok_or("looking behind at what has no fixed length")? } else { 0 };
        let at = self.push(Op::Match)?;
        self.node(node)?;
        self.push(Op::Return)?;
        self.ops[at] = Op::Look { back, negated, after: self.ops.len() };
        Ok(())
    }
}

// === Running ===

struct TooMuch;

/// What else could be tried: to go on with an operation at a place, and behind it at each down to `low`.
#[derive(Debug, Clone, Copy)]
struct Choice {
    op: usize,
    at: usize,
    low: usize,
    /// Length of `undo` then.
    undone: usize,
}

struct Machine<'a> {
    ops: &'a [Op],
    bytes: &'a [u8],
    stack: Vec<Choice>,
    slots: Vec<usize>,
    /// Slots that were written, and what stood in them.
    undo: Vec<(usize, usize)>,
    steps: u32,
}

impl Machine<'_> {
    /// From an operation to its `Match` or `Return`: the place there. Calls itself as deep as groups stand in groups.
    fn run(&mut self, mut op: usize, mut at: usize) -> Result<Option<usize>, TooMuch> {
        let floor = self.stack.len();
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX || self.stack.len() > STACK_MAX || self.undo.len() > STACK_MAX {
                self.stack.truncate(floor);
                return Err(TooMuch);
            }
            let goes_on = match &self.ops[op] {
                Op::Set(set) => {
                    let there = self.bytes.get(at).is_some_and(|byte| has(set, *byte));
                    at += usize::from(there);
                    there
                }
                Op::Run(set) => {
                    let rest = self.bytes.get(at..).unwrap_or_default();
                    let len = rest.iter().position(|byte| !has(set, *byte)).unwrap_or(rest.len());
                    self.steps += (len / 8) as u32;
                    if len > 0 {
                        self.stack.push(Choice { op: op + 1, at: at + len - 1, low: at, undone: self.undo.len() });
                    }
                    at += len;
                    true
                }
                Op::At(place) => self.is_at(*place, at),
                Op::Split(first, second) => {
                    self.stack.push(Choice { op: *second, at, low: at, undone: self.undo.len() });
                    op = *first;
                    continue;
                }
                Op::Jump(to) => {
                    op = *to;
                    continue;
                }
                Op::Save(slot) | Op::LoopBegin(slot) => {
                    self.set(*slot, at);
                    true
                }
                Op::LoopEnd(slot) => {
                    if self.slots[*slot] == at {
                        // Once more would be the same again: leave the loop.
                        op += 2;
                        continue;
                    }
                    true
                }
                Op::Look { back, negated, after } => {
                    let (negated, after, undone) = (*negated, *after, self.undo.len());
                    let found = match at.checked_sub(*back) {
                        Some(from) => self.run(op + 1, from)?.is_some(),
                        None => false,
                    };
                    if negated || !found {
                        self.unwind(undone);
                    }
                    if found != negated {
                        op = after;
                        continue;
                    }
                    false
                }
                Op::Atomic { after } => {
                    let after = *after;
                    match self.run(op + 1, at)? {
                        Some(end) => {
                            (op, at) = (after, end);
                            continue;
                        }
                        None => false,
                    }
                }
                Op::Back { group, caseless } => {
                    let (start, end) = (self.slots[2 * group], self.slots[2 * group + 1]);
                    // A group that was not gone through matches nothing.
                    match self.bytes.get(start..end) {
                        Some(text) => {
                            self.steps += (text.len() / 8) as u32;
                            let there = self
                                .bytes
                                .get(at..at + text.len())
                                .is_some_and(|found| if *caseless { found.eq_ignore_ascii_case(text) } else { found == text });
                            at += if there { text.len() } else { 0 };
                            there
                        }
                        None => false,
                    }
                }
                Op::Return | Op::Match => {
                    self.stack.truncate(floor);
                    return Ok(Some(at));
                }
            };
            if goes_on {
                op += 1;
                continue;
            }
            if self.stack.len() <= floor {
                return Ok(None);
            }
            let Some(choice) = self.stack.pop() else { return Ok(None) };
            self.unwind(choice.undone);
            if choice.at > choice.low {
                self.stack.push(Choice { at: choice.at - 1, ..choice });
            }
            (op, at) = (choice.op, choice.at);
        }
    }

    fn set(&mut self, slot: usize, at: usize) {
        self.undo.push((slot, self.slots[slot]));
        self.slots[slot] = at;
    }

    fn unwind(&mut self, to: usize) {
        while self.undo.len() > to {
            if let Some((slot, before)) = self.undo.pop() {
                self.slots[slot] = before;
            }
        }
    }

    fn is_at(&self, place: Place, at: usize) -> bool {
        let (before, next) = (at.checked_sub(1).and_then(|at| self.bytes.get(at)), self.bytes.get(at));
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| has(&words(), *byte));
        match place {
            Place::Start => at == 0,
            Place::LineStart => before.is_none_or(|byte| *byte == b'\n'),
            Place::End => next.is_none(),
            Place::AlmostEnd => next.is_none() || (next == Some(&b'\n') && at + 1 == self.bytes.len()),
            Place::LineEnd => next.is_none_or(|byte| *byte == b'\n'),
            Place::Word => is_word(before) != is_word(next),
            Place::NoWord => is_word(before) == is_word(next),
        }
    }
}

#[cfg(test)]
mod tests;
