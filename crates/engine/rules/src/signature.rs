//! What a rule means: modifiers folded into their content, contents grouped by buffer, everything typed.

use crate::buffer::BufferId;
use crate::condition::{AppLayerProtocol, Condition, Effect, Towards};
use crate::diagnostic::{Code, Problem};
use crate::header::{Action, AddressExpr, Direction, Header, Protocol};
use crate::keyword::Keyword;
use crate::limits::{RateFilter, SuppressionSide};
use crate::protocol::App;
use crate::transform::Transform;
use crate::tree::{
    Amount, Base64Decode, Body, ByteExtract, ByteJump, ByteMath, ByteTest, ByteValue, Datarep, Dataset, Entropy, FastPattern, FlowWord,
    Flowbits, IsDataAt, Modifier, NumberTest, PacketTest, Pcre, Requirement, Select, Target, Threshold, ThresholdKind, VersionRelation,
};

/// Matches of one rule.
const MATCHES_MAX: usize = 512;
/// Transforms before one buffer's matches.
const TRANSFORMS_MAX: usize = 16;

/// What an engine runs. All of `flow`, `packet`, `buffers`, `conditions` and the reading `flowbits` must hold; then `effects` and
/// the writing `flowbits` are done. An engine must refuse a rule of which it does not know a part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signature {
    pub sid: u32,
    /// 1 when the rule gives none.
    pub gid: u32,
    pub rev: u32,
    pub msg: String,
    pub classtype: Option<String>,
    /// Of the rule itself; the class' priority counts when `None`.
    pub priority: Option<u8>,
    /// System and value.
    pub references: Vec<(String, String)>,
    pub metadata: Vec<(String, String)>,
    pub target: Option<Target>,
    /// Application protocols as recognised on the wire, of which the flow's must be one; empty: the rule is not about any.
    pub apps: Vec<App>,
    pub flow: Vec<FlowWord>,
    pub packet: Vec<PacketTest>,
    /// One entry for each selection of a buffer that is matched, in the order written.
    pub buffers: Vec<BufferMatches>,
    pub conditions: Vec<Condition>,
    pub effects: Vec<Effect>,
    pub flowbits: Vec<Flowbits>,
    pub noalert: bool,
    /// Each is asked in turn; a `detection_filter` stands alone.
    pub thresholds: Vec<Threshold>,
    /// Of the operator, not of the rule: addresses for which it does what it does in silence. See [`crate::limits`].
    pub suppressions: Vec<(SuppressionSide, AddressExpr)>,
    /// Another action for a time, once it matched too often.
    pub rate_filter: Option<RateFilter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Buffer {
    /// A packet's payload or the stream.
    Payload,
    /// A sticky buffer.
    Named(BufferId),
    /// A piece of a protocol's stream, one of [`crate::buffer::frames`]; `None`: of whatever protocol the flow has.
    Frame { protocol: Option<App>, name: &'static str },
}

/// A buffer and what is asked of it. Of a buffer that exists several times in one transaction ([`crate::buffer::BufferInfo::multiple`])
/// one instance has to satisfy all matches of one entry; another entry may be satisfied by another instance.
#[derive(Debug, Clone, PartialEq)]
pub struct BufferMatches {
    pub buffer: Buffer,
    /// `None`: whichever direction has it.
    pub towards: Option<Towards>,
    /// Applied to the buffer in order before the matches.
    pub transforms: Vec<Transform>,
    /// In the order written; relative ones relate to the match before.
    pub matches: Vec<Match>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    Content(ContentMatch),
    Pcre(Pcre),
    IsDataAt(IsDataAt),
    ByteTest(ByteTest),
    ByteJump(ByteJump),
    ByteExtract(ByteExtract),
    ByteMath(ByteMath),
    /// Fills `base64_data`, and fails when nothing can be decoded.
    Base64Decode(Base64Decode),
    /// Size of the buffer.
    Bsize(NumberTest),
    Dataset(Box<Dataset>),
    Datarep(Box<Datarep>),
    /// The buffer is not there; or, with `or_else`, the matches hold.
    Absent {
        or_else: bool,
    },
    Entropy(Entropy),
}

impl Match {
    /// Begins where the match before it ended.
    pub fn is_relative(&self) -> bool {
        match self {
            Self::Content(content) => content.is_relative(),
            Self::Pcre(pcre) => pcre.flags.relative,
            Self::IsDataAt(at) => at.relative,
            Self::ByteTest(test) => test.relative,
            Self::ByteJump(jump) => jump.relative,
            Self::ByteExtract(extract) => extract.relative,
            Self::ByteMath(math) => math.relative,
            Self::Base64Decode(decode) => decode.relative,
            Self::Bsize(_) | Self::Dataset(_) | Self::Datarep(_) | Self::Absent { .. } | Self::Entropy(_) => false,
        }
    }
}

/// A literal with where it may stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentMatch {
    /// Never empty.
    pub bytes: Vec<u8>,
    pub negated: bool,
    pub nocase: bool,
    pub starts_with: bool,
    pub ends_with: bool,
    pub offset: Option<Amount>,
    /// Counted from `offset`.
    pub depth: Option<Amount>,
    pub distance: Option<Amount>,
    pub within: Option<Amount>,
    pub fast_pattern: Option<FastPattern>,
    /// What stands there after an inline rule matched; as long as `bytes`.
    pub replace: Option<Vec<u8>>,
}

impl ContentMatch {
    pub fn is_relative(&self) -> bool {
        self.distance.is_some() || self.within.is_some()
    }
}

/// Adds options in the order written. The first problem of an option is returned; folding may go on.
#[derive(Debug)]
pub(crate) struct Fold {
    pub signature: Signature,
    transaction: bool,
    config: bool,
    /// The hook is of the connection, `http2:global:request_started`.
    global_hook: bool,
    /// Entry of `signature.buffers` that a sticky buffer chose; `None`: the payload.
    current: Option<usize>,
    /// Buffer list and place of the last content: what a modifier modifies.
    last_content: Option<(usize, usize)>,
    /// Protocols so far; `None`: any.
    apps: Option<Vec<App>>,
    seen: Vec<&'static str>,
    current_is_old: bool,
    /// Where each name was set.
    names: Vec<(usize, String)>,
    matches: usize,
    /// Lints of the option in hand.
    pub warnings: Vec<Problem>,
}

impl Fold {
    pub fn new(header: &Header) -> Self {
        let apps = match header.protocol {
            Protocol::App(app) => Some(app.members().collect()),
            _ => None,
        };
        Self {
            signature: Signature::default(),
            transaction: header.direction == Direction::Transaction,
            config: header.action == Action::Config,
            global_hook: header.hook.as_ref().is_some_and(|hook| hook.starts_with("global:")),
            current: None,
            last_content: None,
            apps,
            seen: Vec::new(),
            current_is_old: false,
            names: Vec::new(),
            matches: 0,
            warnings: Vec::new(),
        }
    }

    pub fn add(&mut self, keyword: &'static Keyword, body: &Body) -> Result<(), Problem> {
        if keyword.once {
            if self.seen.contains(&keyword.name) {
                return Err(Problem::new(Code::DuplicateOption, format!("`{}` is given twice", keyword.name)).help("keep one of them"));
            }
            self.seen.push(keyword.name);
        }
        let signature = &mut self.signature;
        match body {
            Body::Msg(text) => signature.msg = text.clone(),
            Body::Sid(number) => signature.sid = *number,
            Body::Gid(number) => signature.gid = *number,
            Body::Rev(number) => signature.rev = *number,
            Body::Classtype(name) => signature.classtype = Some(name.clone()),
            Body::Reference { system, value } => signature.references.push((system.clone(), value.clone())),
            Body::Metadata(pairs) => signature.metadata.extend(pairs.iter().cloned()),
            Body::Priority(number) => signature.priority = Some(*number),
            Body::Target(target) => signature.target = Some(*target),
            Body::Content { negated, bytes } => {
                let content = ContentMatch { bytes: bytes.clone(), negated: *negated, ..ContentMatch::default() };
                self.push(Match::Content(content))?;
            }
            Body::UriContent { negated, bytes } => {
                if self.current.is_some() {
                    return Err(
                        Problem::new(Code::StickyConflict, "uricontent stands after a sticky buffer").help("use http.uri and content")
                    );
                }
                self.narrow(BufferId::HttpUri.info().protocols, "uricontent")?;
                let list = self.list(Buffer::Named(BufferId::HttpUri));
                let content = ContentMatch { bytes: bytes.clone(), negated: *negated, ..ContentMatch::default() };
                self.push_into(list, Match::Content(content))?;
            }
            Body::Modifier(Modifier::MoveTo(buffer)) => return self.move_to(*buffer),
            Body::Modifier(modifier) => return self.modify(modifier),
            Body::Select(select) => return self.select(select),
            Body::Transform(transform) => return self.transform(transform),
            Body::Pcre(pcre) => return self.pcre(pcre),
            Body::IsDataAt(at) => {
                self.known(&at.at)?;
                self.push(Match::IsDataAt(at.clone()))?;
            }
            Body::ByteTest(test) => {
                self.known(&test.count)?;
                self.known(&test.offset)?;
                self.known_value(&test.value)?;
                self.push(Match::ByteTest((**test).clone()))?;
            }
            Body::ByteJump(jump) => {
                self.known(&jump.count)?;
                self.known(&jump.offset)?;
                self.known(&jump.post_offset)?;
                self.push(Match::ByteJump((**jump).clone()))?;
            }
            Body::ByteExtract(extract) => {
                self.push(Match::ByteExtract(extract.clone()))?;
                let list = self.here();
                self.names.push((list, extract.name.clone()));
            }
            Body::ByteMath(math) => {
                self.known(&math.count)?;
                self.known_value(&math.operand)?;
                let first = self.signature.buffers.get(self.here()).is_none_or(|list| list.matches.is_empty());
                if math.relative && first {
                    return Err(Problem::value("a relative byte_math needs a match before it in the same buffer"));
                }
                self.push(Match::ByteMath((**math).clone()))?;
                let list = self.here();
                self.names.push((list, math.result.clone()));
            }
            Body::Base64Decode(decode) => self.push(Match::Base64Decode(*decode))?,
            Body::Bsize(test) => self.in_buffer("bsize", Match::Bsize(*test))?,
            Body::Dataset(set) => self.in_buffer("dataset", Match::Dataset(set.clone()))?,
            Body::Datarep(set) => self.in_buffer("datarep", Match::Datarep(set.clone()))?,
            Body::Absent { or_else } => {
                if self.current.is_some_and(|list| !self.signature.buffers[list].matches.is_empty()) && !*or_else {
                    return Err(Problem::new(Code::ModifierConflict, "absent stands beside other matches of its buffer")
                        .help("write absent:or_else; in front of them"));
                }
                self.in_buffer("absent", Match::Absent { or_else: *or_else })?;
            }
            Body::Entropy(test) => self.push(Match::Entropy(*test))?,
            Body::Flow(words) => {
                if !signature.flow.is_empty() {
                    return Err(Problem::new(Code::DuplicateOption, "`flow` is given twice").help("write one flow with all its words"));
                }
                signature.flow.extend(words.iter().copied());
            }
            Body::Flowbits(bits) => return self.flowbits(bits),
            Body::Noalert => signature.noalert = true,
            Body::Threshold(threshold) | Body::DetectionFilter(threshold) => {
                let alone =
                    threshold.kind == ThresholdKind::Filter || signature.thresholds.iter().any(|other| other.kind == ThresholdKind::Filter);
                if alone && !signature.thresholds.is_empty() {
                    return Err(Problem::new(Code::DuplicateOption, "a detection_filter stands alone, without a threshold"));
                }
                if signature.thresholds.iter().any(|other| other.kind == threshold.kind) {
                    return Err(Problem::new(Code::DuplicateOption, "`threshold` is given twice").help("keep one of them"));
                }
                signature.thresholds.push(*threshold);
            }
            Body::Packet(test) => signature.packet.push(*test),
            Body::Condition(condition) => {
                if let Condition::AppLayerProtocol(test) = condition.as_ref() {
                    self.app_layer_protocol(test)?;
                }
                self.narrow(condition.protocols(), keyword.name)?;
                self.signature.conditions.push(condition.as_ref().clone());
            }
            Body::Effect(effect) => signature.effects.push(effect.as_ref().clone()),
            Body::Prefilter => {
                let nothing = signature.packet.is_empty() && signature.conditions.is_empty() && signature.flowbits.is_empty();
                if self.matches == 0 && nothing {
                    return Err(Problem::new(Code::ModifierWithoutContent, "prefilter does not follow a keyword that it could choose"));
                }
                if matches!(signature.conditions.last(), Some(Condition::AppLayerProtocol(test)) if test.protocols.len() > 1) {
                    return Err(Problem::new(Code::ModifierConflict, "prefilter beside more than one protocol"));
                }
            }
            Body::Requires(requirements) => {
                if let Some(problem) = unmet(requirements) {
                    return Err(problem);
                }
            }
            Body::Unsupported(_) => {}
        }
        Ok(())
    }

    /// Checks what can only be told at the end.
    pub fn finish(mut self) -> Result<Signature, Problem> {
        if self.signature.sid == 0 {
            return Err(Problem::new(Code::MissingSid, "the rule has no sid").help("add `sid:NUMBER;`"));
        }
        if self.signature.gid == 0 {
            self.signature.gid = 1;
        }
        self.not_empty()?;
        for list in &self.signature.buffers {
            check_list(list)?;
        }
        check_dsize(&self.signature)?;
        let named = |list: &BufferMatches| matches!(list.buffer, Buffer::Named(_));
        if self.global_hook && self.signature.buffers.iter().any(named) {
            return Err(Problem::new(Code::ProtocolConflict, "a hook of the whole connection stands beside a buffer of one stream"));
        }
        self.directions()?;
        if self.config && !self.signature.effects.iter().any(|effect| matches!(effect, Effect::DisableLogging(_))) {
            return Err(Problem::new(Code::ModifierConflict, "the action config says nothing without the keyword `config`"));
        }
        self.signature.apps = self.apps.unwrap_or_default();
        self.signature.buffers.shrink_to_fit();
        for list in &mut self.signature.buffers {
            list.matches.shrink_to_fit();
        }
        Ok(self.signature)
    }

    /// What exists in one direction only must fit together, and with `flow`.
    fn directions(&self) -> Result<(), Problem> {
        let has = |words: [FlowWord; 2]| self.signature.flow.iter().any(|word| words.contains(word));
        let (flow_server, flow_client) = (has([FlowWord::ToServer, FlowWord::FromClient]), has([FlowWord::ToClient, FlowWord::FromServer]));
        let (mut to_server, mut to_client) = (flow_server.then_some("flow"), flow_client.then_some("flow"));
        let (mut ambiguous, mut asked) = (None, (false, false));
        for list in &self.signature.buffers {
            let Buffer::Named(id) = list.buffer else { continue };
            let info = id.info();
            match (info.to_server, info.to_client, list.towards) {
                (true, false, _) | (_, _, Some(Towards::ToServer)) => {
                    to_server = Some(info.name);
                    asked.0 = true;
                }
                (false, true, _) | (_, _, Some(Towards::ToClient)) => {
                    to_client = Some(info.name);
                    asked.1 = true;
                }
                _ if info.protocols.is_empty() => {}
                _ => ambiguous = Some(info.name),
            }
        }
        let conflict = |message: String| Err(Problem::new(Code::ProtocolConflict, message));
        match (self.transaction, to_server, to_client, ambiguous) {
            (true, _, _, _) if flow_server || flow_client => conflict("`=>` stands beside a direction of `flow`".to_owned()),
            (true, _, _, Some(name)) => conflict(format!("`{name}` exists in both directions, and `=>` needs to know which")),
            (true, _, _, None) if asked != (true, true) => conflict("`=>` stands beside buffers of one direction only".to_owned()),
            (false, Some(there), Some(back), _) => {
                Err(Problem::new(Code::ProtocolConflict, format!("`{there}` and `{back}` are of different directions"))
                    .help("write `=>` for a rule about both directions of a transaction"))
            }
            _ => Ok(()),
        }
    }

    fn flowbits(&mut self, bits: &Flowbits) -> Result<(), Problem> {
        use crate::tree::FlowbitsOperation as Op;
        for other in &self.signature.flowbits {
            let Some(name) = bits.names.iter().find(|name| other.names.contains(name)) else { continue };
            let pair = [other.operation, bits.operation];
            let both = |a: Op, b: Op| pair.contains(&a) && pair.contains(&b);
            if both(Op::IsSet, Op::IsNotSet) && bits.names.len() == 1 && other.names.len() == 1 {
                return Err(Problem::new(Code::ModifierConflict, format!("`{name}` cannot be set and not set")));
            }
            let idle =
                [(Op::Set, Op::IsSet), (Op::Unset, Op::IsNotSet), (Op::Set, Op::Unset), (Op::Set, Op::Toggle), (Op::Unset, Op::Toggle)];
            if idle.iter().any(|(a, b)| both(*a, *b)) {
                self.warnings.push(Problem::new(Code::RedundantModifier, format!("two flowbits about `{name}` leave one without effect")));
                break;
            }
        }
        self.signature.flowbits.push(bits.clone());
        Ok(())
    }

    fn app_layer_protocol(&self, test: &AppLayerProtocol) -> Result<(), Problem> {
        let again = self.signature.conditions.iter().any(|condition| match condition {
            Condition::AppLayerProtocol(other) => {
                other.negated
                    && test.negated
                    && other.mode == test.mode
                    && other.protocols.iter().any(|found| test.protocols.contains(found))
            }
            _ => false,
        });
        if again {
            return Err(Problem::new(Code::DuplicateOption, "the same protocol is negated twice"));
        }
        Ok(())
    }

    /// Where a match goes now.
    fn push(&mut self, found: Match) -> Result<(), Problem> {
        let list = match self.current {
            Some(list) => list,
            // A number or a length counted from a content that was moved to a buffer is read there.
            None => match (&found, self.last_content) {
                (Match::IsDataAt(_) | Match::ByteTest(_) | Match::ByteJump(_) | Match::ByteExtract(_), Some((list, _)))
                    if found.is_relative() =>
                {
                    list
                }
                // What is decoded stands where the content before it does.
                (Match::Base64Decode(_), Some((list, _))) => list,
                _ => self.list(Buffer::Payload),
            },
        };
        self.push_into(list, found)
    }

    fn push_into(&mut self, list: usize, found: Match) -> Result<(), Problem> {
        self.matches += 1;
        if self.matches > MATCHES_MAX {
            return Err(Problem::new(Code::RuleTooLong, format!("the rule has more than {MATCHES_MAX} matches")));
        }
        let matches = &mut self.signature.buffers[list].matches;
        // As in Suricata a modifier belongs to the last content, even when a pcre stands between.
        if let Match::Content(_) = found {
            self.last_content = Some((list, matches.len()));
        }
        matches.push(found);
        Ok(())
    }

    /// A keyword that asks something of the buffer just chosen.
    fn in_buffer(&mut self, name: &str, found: Match) -> Result<(), Problem> {
        match self.current {
            Some(list) => self.push_into(list, found),
            None => Err(Problem::new(Code::ModifierWithoutContent, format!("{name} does not follow a sticky buffer"))
                .help("name the buffer before it, as in `http.uri;`")),
        }
    }

    /// The entry of a buffer without transforms, made when there is none.
    fn list(&mut self, buffer: Buffer) -> usize {
        let plain = |list: &BufferMatches| list.buffer == buffer && list.transforms.is_empty() && list.towards.is_none();
        self.signature.buffers.iter().position(plain).unwrap_or_else(|| self.open(buffer, None))
    }

    fn open(&mut self, buffer: Buffer, towards: Option<Towards>) -> usize {
        self.signature.buffers.push(BufferMatches { buffer, towards, transforms: Vec::new(), matches: Vec::new() });
        self.signature.buffers.len() - 1
    }

    /// The chosen buffer must have been asked something before another is chosen.
    fn not_empty(&self) -> Result<(), Problem> {
        match self.current.map(|list| &self.signature.buffers[list]) {
            Some(list) if list.matches.is_empty() => {
                let name = match list.buffer {
                    Buffer::Payload => "pkt_data",
                    Buffer::Named(id) => id.name(),
                    Buffer::Frame { name, .. } => name,
                };
                Err(Problem::new(Code::EmptyBuffer, format!("nothing is asked of the buffer `{name}`")).help("add a content after it"))
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &Select) -> Result<(), Problem> {
        self.not_empty()?;
        self.last_content = None;
        self.current_is_old = select.old_name;
        match select.buffer {
            Buffer::Payload => {
                self.current = None;
                return Ok(());
            }
            Buffer::Named(id) => self.narrow(select.protocol.map_or(id.info().protocols, App::one), id.name())?,
            Buffer::Frame { protocol, name } => {
                if let Some(protocol) = protocol {
                    self.narrow(protocol.one(), name)?;
                }
            }
        }
        let multiple = matches!(select.buffer, Buffer::Named(id) if id.info().multiple);
        let known = |list: &BufferMatches| list.buffer == select.buffer && list.towards == select.towards && list.transforms.is_empty();
        let known = if multiple { None } else { self.signature.buffers.iter().position(known) };
        self.current = Some(match known {
            Some(list) => list,
            None => self.open(select.buffer, select.towards),
        });
        Ok(())
    }

    fn transform(&mut self, transform: &Transform) -> Result<(), Problem> {
        let Some(list) = self.current else {
            return Err(Problem::new(Code::ModifierWithoutContent, "a transform does not follow a sticky buffer"));
        };
        let found = &self.signature.buffers[list];
        let (buffer, towards) = (found.buffer, found.towards);
        // What was asked before looks at the buffer as it is.
        if !found.matches.is_empty() {
            let fresh = self.signature.buffers.len();
            if self.last_content.is_some() {
                let problem = Problem::new(Code::LateTransform, "a transform behind a match begins to look into the buffer anew");
                self.warnings.push(problem.help("write the buffer's name again before it"));
            }
            self.open(buffer, towards);
            self.current = Some(fresh);
        }
        let list = self.current.unwrap_or(list);
        let transforms = &mut self.signature.buffers[list].transforms;
        if transforms.len() >= TRANSFORMS_MAX {
            return Err(Problem::new(Code::RuleTooLong, format!("a buffer has more than {TRANSFORMS_MAX} transforms")));
        }
        transforms.push(transform.clone());
        Ok(())
    }

    fn pcre(&mut self, pcre: &Pcre) -> Result<(), Problem> {
        let list = match (self.current, pcre.buffer) {
            (Some(list), None) => list,
            (Some(list), Some(id)) if self.signature.buffers.get(list).is_some_and(|found| found.buffer == Buffer::Named(id)) => list,
            // Published rules have it after old names; the flag is what they mean, but for `R` that ties them to the buffer.
            (Some(list), Some(id)) if self.current_is_old => {
                let message = format!("the flag for `{}` stands after another sticky buffer", id.name());
                let help = format!("write `{};` before the pcre instead of the flag", id.name());
                self.warnings.push(Problem::new(Code::MixedBuffers, message).help(help));
                if pcre.flags.relative {
                    list
                } else {
                    self.narrow(id.info().protocols, "pcre")?;
                    self.list(Buffer::Named(id))
                }
            }
            (Some(_), Some(id)) => {
                return Err(Problem::new(Code::StickyConflict, format!("the flag for `{}` stands after another sticky buffer", id.name()))
                    .help("write pkt_data; before it, or the sticky buffer instead of the flag"));
            }
            (None, Some(id)) => {
                self.narrow(id.info().protocols, "pcre")?;
                self.list(Buffer::Named(id))
            }
            (None, None) => {
                let list = self.list(Buffer::Payload);
                if pcre.flags.relative && self.signature.buffers[list].matches.is_empty() {
                    return Err(Problem::new(Code::BadPcre, "the flag `R` needs a match before it in the same buffer"));
                }
                list
            }
        };
        self.push_into(list, Match::Pcre(pcre.clone()))
    }

    /// The old form: the last content of the payload goes into a buffer.
    fn move_to(&mut self, id: BufferId) -> Result<(), Problem> {
        let name = id.info().modifier.unwrap_or(id.name());
        if self.current.is_some() {
            return Err(Problem::new(Code::StickyConflict, format!("`{name}` stands after a sticky buffer"))
                .help(format!("write `{};` before the content instead", id.name())));
        }
        self.narrow(id.info().protocols, name)?;
        let payload = self.signature.buffers.iter().position(|list| list.buffer == Buffer::Payload);
        let last = payload.and_then(|list| {
            let at = self.signature.buffers[list].matches.iter().rposition(|found| matches!(found, Match::Content(_)))?;
            Some((list, at))
        });
        let Some((from, at)) = last else {
            return Err(Problem::new(Code::ModifierWithoutContent, format!("`{name}` does not follow a content"))
                .help("put it directly after the content it belongs to"));
        };
        let content = self.signature.buffers[from].matches.remove(at);
        if let Match::Content(ContentMatch { replace: Some(_), .. }) = content {
            return Err(Problem::new(Code::ModifierConflict, "replace works on a packet's payload only"));
        }
        let list = self.list(Buffer::Named(id));
        let matches = &mut self.signature.buffers[list].matches;
        matches.push(content);
        self.last_content = Some((list, matches.len() - 1));
        // The payload may be empty now.
        if self.signature.buffers[from].matches.is_empty() {
            self.signature.buffers.remove(from);
            for (place, _) in self.names.iter_mut().filter(|(place, _)| *place > from) {
                *place -= 1;
            }
            if from < list {
                self.last_content = self.last_content.map(|(list, at)| (list - 1, at));
            }
        }
        Ok(())
    }

    fn narrow(&mut self, protocols: &'static [App], name: &str) -> Result<(), Problem> {
        if protocols.is_empty() {
            return Ok(());
        }
        let allowed: Vec<App> = protocols.iter().flat_map(|app| app.members()).collect();
        let kept: Vec<App> = match &self.apps {
            None => {
                let mut all = allowed;
                all.sort_unstable();
                all.dedup();
                all
            }
            Some(apps) => apps.iter().copied().filter(|app| allowed.contains(app)).collect(),
        };
        if kept.is_empty() {
            let so_far: Vec<&str> = self.apps.iter().flatten().map(|app| app.name()).collect();
            let message = format!("`{name}` is of {}, the rule is about {}", protocols[0].name(), so_far.join(", "));
            return Err(Problem::new(Code::ProtocolConflict, message));
        }
        self.apps = Some(kept);
        Ok(())
    }

    /// The entry of the payload or of the chosen buffer.
    fn here(&self) -> usize {
        self.current.unwrap_or_else(|| self.signature.buffers.iter().position(|list| list.buffer == Buffer::Payload).unwrap_or(0))
    }

    /// A name set in the payload is known there only, one set in a buffer of an application layer in all of those.
    fn is_here(&self, list: usize) -> bool {
        let of_app = |list: usize| matches!(self.signature.buffers.get(list).map(|found| found.buffer), Some(Buffer::Named(_)));
        // The old modifiers come after the positions of their content, which stands with the payload until then.
        self.current.is_none() || list == self.here() || (of_app(list) && of_app(self.here()))
    }

    fn known(&self, amount: &Amount) -> Result<(), Problem> {
        match amount {
            Amount::Number(_) => Ok(()),
            Amount::Name(name) if self.names.iter().any(|(list, known)| known == name && self.is_here(*list)) => Ok(()),
            Amount::Name(name) => {
                Err(Problem::value(format!("`{name}` is neither a number nor set by a byte_extract or byte_math before")))
            }
        }
    }

    fn known_value(&self, value: &ByteValue) -> Result<(), Problem> {
        match value {
            ByteValue::Number(_) => Ok(()),
            ByteValue::Name(name) => self.known(&Amount::Name(name.clone())),
        }
    }

    fn modify(&mut self, modifier: &Modifier) -> Result<(), Problem> {
        if let Modifier::Offset(amount) | Modifier::Depth(amount) | Modifier::Distance(amount) | Modifier::Within(amount) = modifier {
            self.known(amount)?;
        }
        let content = match self.last_content.and_then(|(list, index)| self.signature.buffers.get_mut(list)?.matches.get_mut(index)) {
            Some(Match::Content(content)) => content,
            _ => {
                return Err(Problem::new(Code::ModifierWithoutContent, "this modifier does not follow a content")
                    .help("put it directly after the content it belongs to"));
            }
        };
        let conflict = |what: &str| Err(Problem::new(Code::ModifierConflict, format!("{what} on one content")));
        let long = content.bytes.len() as i64;
        let short = |amount: &Amount| matches!(amount, Amount::Number(number) if i64::from(*number) < long);
        match modifier {
            Modifier::Nocase => {
                if content.nocase {
                    return conflict("nocase twice");
                }
                content.nocase = true;
            }
            Modifier::Rawbytes => {}
            Modifier::StartsWith => {
                if content.starts_with {
                    return conflict("startswith twice");
                }
                if content.offset.is_some() || content.depth.is_some() || content.is_relative() {
                    return conflict("startswith beside offset, depth, distance or within");
                }
                content.starts_with = true;
            }
            Modifier::EndsWith => {
                if content.ends_with {
                    return conflict("endswith twice");
                }
                content.ends_with = true;
            }
            Modifier::Offset(amount) => {
                if content.offset.is_some() {
                    return conflict("offset twice");
                }
                if content.is_relative() || content.starts_with {
                    return conflict("offset beside distance, within or startswith");
                }
                content.offset = Some(amount.clone());
            }
            Modifier::Depth(amount) => {
                if content.depth.is_some() {
                    return conflict("depth twice");
                }
                if content.is_relative() || content.starts_with {
                    return conflict("depth beside distance, within or startswith");
                }
                if short(amount) {
                    return Err(Problem::value(format!("depth is smaller than the content's {long} bytes"))
                        .help(format!("use at least `depth:{long};`")));
                }
                content.depth = Some(amount.clone());
            }
            Modifier::Distance(amount) => {
                if content.distance.is_some() {
                    return conflict("distance twice");
                }
                if content.offset.is_some() || content.depth.is_some() || content.starts_with {
                    return conflict("distance beside offset, depth or startswith");
                }
                content.distance = Some(amount.clone());
            }
            Modifier::Within(amount) => {
                if content.within.is_some() {
                    return conflict("within twice");
                }
                if content.offset.is_some() || content.depth.is_some() || content.starts_with {
                    return conflict("within beside offset, depth or startswith");
                }
                if short(amount) {
                    return Err(Problem::value(format!("within is smaller than the content's {long} bytes"))
                        .help(format!("use at least `within:{long};`")));
                }
                content.within = Some(amount.clone());
            }
            // Moved before this is called.
            Modifier::MoveTo(_) => {}
            Modifier::Replace(bytes) => {
                if content.replace.is_some() {
                    return conflict("replace twice");
                }
                if content.negated {
                    return conflict("replace and a negation");
                }
                if bytes.len() != content.bytes.len() {
                    return Err(
                        Problem::value(format!("replace has {} bytes, the content {long}", bytes.len())).help("both must be equally long")
                    );
                }
                content.replace = Some(bytes.clone());
            }
            Modifier::FastPattern(choice) => {
                if content.fast_pattern.is_some() {
                    return conflict("fast_pattern twice");
                }
                if let FastPattern::Chop { offset, length } = choice
                    && (usize::from(*offset) + usize::from(*length) > content.bytes.len() || *length == 0)
                {
                    return Err(Problem::value(format!("fast_pattern:{offset},{length} reaches outside of the content's {long} bytes")));
                }
                content.fast_pattern = Some(*choice);
            }
        }
        Ok(())
    }
}

/// The first requirement that is not met here.
pub(crate) fn unmet(requirements: &[Requirement]) -> Option<Problem> {
    let unmet = requirements.iter().find(|requirement| !met(requirement))?;
    Some(Problem::new(Code::RequirementUnmet, unmet_message(unmet)))
}

fn met(requirement: &Requirement) -> bool {
    match requirement {
        Requirement::Feature(name) => FEATURES.contains(&name.as_str()),
        Requirement::Keyword(name) => crate::keyword::lookup(name).is_some(),
        Requirement::Version(alternatives) => alternatives.iter().any(|all| {
            all.iter().all(|(relation, version)| match relation {
                VersionRelation::Less => LANGUAGE_VERSION < *version,
                VersionRelation::LessOrEqual => LANGUAGE_VERSION <= *version,
                VersionRelation::Greater => LANGUAGE_VERSION > *version,
                VersionRelation::GreaterOrEqual => LANGUAGE_VERSION >= *version,
            })
        }),
    }
}

fn unmet_message(requirement: &Requirement) -> String {
    match requirement {
        Requirement::Feature(name) => format!("the rule wants the feature `{}`", crate::header::shorten(name)),
        Requirement::Keyword(name) => format!("the rule wants the keyword `{}`", crate::header::shorten(name)),
        Requirement::Version(_) => "the rule is for other versions of the language".to_owned(),
    }
}

/// Major, minor, patch.
pub type Version = [u16; 3];

/// The version of the reference engine whose rule language this is.
const LANGUAGE_VERSION: Version = [9, 0, 0];
/// What `requires: feature` may ask for.
const FEATURES: &[&str] = &["ja3", "ja4"];

fn check_list(list: &BufferMatches) -> Result<(), Problem> {
    for found in &list.matches {
        if let Match::Content(content) = found {
            check_content(content)?;
            check_buffer(list, content)?;
        }
        if let Match::Bsize(test) = found
            && let Some(most) = test.most()
            && let Some(required) = required(&list.matches).filter(|required| *required > most)
        {
            return Err(Problem::value(format!("the contents need {required} bytes, bsize allows {most}")));
        }
    }
    Ok(())
}

/// The contents of a packet must fit into the size that `dsize` allows.
fn check_dsize(signature: &Signature) -> Result<(), Problem> {
    let most = signature.packet.iter().find_map(|test| match test {
        PacketTest::Dsize(test) => test.most(),
        _ => None,
    });
    let Some(most) = most else { return Ok(()) };
    for list in signature.buffers.iter().filter(|list| list.buffer == Buffer::Payload) {
        if let Some(required) = required(&list.matches).filter(|required| *required > most) {
            return Err(Problem::value(format!("the contents need {required} bytes, dsize allows {most}")));
        }
    }
    Ok(())
}

/// Bytes that a buffer must have for its contents, counted as the reference engine does (`SigParseRequiredContentSize`); `None` when
/// a position is not a number, or leads back.
fn required(matches: &[Match]) -> Option<u64> {
    let number = |amount: &Option<Amount>| match amount {
        None => Some(0),
        Some(Amount::Number(number)) => Some(i64::from(*number)),
        Some(Amount::Name(_)) => None,
    };
    let (mut most, mut end) = (0i64, 0i64);
    for found in matches {
        let Match::Content(content) = found else { continue };
        let length = content.bytes.len() as i64;
        if !content.is_relative() {
            if content.negated {
                continue;
            }
            end = number(&content.offset)? + length;
            most = most.max(end);
            continue;
        }
        let distance = number(&content.distance)?;
        if distance < 0 {
            return Some(most.max(0) as u64);
        }
        // What must not be there is looked for in bytes that must be there, and moves nothing.
        if content.negated {
            most = most.max(end + distance + number(&content.within)?.max(length));
            continue;
        }
        end += distance + length;
        most = most.max(end);
    }
    Some(most.max(0) as u64)
}

/// A content that can never be in its buffer, because of how that is made.
fn check_buffer(list: &BufferMatches, content: &ContentMatch) -> Result<(), Problem> {
    let never = |what: &str| Err(Problem::value(format!("the content can never be there: {what}")));
    if list.buffer == Buffer::Named(BufferId::Base64Data) && content.fast_pattern.is_some() {
        return Err(Problem::new(Code::ModifierConflict, "fast_pattern cannot be used with base64_data"));
    }
    let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    if list.buffer == Buffer::Named(BufferId::HttpHost) && content.bytes.iter().any(u8::is_ascii_uppercase) {
        return never("http.host is in lower case");
    }
    for transform in &list.transforms {
        match transform {
            Transform::StripWhitespace if content.bytes.iter().any(space) => return never("strip_whitespace takes white space out"),
            Transform::CompressWhitespace if content.bytes.windows(2).any(|pair| pair.iter().all(space)) => {
                return never("compress_whitespace leaves one blank");
            }
            Transform::ToLowercase if !content.nocase && content.bytes.iter().any(u8::is_ascii_uppercase) => {
                return never("to_lowercase leaves no capitals");
            }
            Transform::ToUppercase if !content.nocase && content.bytes.iter().any(u8::is_ascii_lowercase) => {
                return never("to_uppercase leaves capitals only");
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_content(content: &ContentMatch) -> Result<(), Problem> {
    let positioned = content.is_relative() || content.offset.is_some() || content.depth.is_some();
    match content.fast_pattern {
        Some(FastPattern::Only) if positioned || content.negated => {
            Err(Problem::new(Code::ModifierConflict, "fast_pattern:only beside a position or a negation on one content"))
        }
        Some(FastPattern::Whole | FastPattern::Chop { .. }) if content.negated && (positioned || content.starts_with) => {
            Err(Problem::new(Code::ModifierConflict, "fast_pattern on a negated content that has a position"))
        }
        _ => Ok(()),
    }
}
