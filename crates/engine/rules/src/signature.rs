//! What a rule means: modifiers folded into their content, contents grouped by buffer.

use crate::diagnostic::{Code, Problem};
use crate::keyword::Keyword;
use crate::tree::{
    Amount, Body, ByteExtract, ByteJump, ByteTest, FastPattern, FlowWord, Flowbits, IsDataAt, Modifier, NumberTest, PacketTest, Pcre,
    Target, Threshold, ThresholdKind,
};

/// What an engine runs.
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
    pub flow: Vec<FlowWord>,
    pub packet: Vec<PacketTest>,
    /// One entry for each buffer that is matched, payload first when there is one.
    pub buffers: Vec<BufferMatches>,
    pub flowbits: Vec<Flowbits>,
    pub noalert: bool,
    /// Each is asked in turn; a `detection_filter` stands alone.
    pub thresholds: Vec<Threshold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Buffer {
    /// A packet's payload or the stream.
    Payload,
    /// A sticky buffer by its canonical keyword, `http.uri`.
    Named(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub struct BufferMatches {
    pub buffer: Buffer,
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
    Bsize(NumberTest),
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
            Self::Bsize(_) => false,
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
}

impl ContentMatch {
    pub fn is_relative(&self) -> bool {
        self.distance.is_some() || self.within.is_some()
    }
}

/// Adds options in the order written. The first problem of an option is returned; folding may go on.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    pub signature: Signature,
    current: Option<Buffer>,
    /// Buffer list and place of the last content: what a modifier modifies.
    last_content: Option<(usize, usize)>,
    seen: Vec<&'static str>,
    names: Vec<String>,
}

impl Fold {
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
                self.push(Match::Content(content));
            }
            Body::Modifier(modifier) => return self.modify(modifier),
            Body::Pcre(pcre) => self.push(Match::Pcre(pcre.clone())),
            Body::IsDataAt(at) => {
                self.known(&at.at)?;
                self.push(Match::IsDataAt(at.clone()));
            }
            Body::ByteTest(test) => {
                self.known(&test.count)?;
                self.known(&test.offset)?;
                if let crate::tree::ByteValue::Name(name) = &test.value {
                    self.known(&Amount::Name(name.clone()))?;
                }
                self.push(Match::ByteTest(test.clone()));
            }
            Body::ByteJump(jump) => {
                self.known(&jump.count)?;
                self.known(&jump.offset)?;
                self.known(&jump.post_offset)?;
                self.push(Match::ByteJump(jump.clone()));
            }
            Body::ByteExtract(extract) => {
                self.names.push(extract.name.clone());
                self.push(Match::ByteExtract(extract.clone()));
            }
            Body::Bsize(test) => self.push(Match::Bsize(*test)),
            Body::Flow(words) => signature.flow.extend(words.iter().copied()),
            Body::Flowbits(bits) => signature.flowbits.push(bits.clone()),
            Body::Noalert => signature.noalert = true,
            Body::Threshold(threshold) | Body::DetectionFilter(threshold) => {
                let alone =
                    threshold.kind == ThresholdKind::Filter || signature.thresholds.iter().any(|other| other.kind == ThresholdKind::Filter);
                if alone && !signature.thresholds.is_empty() {
                    return Err(Problem::new(Code::DuplicateOption, "a detection_filter stands alone, without a threshold"));
                }
                signature.thresholds.push(*threshold);
            }
            Body::Packet(test) => signature.packet.push(*test),
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
        for list in &self.signature.buffers {
            for found in &list.matches {
                if let Match::Content(content) = found {
                    check_content(content)?;
                }
            }
        }
        Ok(self.signature)
    }

    fn push(&mut self, found: Match) {
        let buffer = self.current.unwrap_or(Buffer::Payload);
        let buffers = &mut self.signature.buffers;
        let list = match buffers.iter().position(|list| list.buffer == buffer) {
            Some(list) => list,
            None => {
                buffers.push(BufferMatches { buffer, matches: Vec::new() });
                buffers.len() - 1
            }
        };
        // As in Suricata a modifier belongs to the last content, even when a pcre stands between.
        if let Match::Content(_) = found {
            self.last_content = Some((list, buffers[list].matches.len()));
        }
        buffers[list].matches.push(found);
    }

    fn known(&self, amount: &Amount) -> Result<(), Problem> {
        match amount {
            Amount::Number(_) => Ok(()),
            Amount::Name(name) if self.names.contains(name) => Ok(()),
            Amount::Name(name) => Err(Problem::value(format!("`{name}` is neither a number nor set by a byte_extract before"))),
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
