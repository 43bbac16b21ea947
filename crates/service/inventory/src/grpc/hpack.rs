//! HPACK without its dynamic table: our peers are told that ours holds 0 bytes, so every field they
//! send is from the static table or written out. Of the static table only what a gRPC answer can
//! mean is looked at, `:status`; other names decode to an empty name. Source: RFC 7541.

use crate::socket::Error;

/// Header fields of one block.
const FIELDS_MAX: usize = 256;
/// Bytes of one name or value.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Appends a field, written out: literal, never added to a table, not compressed (section 6.2.2).
pub(super) fn encode(into: &mut Vec<u8>, name: &str, value: &str) {
    into.push(0);
    for text in [name, value] {
        put_integer(into, 7, text.len());
        into.extend_from_slice(text.as_bytes());
    }
}

/// The fields of a complete header block.
pub(super) fn decode(block: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut rest = block;
    let mut fields = Vec::new();
    while let Some(&first) = rest.first() {
        let field = match first {
            // Indexed field (6.1).
            0x80.. => Some(static_field(integer(&mut rest, 7)?)?),
            // Literal with incremental indexing (6.2.1): into a table of 0 bytes, so it is not kept.
            0x40..=0x7f => Some(literal(&mut rest, 6)?),
            // The peer sets its table's size (6.3): only to 0, the most we allow.
            0x20..=0x3f => match integer(&mut rest, 5)? {
                0 => None,
                _ => return Err(Error::malformed("a header table larger than allowed")),
            },
            // Literal without indexing, or never indexed (6.2.2, 6.2.3).
            _ => Some(literal(&mut rest, 4)?),
        };
        fields.extend(field);
        if fields.len() > FIELDS_MAX {
            return Err(Error::TooLarge { what: "header fields", max: FIELDS_MAX });
        }
    }
    Ok(fields)
}

/// Appendix A. 8 to 14 are `:status`.
fn static_field(index: usize) -> Result<(String, String), Error> {
    let status = |code: &str| Ok((":status".to_owned(), code.to_owned()));
    match index {
        8 => status("200"),
        9 => status("204"),
        10 => status("206"),
        11 => status("304"),
        12 => status("400"),
        13 => status("404"),
        14 => status("500"),
        1..=STATIC_LEN => Ok((String::new(), String::new())),
        _ => Err(Error::malformed("a header field that is in no table")),
    }
}

fn literal(rest: &mut &[u8], prefix_bits: u32) -> Result<(String, String), Error> {
    let name = match integer(rest, prefix_bits)? {
        0 => string(rest)?,
        index => static_field(index)?.0,
    };
    Ok((name, string(rest)?))
}

fn string(rest: &mut &[u8]) -> Result<String, Error> {
    let compressed = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(rest, 7)?;
    if length > TEXT_BYTES_MAX {
        return Err(Error::TooLarge { what: "a header field", max: TEXT_BYTES_MAX });
    }
    let (text, left) = rest.split_at_checked(length).ok_or_else(|| Error::malformed("a cut header field"))?;
    *rest = left;
    let text = if compressed { huffman(text)? } else { text.to_vec() };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Section 5.1. None of our caps needs more than three continuation bytes.
fn integer(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, Error> {
    let broken = || Error::malformed("a broken number in a header block");
    let mut next = || {
        let (&byte, left) = rest.split_first().ok_or_else(broken)?;
        *rest = left;
        Ok::<usize, Error>(usize::from(byte))
    };
    let mask = (1_usize << prefix_bits) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

fn put_integer(into: &mut Vec<u8>, prefix_bits: u32, value: usize) {
    let mask = (1_usize << prefix_bits) - 1;
    if value < mask {
        into.push(value as u8);
        return;
    }
    into.push(mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        into.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    into.push(left as u8);
}

/// Section 5.2. The code is canonical: within one length codes count up with the symbols, so the
/// lengths alone describe it.
fn huffman(compressed: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = || Error::malformed("a broken Huffman code in a header block");
    let mut text = Vec::new();
    let (mut code, mut length) = (0_u32, 0_usize);
    for bit in compressed.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        code = code << 1 | bit;
        length += 1;
        let row = CANONICAL.get(length).ok_or_else(broken)?;
        if let Some(symbol) = code.checked_sub(row.first_code).filter(|offset| *offset < row.count) {
            let symbol = SYMBOLS.get((row.first_symbol + symbol) as usize).copied().ok_or_else(broken)?;
            // 256 is the end-of-string symbol, which must not occur.
            text.push(u8::try_from(symbol).map_err(|_| broken())?);
            (code, length) = (0, 0);
        }
    }
    // What is left is padding: fewer than 8 bits, all ones.
    if length < 8 && code == (1 << length) - 1 { Ok(text) } else { Err(broken()) }
}

const STATIC_LEN: usize = 61;
const CODE_BITS_MAX: usize = 30;

/// Of the codes of one length: the first one, how many there are, where their symbols start in [`SYMBOLS`].
#[derive(Clone, Copy)]
struct Row {
    first_code: u32,
    count: u32,
    first_symbol: u32,
}

const CANONICAL: [Row; CODE_BITS_MAX + 1] = {
    let mut rows = [Row { first_code: 0, count: 0, first_symbol: 0 }; CODE_BITS_MAX + 1];
    let mut symbol = 0;
    while symbol < CODE_LENGTHS.len() {
        rows[CODE_LENGTHS[symbol] as usize].count += 1;
        symbol += 1;
    }
    let mut length = 1;
    while length <= CODE_BITS_MAX {
        let shorter = rows[length - 1];
        rows[length].first_code = (shorter.first_code + shorter.count) << 1;
        rows[length].first_symbol = shorter.first_symbol + shorter.count;
        length += 1;
    }
    rows
};

/// All symbols, ordered by the length of their codes, then by value.
const SYMBOLS: [u16; 257] = {
    let mut symbols = [0; 257];
    let mut at = 0;
    let mut length = 1;
    while length <= CODE_BITS_MAX {
        let mut symbol = 0;
        while symbol < CODE_LENGTHS.len() {
            if CODE_LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
};

/// Appendix B: bits of the code of each byte, and of the end of a string.
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
    }

    #[test]
    fn the_examples_of_the_standard_decode() {
        // RFC 7541 C.4.1: the Huffman-coded value `www.example.com`; C.6.1: `private` and a date.
        assert_eq!(huffman(&hex("f1e3c2e5f23a6ba0ab90f4ff")), Ok(b"www.example.com".to_vec()));
        assert_eq!(huffman(&hex("aec3771a4b")), Ok(b"private".to_vec()));
        assert_eq!(huffman(&hex("d07abe941054d444a8200595040b8166e082a62d1bff")), Ok(b"Mon, 21 Oct 2013 20:13:21 GMT".to_vec()));
        // C.2.1 with indexing, C.2.2 without, C.2.4 indexed.
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(decode(&hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")), Ok(vec![field("custom-key", "custom-header")]));
        assert_eq!(decode(&hex("040c2f73616d706c652f70617468")), Ok(vec![field("", "/sample/path")]));
        assert_eq!(decode(&hex("88")), Ok(vec![field(":status", "200")]));
        // C.6.1: `:status: 302` as an indexed name with a compressed value.
        assert_eq!(decode(&hex("488264025885aec3771a4b")), Ok(vec![field(":status", "302"), field("", "private")]));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let mut block = Vec::new();
        let long = "x".repeat(5_000);
        encode(&mut block, ":path", "/a.B/C");
        encode(&mut block, "long", &long);
        let fields = decode(&block).expect("a sound block");
        assert_eq!(fields, [(":path".to_owned(), "/a.B/C".to_owned()), ("long".to_owned(), long)]);
    }

    #[test]
    fn broken_blocks_are_errors() {
        for block in ["80", "be", "ff ff ff ff ff 7f", "3f e1 1f", "00", "00 01", "00 05 61", "00 ff ff ff 7f", "41", "00 81 ff 00"] {
            assert!(decode(&hex(block)).is_err(), "{block}");
        }
        // Padding of eight bits, padding with zeros, the end-of-string symbol.
        for compressed in ["ff", "07 ff", "f1e3c2e5f23a6ba0ab90f4fe", "ff ff ff ff"] {
            assert!(huffman(&hex(compressed)).is_err(), "{compressed}");
        }
        let many = [0x88].repeat(FIELDS_MAX + 1);
        assert!(matches!(decode(&many), Err(Error::TooLarge { .. })));
        assert_eq!(decode(&hex("20 88")).map(|fields| fields.len()), Ok(1), "a table set to 0 bytes is fine");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let block: Vec<u8> = (0..round % 40)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            let _ = decode(&block);
            let _ = huffman(&block);
        }
    }
}
