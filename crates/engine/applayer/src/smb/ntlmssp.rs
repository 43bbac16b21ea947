//! Who logs on: the last message of NTLMSSP (MS-NLMP, section 2.2.1.3), wherever it stands in a security blob.

use crate::names::{Buffer, Dir};
use crate::reader::{Reader, utf8};
use crate::transaction::Transaction;

const SIGNATURE: &[u8] = b"NTLMSSP\0";
const AUTHENTICATE: u32 = 3;
const UNICODE: u32 = 1;
const WITH_VERSION: u32 = 0x0200_0000;

struct Authenticate {
    domain: Vec<u8>,
    user: Vec<u8>,
    host: Vec<u8>,
    flags: u32,
    version: Option<String>,
}

/// Tells of the logon that a blob asks for. Nothing, where it is another step or another mechanism.
pub(super) fn read(blob: &[u8], tx: &mut Transaction) {
    let Some(start) = memchr::memmem::find(blob, SIGNATURE) else { return };
    let message = &blob[start..];
    let mut reader = Reader::from(message, SIGNATURE.len());
    if reader.le32() != Some(AUTHENTICATE) {
        return;
    }
    let dir = Dir::ToServer;
    let Some(found) = authenticate(message, reader) else { return tx.event("smb.malformed_ntlmssp_request", dir) };
    tx.value(Buffer::SmbNtlmsspDomain, dir, &found.domain);
    tx.value(Buffer::SmbNtlmsspUser, dir, &found.user);
    let notes = &mut tx.notes;
    notes.object("ntlmssp");
    notes.text("domain", &found.domain);
    notes.text("user", &found.user);
    notes.text("host", &found.host);
    notes.text("negotiate_flags", format!("0x{:x}", found.flags));
    if let Some(version) = found.version {
        notes.text("version", version);
    }
    notes.end();
}

fn authenticate(message: &[u8], mut reader: Reader<'_>) -> Option<Authenticate> {
    let mut field = || -> Option<&[u8]> {
        let (len, _, at) = (reader.le16()?, reader.le16()?, reader.le32()?);
        // An empty one may stand anywhere.
        if len == 0 { Some(&[]) } else { Reader::from(message, usize::try_from(at).ok()?).take(usize::from(len)) }
    };
    let (_, _) = (field()?, field()?);
    let (domain, user, host) = (field()?, field()?, field()?);
    let _ = field()?;
    let flags = reader.le32()?;
    let text = |bytes: &[u8]| if flags & UNICODE != 0 { utf8(bytes) } else { bytes.to_vec() };
    let mut version = || {
        let (major, minor, build, _, revision) = (reader.u8()?, reader.u8()?, reader.le16()?, reader.skip(3)?, reader.u8()?);
        Some(format!("{major}.{minor} build {build} rev {revision}"))
    };
    let version = if flags & WITH_VERSION != 0 { version() } else { None };
    Some(Authenticate { domain: text(domain), user: text(user), host: text(host), flags, version })
}
