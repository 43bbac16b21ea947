//! What one scan may cost, whatever it is given, and the only way in which packed bytes are read.

use std::io::Read;
use std::time::Duration;

/// Caps of one scan. The defaults are for a file that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Archives in archives.
    pub depth_max: u8,
    /// Entries of all archives together.
    pub entries_max: u32,
    /// Unpacked bytes of one entry; more are not kept in memory.
    pub entry_bytes_max: u64,
    /// Unpacked bytes of all entries together.
    pub total_bytes_max: u64,
    /// Unpacked bytes for each packed one, once there are more than `ratio_from_bytes`.
    pub ratio_max: u64,
    pub ratio_from_bytes: u64,
    /// Of one search with the YARA rules.
    pub search_time_max: Duration,
    /// Findings that are kept; further ones are counted.
    pub findings_max: usize,
    /// Gaps that are kept; further ones are counted.
    pub gaps_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 8,
            entries_max: 10_000,
            entry_bytes_max: 64 << 20,
            total_bytes_max: 512 << 20,
            ratio_max: 250,
            ratio_from_bytes: 1 << 20,
            search_time_max: Duration::from_secs(10),
            findings_max: 256,
            gaps_max: 256,
        }
    }
}

/// Why something was not looked at, or not wholly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Gap {
    #[error("archives in archives are deeper than the limit")]
    Depth,
    #[error("there are more entries than the limit")]
    Entries,
    #[error("an entry is larger than the limit")]
    EntryBytes,
    #[error("the entries together are larger than the limit")]
    TotalBytes,
    #[error("it unpacks to so many times its size that it is taken for a bomb")]
    Ratio,
    #[error("the time for it is over")]
    Time,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is damaged: {0}")]
    Malformed(&'static str),
    #[error("{0} is not unpacked")]
    Unsupported(&'static str),
}

impl Gap {
    /// No other entry will be looked at either.
    pub const fn ends_the_scan(self) -> bool {
        match self {
            Self::Entries | Self::TotalBytes | Self::Time => true,
            Self::Depth | Self::EntryBytes | Self::Ratio | Self::Encrypted | Self::Malformed(_) | Self::Unsupported(_) => false,
        }
    }

    /// In one word, for counters and machines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Entries => "entries",
            Self::EntryBytes => "entry-bytes",
            Self::TotalBytes => "total-bytes",
            Self::Ratio => "bomb",
            Self::Time => "time",
            Self::Encrypted => "encrypted",
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
        }
    }
}

/// What is left of the limits.
pub struct Budget<'a> {
    pub limits: Limits,
    expired: &'a dyn Fn() -> bool,
    entries: u32,
    bytes: u64,
}

/// Bytes that are asked of a decoder at once.
const PIECE_BYTES: usize = 64 * 1024;

impl<'a> Budget<'a> {
    /// `expired` is asked between pieces of work of at most 64 KiB unpacked, and before each search.
    pub const fn new(limits: Limits, expired: &'a dyn Fn() -> bool) -> Self {
        Self { limits, expired, entries: 0, bytes: 0 }
    }

    pub fn is_expired(&self) -> bool {
        (self.expired)()
    }

    /// Entries that were met.
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// Bytes that were unpacked.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One more entry.
    pub(crate) fn entry(&mut self) -> Result<(), Gap> {
        if self.is_expired() {
            return Err(Gap::Time);
        }
        if self.entries >= self.limits.entries_max {
            return Err(Gap::Entries);
        }
        self.entries += 1;
        Ok(())
    }

    /// Reads an entry to its end or to a limit. What was read before a limit or damage is there all the same.
    ///
    /// `packed`: bytes that the entry takes in its archive, where that is known.
    pub(crate) fn read(&mut self, reader: &mut dyn Read, packed: Option<u64>) -> (Vec<u8>, Option<Gap>) {
        let mut bytes = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.is_expired() {
                return (bytes, Some(Gap::Time));
            }
            let len = match reader.read(&mut piece) {
                Ok(0) => return (bytes, None),
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return (bytes, Some(gap_of(&error))),
            };
            bytes.extend_from_slice(&piece[..len]);
            self.bytes += len as u64;
            let have = bytes.len() as u64;
            if self.bytes > self.limits.total_bytes_max {
                return (bytes, Some(Gap::TotalBytes));
            }
            if let Some(packed) = packed
                && have > self.limits.ratio_from_bytes
                && have / packed.max(1) > self.limits.ratio_max
            {
                return (bytes, Some(Gap::Ratio));
            }
            if have > self.limits.entry_bytes_max {
                return (bytes, Some(Gap::EntryBytes));
            }
        }
    }
}

/// A decoder says "not supported" of what it knows and cannot do, and has no common word for passwords.
fn gap_of(error: &std::io::Error) -> Gap {
    match error.kind() {
        std::io::ErrorKind::Unsupported => Gap::Unsupported("this way of packing"),
        std::io::ErrorKind::UnexpectedEof => Gap::Malformed("it ends too early"),
        std::io::ErrorKind::OutOfMemory => Gap::EntryBytes,
        _ => Gap::Malformed("its packed bytes contradict themselves"),
    }
}
