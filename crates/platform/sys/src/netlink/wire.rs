//! Netlink messages as bytes: building requests, taking answers apart.
//!
//! Source: `netlink(7)`, `rtnetlink(7)`, `include/uapi/linux/netlink.h`. All integers are in host
//! order unless said otherwise; messages and attributes are padded to 4 bytes. Parsing never
//! trusts a length: a message or attribute that is shorter than its header or longer than what is
//! left is [`Malformed`], and nothing behind it is looked at.

/// Length of `struct nlmsghdr`.
pub const HEADER_LEN: usize = 16;
/// Length of `struct nlattr`.
const ATTR_HEADER_LEN: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, the flag bits of an attribute's type.
const ATTR_FLAGS: u16 = 0xc000;
const NLA_F_NESTED: u16 = 0x8000;

/// A message that does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than a message header.
    #[error("message header cut short: {left} bytes left")]
    HeaderCut {
        /// Bytes that were left.
        left: usize,
    },
    /// The message's length is below its header's or above what is left.
    #[error("message of type {kind} claims {claimed} bytes of {left}")]
    MessageLength {
        /// `nlmsg_type`.
        kind: u16,
        /// `nlmsg_len`.
        claimed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// The fixed part that goes before the attributes is cut short.
    #[error("body of message type {kind} has {len} bytes, needs {need}")]
    BodyCut {
        /// `nlmsg_type`.
        kind: u16,
        /// Bytes in the body.
        len: usize,
        /// Bytes that the fixed part takes.
        need: usize,
    },
    /// Fewer bytes than an attribute header.
    #[error("attribute header cut short: {left} bytes left")]
    AttrHeaderCut {
        /// Bytes that were left.
        left: usize,
    },
    /// The attribute's length is below its header's or above what is left.
    #[error("attribute {kind} claims {claimed} bytes of {left}")]
    AttrLength {
        /// `nla_type` without its flag bits.
        kind: u16,
        /// `nla_len`.
        claimed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// The attribute's value has another size than its type.
    #[error("attribute {kind} has {len} bytes, needs {need}")]
    AttrSize {
        /// `nla_type` without its flag bits.
        kind: u16,
        /// Bytes in the value.
        len: usize,
        /// Bytes that the type takes.
        need: usize,
    },
}

/// One message inside a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`: port of the asker, or 0.
    pub port: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits the body into the fixed part of `len` bytes and the attributes behind it.
    pub fn split(&self, len: usize) -> Result<(&'a [u8], Attrs<'a>), Malformed> {
        match self.body.split_at_checked(len) {
            // The fixed part is padded to 4 bytes before the attributes begin.
            Some((fixed, _)) => Ok((fixed, Attrs::new(self.body.get(align(len)..).unwrap_or_default()))),
            None => Err(Malformed::BodyCut { kind: self.kind, len: self.body.len(), need: len }),
        }
    }
}

/// Iterates over the messages of one datagram; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages of `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let all = std::mem::take(&mut self.rest);
        if all.is_empty() {
            return None;
        }
        let Some((header, _)) = all.split_first_chunk::<HEADER_LEN>() else {
            return Some(Err(Malformed::HeaderCut { left: all.len() }));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let claimed = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let kind = u16::from_ne_bytes([k0, k1]);
        let Some(body) = all.get(HEADER_LEN..claimed) else {
            return Some(Err(Malformed::MessageLength { kind, claimed, left: all.len() }));
        };
        self.rest = all.get(align(claimed)..).unwrap_or_default();
        Some(Ok(Message {
            kind,
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            body,
        }))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr<'a> {
    /// `nla_type` without its flag bits.
    pub kind: u16,
    /// The value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The value as exactly `N` bytes.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed::AttrSize { kind: self.kind, len: self.value.len(), need: N })
    }

    /// The value as `u32` in host order.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The value as `i32` in host order.
    pub fn i32(&self) -> Result<i32, Malformed> {
        self.array().map(i32::from_ne_bytes)
    }

    /// The value as `u32` in network order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// The value as `u16` in network order.
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// The value as text up to its first NUL; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|&b| b == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// The attributes nested in this one.
    pub fn nested(&self) -> Attrs<'a> {
        Attrs::new(self.value)
    }
}

/// Iterates over attributes; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attrs { rest: bytes }
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let all = std::mem::take(&mut self.rest);
        if all.is_empty() {
            return None;
        }
        let Some((&[l0, l1, k0, k1], _)) = all.split_first_chunk::<ATTR_HEADER_LEN>() else {
            return Some(Err(Malformed::AttrHeaderCut { left: all.len() }));
        };
        let claimed = usize::from(u16::from_ne_bytes([l0, l1]));
        let kind = u16::from_ne_bytes([k0, k1]) & !ATTR_FLAGS;
        let Some(value) = all.get(ATTR_HEADER_LEN..claimed) else {
            return Some(Err(Malformed::AttrLength { kind, claimed, left: all.len() }));
        };
        self.rest = all.get(align(claimed)..).unwrap_or_default();
        Some(Ok(Attr { kind, value }))
    }
}

/// Builds one request.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message with its fixed part; `flags` as in `nlmsg_flags`.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut request = Request { bytes: Vec::with_capacity(256) };
        request.bytes.extend_from_slice(&[0; HEADER_LEN]);
        request.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.raw(fixed);
        request
    }

    /// Adds bits to `nlmsg_flags`.
    pub fn add_flags(&mut self, flags: u16) -> &mut Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Appends bytes and pads them.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Appends an attribute. Values come from this crate and stay far below the 64 KiB that `nla_len` can tell.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = u16::try_from(ATTR_HEADER_LEN + value.len()).expect("INVARIANT: attribute values are checked by the caller");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    /// Appends a `u32` in host order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a text with its NUL.
    pub fn attr_text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.attr(kind, &value)
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ATTR_HEADER_LEN]);
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - start).expect("INVARIANT: attribute values are checked by the caller");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// The message as bytes, with its length and sequence number set.
    pub fn finish(&mut self, seq: u32) -> &[u8] {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        &self.bytes
    }
}

/// Rounds up to the next multiple of 4.
fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}
