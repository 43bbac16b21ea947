//! Field blocks of HTTP/2 to fields (RFC 7541): the static table, a dynamic one, integers and Huffman's code.
//!
//! The dynamic table of one direction holds [`TABLE_BYTES_MAX`] at most. What a block becomes is capped by whoever reads it: one byte can
//! stand for a whole field of the table.

use std::collections::VecDeque;

/// As RFC 7541, section 4.1, counts. A sender may use 4,096 until its peer has allowed more; one that uses more than this is not followed.
pub(super) const TABLE_BYTES_MAX: usize = 64 * 1024;
const TABLE_BYTES_FIRST: usize = 4096;
const ENTRY_BYTES: usize = 32;

/// Why a block cannot be read on. The table is lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Ends too early, or names what is not there.
    Malformed,
    IntegerOverflow,
    /// A size of the table over [`TABLE_BYTES_MAX`].
    Table,
    /// The fields are more than the reader takes.
    TooMany,
}

#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_FIRST }
    }
}

/// What a block has.
pub(super) enum Item<'a> {
    Field(&'a [u8], &'a [u8]),
    SizeUpdate(u64),
}

impl Decoder {
    /// Reads a whole block; `take` says whether it goes on.
    pub fn read(&mut self, mut block: &[u8], take: &mut dyn FnMut(Item<'_>) -> bool) -> Result<(), Failure> {
        while let Some(&first) = block.first() {
            match first {
                // Section 6.1.
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    let (name, value) = self.entry(index)?;
                    if !take(Item::Field(name, value)) {
                        return Err(Failure::TooMany);
                    }
                }
                // Section 6.3.
                0x20..=0x3f => {
                    let size = integer(&mut block, 5)?;
                    self.bytes_max = usize::try_from(size).ok().filter(|size| *size <= TABLE_BYTES_MAX).ok_or(Failure::Table)?;
                    self.evict(0);
                    if !take(Item::SizeUpdate(size)) {
                        return Err(Failure::TooMany);
                    }
                }
                // Section 6.2.
                _ => {
                    let kept = first & 0x40 != 0;
                    let name = match integer(&mut block, if kept { 6 } else { 4 })? {
                        0 => string(&mut block)?,
                        index => self.entry(index)?.0.to_vec(),
                    };
                    let value = string(&mut block)?;
                    if !take(Item::Field(&name, &value)) {
                        return Err(Failure::TooMany);
                    }
                    if kept {
                        self.insert(name, value);
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&self, index: u64) -> Result<(&[u8], &[u8]), Failure> {
        let index = usize::try_from(index).ok().and_then(|index| index.checked_sub(1)).ok_or(Failure::Malformed)?;
        match STATIC.get(index) {
            Some(entry) => Ok(*entry),
            None => self.table.get(index - STATIC.len()).map(|(name, value)| (name.as_slice(), value.as_slice())).ok_or(Failure::Malformed),
        }
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let size = name.len() + value.len() + ENTRY_BYTES;
        self.evict(size);
        // One that is larger than the table empties it.
        if size <= self.bytes_max {
            self.bytes += size;
            self.table.push_front((name, value));
        }
    }

    fn evict(&mut self, room: usize) {
        while self.bytes + room > self.bytes_max
            && let Some((name, value)) = self.table.pop_back()
        {
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

/// Section 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Result<u64, Failure> {
    let (&first, mut rest) = block.split_first().ok_or(Failure::Malformed)?;
    let mask = (1_u64 << prefix) - 1;
    let mut value = u64::from(first) & mask;
    if value == mask {
        for shift in (0..).step_by(7) {
            let (&byte, after) = rest.split_first().ok_or(Failure::Malformed)?;
            rest = after;
            if shift > 56 {
                return Err(Failure::IntegerOverflow);
            }
            value = value.checked_add(u64::from(byte & 0x7f) << shift).ok_or(Failure::IntegerOverflow)?;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Section 5.2.
fn string(block: &mut &[u8]) -> Result<Vec<u8>, Failure> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = usize::try_from(integer(block, 7)?).map_err(|_| Failure::Malformed)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or(Failure::Malformed)?;
    *block = rest;
    if coded { huffman(bytes).ok_or(Failure::Malformed) } else { Ok(bytes.to_vec()) }
}

/// Section 5.2 and Appendix B. `None`: the symbol for the end within, or a rest that is no padding.
fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut len) = (0_u32, 0_usize);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        len += 1;
        let (first, start, count) = CODES.lengths.get(len).copied()?;
        if let Some(number) = code.checked_sub(first).filter(|number| *number < u32::from(count)) {
            out.push(CODES.symbols[usize::from(start) + number as usize]);
            (code, len) = (0, 0);
        }
    }
    // At most seven bits, all of them ones.
    (len < 8 && code == (1 << len) - 1).then_some(out)
}

/// The code is canonical: codes of one length are consecutive, in the order of their symbols.
struct Codes {
    /// By length: the first code, where its symbols begin, how many there are.
    lengths: [(u32, u16, u16); 31],
    symbols: [u8; 256],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes { lengths: [(0, 0, 0); 31], symbols: [0; 256] };
    let (mut len, mut code, mut at) = (1, 0_u32, 0);
    while len <= 30 {
        code <<= 1;
        codes.lengths[len] = (code, at as u16, 0);
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == len {
                codes.symbols[at] = symbol as u8;
                codes.lengths[len].2 += 1;
                (at, code) = (at + 1, code + 1);
            }
            symbol += 1;
        }
        len += 1;
    }
    codes
}

/// Appendix B, bits by symbol; the end's own code, thirty ones, is not among them.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Appendix A.
const STATIC: &[(&[u8], &[u8])] = &[
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Failure> {
        let digits: Vec<u8> =
            hex.bytes().filter(u8::is_ascii_hexdigit).map(|digit| (digit as char).to_digit(16).unwrap_or(0) as u8).collect();
        let block: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let mut fields = Vec::new();
        decoder.read(&block, &mut |item| {
            fields.push(match item {
                Item::Field(name, value) => format!("{}: {}", name.escape_ascii(), value.escape_ascii()),
                Item::SizeUpdate(size) => size.to_string(),
            });
            fields.len() < 20
        })?;
        Ok(fields)
    }

    /// RFC 7541, Appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        let mut decoder = Decoder::default();
        let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(read(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap(), first);
        assert_eq!(
            read(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf").unwrap()[3..],
            [":authority: www.example.com", "cache-control: no-cache"]
        );
        assert_eq!(
            read(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").unwrap()[4],
            "custom-key: custom-value"
        );
        let mut decoder = Decoder { bytes_max: 256, ..Decoder::default() };
        let answer = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae \
                      82ae 43d3";
        let wanted = [":status: 302", "cache-control: private", "date: Mon, 21 Oct 2013 20:13:21 GMT", "location: https://www.example.com"];
        assert_eq!(read(&mut decoder, answer).unwrap(), wanted);
        // The oldest entry goes.
        assert_eq!(read(&mut decoder, "4883 640e ffc1 c0bf").unwrap()[0], ":status: 307");
        assert_eq!((decoder.table.len(), decoder.bytes), (4, 222));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let fails = |hex: &str| read(&mut Decoder::default(), hex).unwrap_err();
        assert_eq!(
            (fails("80"), fails("be"), fails("41"), fails("0085")),
            (Failure::Malformed, Failure::Malformed, Failure::Malformed, Failure::Malformed)
        );
        assert_eq!(fails("ffffffffffffffffffffff7f"), Failure::IntegerOverflow);
        assert_eq!(fails("3fffffff0f"), Failure::Table);
        assert_eq!(fails(&"82".repeat(20)), Failure::TooMany);
        // The end's symbol, and padding that is too long or not of ones.
        assert_eq!((huffman(&[0xff; 4]), huffman(&[0xff]), huffman(&[0x00])), (None, None, None));
        assert_eq!(huffman(&[0x1f]), Some(b"a".to_vec()));
    }

    #[test]
    fn the_table_keeps_to_its_size() {
        let mut decoder = Decoder::default();
        for number in 0..300_usize {
            decoder.insert(vec![b'n'; number], vec![b'v'; 100]);
            assert!(decoder.bytes <= TABLE_BYTES_FIRST && decoder.table.len() < 100);
        }
        read(&mut decoder, "20").unwrap();
        assert_eq!((decoder.table.len(), decoder.bytes), (0, 0));
    }
}
