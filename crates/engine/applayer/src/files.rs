//! A file that is read or written in pieces: its bytes in order, whatever the order of the pieces.

use std::collections::BTreeMap;

use crate::context::Io;
use crate::names::{Buffer, Dir, Field, Protocol, Stage};

/// Pieces of one file that came before what belongs in front of them.
pub(crate) const PIECES_MAX: usize = 64;
/// Bytes of them.
pub(crate) const PIECES_BYTES_MAX: usize = 1024 * 1024;

/// One direction of one open file: a transaction.
#[derive(Debug)]
pub(crate) struct File {
    pub tx: u64,
    stream: Option<u8>,
    /// The next byte that is shown.
    next: u64,
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
}

/// What happened to a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    InOrder,
    /// Bytes that were there already came again.
    Overlap,
    /// Waits for what belongs in front of it.
    Early,
    TooMany,
    TooMuch,
}

impl File {
    /// `None`: no room for another transaction.
    pub fn open(protocol: Protocol, name: &[u8], dir: Dir, start: u64, io: &mut Io<'_>) -> Option<Self> {
        let id = io.begin(protocol)?;
        let tx = io.tx(id)?;
        tx.value(Buffer::FileName, dir, name);
        let stream = tx.open_stream(&[Buffer::FileData], dir);
        tx.advance(dir, Stage::Body);
        tx.advance(dir.other(), Stage::Complete);
        Some(Self { tx: id, stream, next: start, early: BTreeMap::new(), early_bytes: 0 })
    }

    /// The next bytes of a piece that begins at `offset`.
    pub fn put(&mut self, offset: u64, bytes: &[u8], io: &mut Io<'_>) -> Put {
        if bytes.is_empty() {
            return Put::InOrder;
        }
        if offset > self.next {
            if self.early.len() >= PIECES_MAX || self.early_bytes + bytes.len() > PIECES_BYTES_MAX {
                let put = if self.early.len() >= PIECES_MAX { Put::TooMany } else { Put::TooMuch };
                // What is missing will not come any more: it is passed over.
                self.release(offset, io);
                self.grow(offset, bytes, io);
                return put;
            }
            // Its piece may come in several parts.
            self.early_bytes += bytes.len();
            let part = self.early.range_mut(..=offset).next_back().filter(|(start, piece)| **start + piece.len() as u64 == offset);
            match part {
                Some((_, piece)) => piece.extend_from_slice(bytes),
                None => {
                    let before = self.early.insert(offset, bytes.to_vec());
                    self.early_bytes -= before.map_or(0, |piece| piece.len());
                }
            }
            return Put::Early;
        }
        let put = if offset < self.next { Put::Overlap } else { Put::InOrder };
        self.grow(offset, bytes, io);
        put
    }

    /// Shows what begins at or before the next byte, and what waited for it.
    fn grow(&mut self, offset: u64, bytes: &[u8], io: &mut Io<'_>) {
        self.show(offset, bytes, io);
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.next) {
            let (offset, piece) = entry.remove_entry();
            self.early_bytes -= piece.len();
            self.show(offset, &piece, io);
        }
    }

    fn show(&mut self, offset: u64, bytes: &[u8], io: &mut Io<'_>) {
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..) else { return };
        self.next += fresh.len() as u64;
        if let Some(stream) = self.stream {
            io.grow(self.tx, stream, fresh);
        }
    }

    /// Shows all that waits before `end`, with holes between.
    fn release(&mut self, end: u64, io: &mut Io<'_>) {
        while let Some(entry) = self.early.first_entry() {
            let (offset, piece) = entry.remove_entry();
            self.early_bytes -= piece.len();
            self.miss(offset, io);
            self.show(offset, &piece, io);
        }
        self.miss(end, io);
    }

    /// Bytes before `offset` will not come.
    fn miss(&mut self, offset: u64, io: &mut Io<'_>) {
        if offset > self.next {
            if let Some(stream) = self.stream {
                io.skip(self.tx, stream, offset - self.next);
            }
            self.next = offset;
        }
    }

    /// Bytes of a piece are lost.
    pub fn lost(&mut self, offset: u64, len: u64, io: &mut Io<'_>) {
        if offset <= self.next && offset.saturating_add(len) > self.next {
            self.miss(offset.saturating_add(len), io);
            self.grow(self.next, &[], io);
        }
    }

    /// Nothing more comes.
    pub fn close(mut self, dir: Dir, io: &mut Io<'_>) {
        self.release(0, io);
        if let Some(tx) = io.tx(self.tx) {
            if let Some(stream) = self.stream {
                let len = tx.stream_len(stream);
                tx.close_stream(stream);
                tx.integer_is(Field::FileSize, dir, len);
            }
            tx.advance(Dir::ToServer, Stage::Complete);
            tx.advance(Dir::ToClient, Stage::Complete);
        }
    }
}
