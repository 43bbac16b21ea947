//! Transforms: what is done with a buffer before a rule looks into it.

/// In the order written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transform {
    /// A dot before everything.
    Dotprefix,
    UrlDecode,
    StripWhitespace,
    CompressWhitespace,
    /// Lines that begin with `:`.
    StripPseudoHeaders,
    ToLowercase,
    ToUppercase,
    /// Names of headers, not their values.
    HeaderLowercase,
    /// Binary, 16 bytes.
    ToMd5,
    ToSha1,
    ToSha256,
    Xor(Xor),
    /// The first group of the pattern, or the buffer as it is when it does not match.
    Pcre(String),
    FromBase64(FromBase64),
    /// The registered domain of a name.
    Domain,
    /// Its top-level domain.
    TopLevelDomain,
    Subslice(Subslice),
    Gunzip(Inflate),
    ZlibDeflate(Inflate),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xor {
    /// Bytes before this are not changed.
    pub offset: u32,
    pub key: XorKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum XorKey {
    Bytes(Vec<u8>),
    /// These bytes of the buffer itself.
    Extract {
        length: u8,
        at: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FromBase64 {
    /// 0: to the end.
    pub bytes: u16,
    pub offset: u16,
    pub mode: Base64Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base64Mode {
    Rfc2045,
    Rfc4648,
    Strict,
}

/// From the end when negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subslice {
    pub offset: i32,
    /// `None`: to the end. Counted from the end when negative.
    pub length: Option<i32>,
    /// A piece that reaches outside of the buffer is cut instead of being nothing.
    pub truncate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inflate {
    /// Most bytes that come out.
    pub size_max: u32,
}
