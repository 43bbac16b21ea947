//! DHCP (RFC 2131, options of RFC 2132): each message is a transaction of its own direction.

use crate::datagram::{be, hex_with_colons};
use crate::names::{Dir, Field};
use crate::protocol::Probe;
use crate::transaction::Transaction;

/// RFC 2131, section 2, without options.
const HEADER_BYTES: usize = 236;
/// RFC 2131, section 3.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const REPLY: u8 = 2;

/// `sname` and `file` have options too where the message says so (RFC 2132, section 9.3).
const NAME_AT: usize = 44;
const FILE_AT: usize = 108;

pub(crate) fn probe(_: Dir, bytes: &[u8]) -> Probe {
    let is_one = matches!(bytes.first(), Some(1 | 2)) && bytes.get(HEADER_BYTES..HEADER_BYTES + 4) == Some(&COOKIE);
    if is_one { Probe::Yes } else { Probe::No }
}

pub(crate) fn read(bytes: &[u8], dir: Dir, tx: &mut Transaction) {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return };
    let kind: &[u8] = match header[0] {
        1 => b"request",
        REPLY => b"reply",
        _ => b"<unknown>",
    };
    tx.notes.text("type", kind);
    tx.notes.number("id", be(&header[4..8]));
    let hardware = usize::from(header[2]).min(16);
    tx.notes.text("client_mac", hex_with_colons(&header[28..28 + hardware]));
    tx.notes.text("assigned_ip", address(&header[16..20]));
    tx.notes.text("client_ip", address(&header[12..16]));
    if header[0] == REPLY {
        tx.notes.text("relay_ip", address(&header[24..28]));
        tx.notes.text("next_server_ip", address(&header[20..24]));
    }
    let overload = options(rest.get(4..).unwrap_or_default(), dir, tx);
    if overload & 1 != 0 {
        options(&header[FILE_AT..], dir, tx);
    }
    if overload & 2 != 0 {
        options(&header[NAME_AT..FILE_AT], dir, tx);
    }
}

/// Gives which of the header's own fields have further ones.
fn options(mut rest: &[u8], dir: Dir, tx: &mut Transaction) -> u8 {
    let mut overload = 0;
    loop {
        match *rest {
            [255, ..] => return overload,
            [0, ref behind @ ..] => rest = behind,
            [code, len, ref behind @ ..] => {
                let Some((data, behind)) = behind.split_at_checked(usize::from(len)) else {
                    tx.event("dhcp.truncated_options", dir);
                    return overload;
                };
                if code == 52 {
                    overload |= data.first().copied().unwrap_or(0);
                } else if option(code, data, dir, tx).is_none() {
                    tx.event("dhcp.malformed_options", dir);
                }
                rest = behind;
            }
            [_] | [] => {
                tx.event("dhcp.truncated_options", dir);
                return overload;
            }
        }
    }
}

/// `None`: too short for what it is.
fn option(code: u8, data: &[u8], dir: Dir, tx: &mut Transaction) -> Option<()> {
    let first = data.first();
    let mut seconds = |key, field| {
        let seconds = be(data.first_chunk::<4>()?);
        tx.integer_is(field, dir, seconds);
        tx.notes.number(key, seconds);
        Some(())
    };
    match code {
        51 => seconds("lease_time", Field::DhcpLeasetime)?,
        58 => seconds("renewal_time", Field::DhcpRenewalTime)?,
        59 => seconds("rebinding_time", Field::DhcpRebindingTime)?,
        1 => tx.notes.text("subnet_mask", address(data)),
        3 => addresses("routers", data, tx),
        6 => addresses("dns_servers", data, tx),
        12 => {
            first?;
            tx.notes.text("hostname", data);
        }
        50 => tx.notes.text("requested_ip", address(data.first_chunk::<4>()?)),
        53 => tx.notes.text("dhcp_type", message_type(*first?)),
        55 => {
            tx.notes.list("params");
            data.iter().filter_map(|code| parameter(*code)).for_each(|name| tx.notes.text("", name));
            tx.notes.end();
        }
        60 => {
            first?;
            tx.notes.text("vendor_class_identifier", data);
        }
        // Its first byte is the type of the rest.
        61 => tx.notes.text("client_id", hex_with_colons(data.get(1..).filter(|id| !id.is_empty())?)),
        _ => {}
    }
    Some(())
}

const fn message_type(number: u8) -> &'static [u8] {
    match number {
        1 => b"discover",
        2 => b"offer",
        3 => b"request",
        4 => b"decline",
        5 => b"ack",
        6 => b"nak",
        7 => b"release",
        8 => b"inform",
        _ => b"unknown",
    }
}

const fn parameter(code: u8) -> Option<&'static [u8]> {
    Some(match code {
        1 => b"subnet_mask",
        3 => b"router",
        6 => b"dns_server",
        15 => b"domain",
        35 => b"arp_timeout",
        42 => b"ntp_server",
        66 => b"tftp_server_name",
        150 => b"tftp_server_ip",
        _ => return None,
    })
}

fn address(bytes: &[u8]) -> String {
    match bytes.first_chunk::<4>() {
        Some(octets) => std::net::Ipv4Addr::from(*octets).to_string(),
        None => String::new(),
    }
}

fn addresses(key: &'static str, data: &[u8], tx: &mut Transaction) {
    tx.notes.list(key);
    data.chunks_exact(4).for_each(|one| tx.notes.text("", address(one)));
    tx.notes.end();
}
