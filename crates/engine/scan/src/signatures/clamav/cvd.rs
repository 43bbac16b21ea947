//! Databases as `freshclam` keeps them: 512 bytes of header, signed, and a tar in gzip (`.cvd`) or plain (`.cld`).
//!
//! A `.cvd` carries the MD5 of what follows its header and an RSA signature of that hash. A `.cld` was put together on this host out of
//! a `.cvd` and signed differences; its header is the newest difference's, and there is nothing to compare with.

use std::io::Read;

use md5::{Digest as _, Md5};
use num_bigint::BigUint;

const HEADER_BYTES: usize = 512;
/// Unpacked bytes of a database; the largest that is published has a fifth.
const DATABASE_BYTES_MAX: u64 = 2 << 30;
/// Files in a database.
const FILES_MAX: usize = 1024;
/// Characters of a signature; those that are published have 171.
const SIGNATURE_CHARS_MAX: usize = 512;

/// The key with which the project signs its databases: modulus and exponent.
const MODULUS: &[u8] = b"118640995551645342603070001658453189751527774412027743746599405743243142607464144767361060640655844749760788890022283424922762488917565551002467771109669598189410434699034532232228621591089508178591428456220796841621637175567590476666928698770143328137383952820383197532047771780196576957695822641224262693037";
const EXPONENT: u32 = 100_001_027;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CvdError {
    #[error("this is no database: it does not begin with `ClamAV-VDB:` and 512 bytes of header")]
    NoHeader,
    #[error("the database is damaged: its hash is not the one in its header")]
    Damaged,
    #[error("the signature of the database is not by the project's key")]
    Signature,
    #[error("the database cannot be unpacked: {0}")]
    Packed(String),
    #[error("the database is larger than the limit")]
    TooLarge,
}

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CvdHeader {
    pub built: String,
    pub version: u32,
    pub signatures: u32,
    pub level: u32,
    md5: String,
    signature: String,
}

impl CvdHeader {
    /// `ClamAV-VDB:time:version:signatures:level:md5:signature:builder:seconds`, with blanks up to 512 bytes. The time has colons or none.
    pub fn parse(bytes: &[u8]) -> Result<Self, CvdError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(CvdError::NoHeader)?;
        let text = std::str::from_utf8(header).map_err(|_| CvdError::NoHeader)?.trim_end();
        let fields: Vec<&str> = text.strip_prefix("ClamAV-VDB:").ok_or(CvdError::NoHeader)?.split(':').collect();
        let [built, version, signatures, level, md5, signature, ..] = fields.as_slice() else { return Err(CvdError::NoHeader) };
        let number = |text: &str| text.parse().map_err(|_| CvdError::NoHeader);
        Ok(Self {
            built: (*built).to_owned(),
            version: number(version)?,
            signatures: number(signatures)?,
            level: number(level)?,
            md5: (*md5).to_ascii_lowercase(),
            signature: (*signature).to_owned(),
        })
    }
}

/// Whether a `.cvd` is whole and signed by the project.
pub fn verify_cvd(bytes: &[u8]) -> Result<CvdHeader, CvdError> {
    let modulus = BigUint::parse_bytes(MODULUS, 10).ok_or(CvdError::Signature)?;
    verify(bytes, &modulus)
}

fn verify(bytes: &[u8], modulus: &BigUint) -> Result<CvdHeader, CvdError> {
    let header = CvdHeader::parse(bytes)?;
    let digest: [u8; 16] = Md5::digest(&bytes[HEADER_BYTES..]).into();
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if text != header.md5 {
        return Err(CvdError::Damaged);
    }
    if opened(&header.signature, modulus).as_deref() != Some(&digest[..]) {
        return Err(CvdError::Signature);
    }
    Ok(header)
}

/// What a signature says: six bits a character, the least first, raised with the public key; sixteen bytes of it are the hash.
fn opened(signature: &str, modulus: &BigUint) -> Option<Vec<u8>> {
    if signature.is_empty() || signature.len() > SIGNATURE_CHARS_MAX {
        return None;
    }
    let mut number = BigUint::from(0_u8);
    for (at, letter) in signature.bytes().enumerate() {
        let value = match letter {
            b'a'..=b'z' => letter - b'a',
            b'A'..=b'Z' => letter - b'A' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        number |= BigUint::from(value) << (6 * at);
    }
    let plain = number.modpow(&BigUint::from(EXPONENT), modulus).to_bytes_be();
    // A hash that begins with zeros has lost them.
    let mut digest = vec![0; 16_usize.saturating_sub(plain.len())];
    digest.extend_from_slice(&plain[plain.len().saturating_sub(16)..]);
    Some(digest)
}

/// Names and bytes of the files in a database. A `.cvd` is verified first.
pub(in crate::signatures) fn files_of(name: &str, bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CvdError> {
    if name.to_ascii_lowercase().ends_with(".cvd") {
        verify_cvd(bytes)?;
    } else {
        CvdHeader::parse(bytes)?;
    }
    unpack(&bytes[HEADER_BYTES..])
}

fn unpack(packed: &[u8]) -> Result<Vec<(String, Vec<u8>)>, CvdError> {
    let plain: Box<dyn Read> =
        if packed.starts_with(&[0x1f, 0x8b]) { Box::new(flate2::read::MultiGzDecoder::new(packed)) } else { Box::new(packed) };
    let mut archive = tar::Archive::new(plain.take(DATABASE_BYTES_MAX));
    let broken = |error: std::io::Error| CvdError::Packed(error.to_string());
    let mut files = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if files.len() >= FILES_MAX || entry.size() >= DATABASE_BYTES_MAX {
            return Err(CvdError::TooLarge);
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        files.push((name, bytes));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of our own with the same exponent, out of two Mersenne primes: for tests alone.
    fn key() -> (BigUint, BigUint) {
        let p = (BigUint::from(1_u8) << 89_u32) - 1_u8;
        let q = (BigUint::from(1_u8) << 107_u32) - 1_u8;
        let totient = (&p - 1_u8) * (&q - 1_u8);
        let private = BigUint::from(EXPONENT).modinv(&totient).expect("the exponent has an inverse");
        (p * q, private)
    }

    fn database(modulus: &BigUint, private: &BigUint) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [("daily.hdb", "44d88612fea8a8f36de82e1278abb02f:68:Test.File\n"), ("daily.info", "x\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &tar.into_inner().unwrap()).unwrap();
        let packed = packed.finish().unwrap();
        let digest: [u8; 16] = Md5::digest(&packed).into();
        let mut number = BigUint::from_bytes_be(&digest).modpow(private, modulus);
        let mut signature = String::new();
        while number > BigUint::from(0_u8) {
            let six = (&number % 64_u8).to_bytes_le()[0];
            signature.push(char::from(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"[usize::from(six)]));
            number >>= 6;
        }
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut bytes = format!("ClamAV-VDB:28 Nov 2026 10-00 +0000:7:1:90:{hash}:{signature}:tests:0").into_bytes();
        bytes.resize(HEADER_BYTES, b' ');
        bytes.extend(packed);
        bytes
    }

    #[test]
    fn a_signed_database_is_verified_and_unpacked() {
        let (modulus, private) = key();
        let bytes = database(&modulus, &private);
        let header = verify(&bytes, &modulus).expect("it is whole and signed");
        assert_eq!((header.version, header.signatures, header.level), (7, 1, 90));
        let names: Vec<String> = unpack(&bytes[HEADER_BYTES..]).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["daily.hdb", "daily.info"]);
    }

    #[test]
    fn a_changed_database_and_another_key_are_refused() {
        let (modulus, private) = key();
        let mut bytes = database(&modulus, &private);
        assert_eq!(verify_cvd(&bytes), Err(CvdError::Signature), "signed, but not by the project");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(verify(&bytes, &modulus), Err(CvdError::Damaged));
        assert_eq!(verify(&bytes[..100], &modulus), Err(CvdError::NoHeader));
    }
}
