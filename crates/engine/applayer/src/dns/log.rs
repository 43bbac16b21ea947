//! What the log says of a DNS message: its records, with data and the names of types.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Reader, Section, Short, u16_at};
use crate::notes::hex;

impl Reader<'_> {
    /// Notes of one record: its name stands in `scratch`. `data`: where its data lies; none of a question.
    pub(super) fn note_record(&mut self, section: Section, kind: u16, ttl: u32, data: Option<Range<usize>>) {
        if self.tx.notes.off {
            return;
        }
        let cut = self.cut;
        let list = match section {
            Section::Questions => "queries",
            Section::Answers => "answers",
            Section::Authorities => "authorities",
            Section::Additionals => "additionals",
        };
        let owner = std::mem::take(self.scratch);
        let mut texts = Vec::new();
        // Each string of a TXT record is told of as a record of its own.
        if let Some(data) = data.clone().filter(|_| kind == 16) {
            let mut at = data.start;
            while at < data.end {
                let len = usize::from(self.message[at]);
                texts.push(at + 1..(at + 1 + len).min(data.end));
                at += 1 + len;
            }
        }
        let times = texts.len().max(1);
        for index in 0..times {
            let notes = &mut self.tx.notes;
            notes.list(list);
            notes.object("");
            notes.text("rrname", &owner);
            if cut {
                notes.truth("rrname_truncated", true);
            }
            notes.text("rrtype", kind_name(kind));
            if let Some(data) = data.clone() {
                notes.number("ttl", ttl);
                match texts.get(index) {
                    Some(text) => notes.text("rdata", &self.message[text.clone()]),
                    // What is open where the data ends too early ends there.
                    None => {
                        if self.note_data(kind, data).is_err() && matches!(kind, 6 | 33) {
                            self.tx.notes.end();
                        }
                    }
                }
            }
            let notes = &mut self.tx.notes;
            notes.end();
            notes.end();
        }
        *self.scratch = owner;
    }

    fn note_data(&mut self, kind: u16, data: Range<usize>) -> Result<(), Short> {
        let bytes = &self.message[data.clone()];
        match kind {
            1 => {
                if let Ok(address) = <[u8; 4]>::try_from(bytes) {
                    self.tx.notes.text("rdata", Ipv4Addr::from(address).to_string());
                }
            }
            28 => {
                if let Ok(address) = <[u8; 16]>::try_from(bytes) {
                    let parts = Ipv6Addr::from(address).segments().map(|part| format!("{part:04x}"));
                    self.tx.notes.text("rdata", parts.join(":"));
                }
            }
            2 | 5 | 12 => self.note_name("rdata", data.start).map(|_| ())?,
            15 => self.note_name("rdata", data.start + 2).map(|_| ())?,
            10 | 16 => self.tx.notes.text("rdata", bytes),
            6 => {
                self.tx.notes.object("soa");
                let at = self.note_name("mname", data.start)?;
                let at = self.note_name("rname", at)?;
                for (index, name) in ["serial", "refresh", "retry", "expire", "minimum"].into_iter().enumerate() {
                    let number = u32_at(self.message, at + 4 * index).ok_or(Short)?;
                    self.tx.notes.number(name, number);
                }
                self.tx.notes.end();
            }
            33 => {
                self.tx.notes.object("srv");
                for (index, name) in ["priority", "weight", "port"].into_iter().enumerate() {
                    let number = u16_at(self.message, data.start + 2 * index).ok_or(Short)?;
                    self.tx.notes.number(name, number);
                }
                self.note_name("name", data.start + 6)?;
                self.tx.notes.end();
            }
            44 => {
                if let [algorithm, kind, fingerprint @ ..] = bytes {
                    let digits = hex(fingerprint);
                    let pairs: Vec<&str> = (0..fingerprint.len()).map(|at| &digits[2 * at..2 * at + 2]).collect();
                    self.tx.notes.object("sshfp");
                    self.tx.notes.text("fingerprint", pairs.join(":"));
                    self.tx.notes.number("algo", *algorithm);
                    self.tx.notes.number("type", *kind);
                    self.tx.notes.end();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_name(&mut self, key: &'static str, at: usize) -> Result<usize, Short> {
        let next = self.name(at)?;
        self.tx.notes.text(key, &*self.scratch);
        Ok(next)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?))
}

/// IANA's names (dns-parameters), as far as the reference engine knows them; of others the number.
pub(super) fn kind_name(kind: u16) -> String {
    KINDS.iter().find(|(of, _)| *of == kind).map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned())
}

/// Of answers, with the numbers as text beyond them.
pub(super) fn code_name(code: u16) -> String {
    const NAMES: [&str; 11] =
        ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"];
    NAMES.get(usize::from(code)).map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

static KINDS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (22, "NSAP"),
    (23, "NSAPPTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (38, "A6"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (249, "TKEY"),
    (250, "TSIG"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
];
