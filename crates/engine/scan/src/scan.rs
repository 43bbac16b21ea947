//! The life of a file, from its first byte to the report.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use crate::budget::{Budget, Gap};
use crate::finding::{Finding, Found, Incomplete, Report};
use crate::kind::Kind;
use crate::signatures::{Action, ContainerFacts, Digests, Hit, SignatureSet};
use crate::unpack::{self, Entry, Next, Visitor};

impl SignatureSet {
    /// Looks at `bytes` and at everything in them.
    ///
    /// For the object and then for each entry: is it on a list of what is known to be good; is it on a list of what is known to be bad;
    /// do patterns match; is there something in it. What a limit keeps from being looked at stands in [`Report::incomplete`].
    pub fn scan(&self, name: &str, bytes: &[u8], budget: &mut Budget<'_>) -> Report {
        let mut walk =
            Walk { set: self, budget, report: Report::default(), place: Vec::new(), kinds: Vec::new(), sizes: Vec::new(), position: 0 };
        let mut digests = Digests::of(bytes);
        walk.report.kind = Kind::of(bytes);
        walk.object(name, bytes, &mut digests);
        let mut report = walk.report;
        report.sha256 = digests.sha256_text();
        report.bytes = budget.bytes();
        report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.action));
        report
    }
}

/// Bytes that two windows of one object share, so that what lies across their border is seen.
const OVERLAP_BYTES: usize = 1 << 20;

impl SignatureSet {
    /// Looks at what a reader gives, in bounded memory. What fits into [`Limits::entry_bytes_max`](crate::Limits) is scanned as by
    /// [`Self::scan`]. Of something larger, archives that are streams are unpacked as they come, and everything else is searched in windows:
    /// there conditions on the file's size or on places counted from its end do not hold, and [`Report::windowed`] says so.
    pub fn scan_reader(&self, name: &str, reader: &mut dyn Read, budget: &mut Budget<'_>) -> std::io::Result<Report> {
        let window = usize::try_from(budget.limits.entry_bytes_max).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        reader.take(window as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() <= window {
            return Ok(self.scan(name, &bytes, budget));
        }
        let kind = Kind::of(&bytes);
        let mut walk =
            Walk { set: self, budget, report: Report::default(), place: Vec::new(), kinds: Vec::new(), sizes: Vec::new(), position: 0 };
        walk.report.kind = kind;
        walk.report.windowed = true;
        walk.report.objects = 1;
        let mut hashed = Hashed { reader, sha256: Sha256::new(), failed: None };
        hashed.sha256.update(&bytes);
        walk.kinds.push(kind);
        walk.sizes.push(bytes.len() as u64);
        if !unpack::unpack_stream(kind, &bytes, &mut hashed, &mut walk) {
            if matches!(kind, Kind::Zip | Kind::SevenZip | Kind::Cab | Kind::Ole | Kind::Iso | Kind::Ar | Kind::Rpm | Kind::Pdf) {
                walk.incomplete(Gap::EntryBytes);
            }
            loop {
                walk.search(name, kind, &bytes);
                bytes.drain(..bytes.len().saturating_sub(OVERLAP_BYTES));
                let wanted = window.saturating_sub(bytes.len()).max(OVERLAP_BYTES) as u64;
                if (&mut hashed).take(wanted).read_to_end(&mut bytes)? == 0 || walk.budget.is_expired() {
                    break;
                }
            }
        }
        // What no unpacker wanted belongs to the hash too.
        std::io::copy(&mut hashed, &mut std::io::sink())?;
        let mut report = walk.report;
        if let Some(error) = hashed.failed {
            return Err(error.into());
        }
        report.sha256 = hashed.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        report.bytes = budget.bytes();
        report.findings.dedup();
        report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.action));
        Ok(report)
    }
}

/// Hashes what passes, and remembers that the medium failed, which an unpacker would take for damage.
struct Hashed<'a> {
    reader: &'a mut dyn Read,
    sha256: Sha256,
    failed: Option<std::io::ErrorKind>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = self.reader.read(out).inspect_err(|error| self.failed = Some(error.kind()))?;
        self.sha256.update(&out[..len]);
        Ok(len)
    }
}

/// Entries that are archives and larger than this are not held in memory.
const STREAM_BYTES: u64 = 8 << 20;

enum Streamed {
    Yes(Next),
    /// What was read of it.
    No(Vec<u8>),
}

struct Walk<'a, 'b> {
    set: &'a SignatureSet,
    budget: &'a mut Budget<'b>,
    report: Report,
    /// Names of the entries that lead here.
    place: Vec<String>,
    /// Kinds and sizes of what holds them.
    kinds: Vec<Kind>,
    sizes: Vec<u64>,
    /// Of the entry at hand in its archive, from 1.
    position: u64,
}

impl Walk<'_, '_> {
    fn object(&mut self, name: &str, bytes: &[u8], digests: &mut Digests<'_>) {
        self.report.objects += 1;
        let kind = Kind::of(bytes);
        let size = bytes.len() as u64;
        if self.set.allowed.may_hold(size) && self.set.allowed.find(digests).is_some() {
            return;
        }
        if self.set.hashes.may_hold(size)
            && let Some((rule, source)) = self.set.hashes.find(digests)
        {
            self.found(Found::Hash, kind, Hit { name: rule.to_owned(), source, matched: Vec::new() });
        }
        if kind == Kind::Pe && !self.set.sections.is_empty() {
            self.sections(bytes);
        }
        self.search(name, kind, bytes);
        self.inside(kind, bytes);
    }

    /// An archive within an archive that may be larger than memory (a layer of an image) is unpacked as it comes. As a whole it is then neither
    /// hashed nor searched; its entries are.
    fn stream(&mut self, entry: &Entry, content: &mut dyn Read) -> Streamed {
        let mut head = Vec::new();
        if entry.real.is_some_and(|real| real <= STREAM_BYTES) || content.take(STREAM_BYTES).read_to_end(&mut head).is_err() {
            return Streamed::No(head);
        }
        let kind = Kind::of(&head);
        let streams = matches!(kind, Kind::Tar | Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Zstd);
        if (head.len() as u64) < STREAM_BYTES || !streams || self.kinds.len() >= usize::from(self.budget.limits.depth_max) {
            return Streamed::No(head);
        }
        self.report.objects += 1;
        self.kinds.push(kind);
        self.sizes.push(entry.real.unwrap_or(0));
        let outer = std::mem::take(&mut self.position);
        unpack::unpack_stream(kind, &head, content, self);
        self.position = outer;
        self.sizes.pop();
        self.kinds.pop();
        let over = self.report.incomplete.last().is_some_and(|last| last.gap.ends_the_scan());
        Streamed::Yes(if over { Next::Stop } else { Next::Continue })
    }

    fn search(&mut self, name: &str, kind: Kind, bytes: &[u8]) {
        let time_max = self.budget.limits.search_time_max;
        for found in [Found::Yara, Found::Body] {
            if self.budget.is_expired() {
                return self.incomplete(Gap::Time);
            }
            let (hits, gap) = match found {
                Found::Yara => self.set.yara.search(bytes, name, kind.name(), time_max),
                _ => self.set.body.search(bytes, kind, time_max),
            };
            for hit in hits {
                self.found(found, kind, hit);
            }
            if let Some(gap) = gap {
                self.incomplete(gap);
            }
        }
    }

    /// Sections of a PE file, by the table behind its headers.
    fn sections(&mut self, bytes: &[u8]) {
        for section in pe_sections(bytes) {
            if self.set.sections.may_hold(section.len() as u64)
                && let Some((rule, source)) = self.set.sections.find(&mut Digests::of(section))
            {
                self.found(Found::Section, Kind::Pe, Hit { name: rule.to_owned(), source, matched: Vec::new() });
            }
        }
    }

    fn inside(&mut self, kind: Kind, bytes: &[u8]) {
        if self.kinds.len() >= usize::from(self.budget.limits.depth_max) {
            let mut any = Anything(false);
            unpack::unpack(kind, bytes, &mut any);
            if any.0 {
                self.incomplete(Gap::Depth);
            }
            return;
        }
        self.kinds.push(kind);
        self.sizes.push(bytes.len() as u64);
        let outer = std::mem::take(&mut self.position);
        unpack::unpack(kind, bytes, self);
        self.position = outer;
        self.sizes.pop();
        self.kinds.pop();
    }

    fn found(&mut self, found: Found, kind: Kind, hit: Hit) {
        let (source, action) = self.set.source(hit.source);
        if self.report.findings.len() >= self.budget.limits.findings_max {
            self.report.left_out += 1;
            // What blocks is never left out for what does not.
            let Some(least) = self.report.findings.iter_mut().find(|finding| finding.action < action) else { return };
            *least =
                Finding { action, found, name: hit.name, source: source.to_owned(), place: self.place.clone(), kind, matched: hit.matched };
            return;
        }
        let finding =
            Finding { action, found, name: hit.name, source: source.to_owned(), place: self.place.clone(), kind, matched: hit.matched };
        self.report.findings.push(finding);
    }

    fn incomplete(&mut self, gap: Gap) {
        if self.report.incomplete.len() >= self.budget.limits.gaps_max {
            self.report.left_out += 1;
            return;
        }
        self.report.incomplete.push(Incomplete { place: self.place.clone(), gap });
    }

    /// What the archive says of an entry may be reason enough.
    fn claims(&mut self, entry: &Entry) {
        let (Some(container), Some(size)) = (self.kinds.last().copied(), self.sizes.last().copied()) else { return };
        self.position += 1;
        let facts = ContainerFacts {
            container,
            container_size: size,
            name: &entry.name,
            packed: entry.packed,
            real: entry.real,
            encrypted: entry.encrypted,
            position: self.position,
            checksum: entry.checksum,
        };
        let set = self.set;
        for (rule, source) in set.body.of_entry(&facts) {
            self.found(Found::Container, container, Hit { name: rule.to_owned(), source, matched: Vec::new() });
        }
    }
}

impl Visitor for Walk<'_, '_> {
    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Next {
        self.place.push(entry.name.clone());
        let next = match self.budget.entry() {
            Err(gap) => {
                self.incomplete(gap);
                Next::Stop
            }
            Ok(()) => {
                self.claims(entry);
                let head = match self.stream(entry, content) {
                    Streamed::Yes(next) => {
                        self.place.pop();
                        return next;
                    }
                    Streamed::No(head) => head,
                };
                let (bytes, gap) = self.budget.read(&mut head.as_slice().chain(content), entry.packed);
                // What was read before a limit is looked at all the same.
                if !bytes.is_empty() {
                    let name = entry.name.clone();
                    self.object(&name, &bytes, &mut Digests::of(&bytes));
                }
                if let Some(gap) = gap {
                    self.incomplete(gap);
                }
                if gap.is_some_and(Gap::ends_the_scan) || self.report.incomplete.last().is_some_and(|last| last.gap.ends_the_scan()) {
                    Next::Stop
                } else {
                    Next::Continue
                }
            }
        };
        self.place.pop();
        next
    }

    fn refused(&mut self, entry: &Entry, gap: Gap) -> Next {
        self.place.push(entry.name.clone());
        let next = match self.budget.entry() {
            Err(gap) => {
                self.incomplete(gap);
                Next::Stop
            }
            Ok(()) => {
                self.claims(entry);
                self.incomplete(gap);
                Next::Continue
            }
        };
        self.place.pop();
        next
    }

    fn gap(&mut self, gap: Gap) {
        self.incomplete(gap);
    }
}

/// Whether an object holds others.
struct Anything(bool);

impl Visitor for Anything {
    fn entry(&mut self, _: &Entry, _: &mut dyn Read) -> Next {
        self.0 = true;
        Next::Stop
    }

    fn refused(&mut self, _: &Entry, _: Gap) -> Next {
        self.0 = true;
        Next::Stop
    }

    fn gap(&mut self, _: Gap) {}
}

/// Sections that are looked at; ClamAV's own limit.
const SECTIONS_MAX: usize = 96;

/// Raw bytes of the sections (Microsoft PE format, "Section Table").
fn pe_sections(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let half = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes));
    let word = move |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let table = || -> Option<(usize, usize)> {
        let header = word(0x3c)?;
        (bytes.get(header..header.checked_add(4)?)? == b"PE\0\0").then_some(())?;
        Some((usize::from(half(header + 6)?).min(SECTIONS_MAX), header + 24 + usize::from(half(header + 20)?)))
    };
    let (count, start) = table().unwrap_or((0, 0));
    (0..count).filter_map(move |number| {
        let (size, at) = (word(start + number * 40 + 16)?, word(start + number * 40 + 20)?);
        bytes.get(at..at.checked_add(size)?.min(bytes.len())).filter(|section| !section.is_empty())
    })
}

/// A finding that blocks is there.
impl Report {
    pub fn blocks(&self) -> bool {
        self.action() == Some(Action::Block)
    }
}
