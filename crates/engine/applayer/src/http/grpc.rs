//! The messages of gRPC within a body ("gRPC over HTTP2", section "Requests"): a byte that says whether the message is compressed,
//! four bytes of length, the message. What `grpc-encoding` names compresses each message for itself.

use super::encoding::Codings;

const HEAD_BYTES: usize = 5;

#[derive(Debug)]
pub(super) struct Grpc {
    pub codings: Codings,
    head: [u8; HEAD_BYTES],
    held: usize,
    /// Bytes of the message that are to come.
    left: usize,
    coded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// As they came.
    Plain(&'a [u8]),
    /// A compressed message begins behind these.
    Begin([u8; HEAD_BYTES]),
    Coded(&'a [u8]),
    /// Of a compressed message.
    End,
}

impl Grpc {
    pub fn new(encoding: Option<&[u8]>) -> Self {
        let mut codings = Codings::default();
        codings.add(encoding.unwrap_or_default(), 1);
        Self { codings, head: [0; HEAD_BYTES], held: 0, left: 0, coded: false }
    }

    /// The next part, and what is behind it. `None`: no bytes are left.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<(Part<'a>, &'a [u8])> {
        if self.left == 0 && std::mem::take(&mut self.coded) {
            return Some((Part::End, bytes));
        }
        if bytes.is_empty() {
            return None;
        }
        if self.left > 0 {
            let (now, later) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= now.len();
            return Some((if self.coded { Part::Coded(now) } else { Part::Plain(now) }, later));
        }
        let (now, later) = bytes.split_at((HEAD_BYTES - self.held).min(bytes.len()));
        self.head[self.held..self.held + now.len()].copy_from_slice(now);
        self.held += now.len();
        if self.held < HEAD_BYTES {
            return None;
        }
        self.held = 0;
        let [flag, len @ ..] = self.head;
        self.left = u32::from_be_bytes(len) as usize;
        self.coded = flag & 1 == 1 && !self.codings.list.is_empty() && self.left > 0;
        Some((Part::Begin(self.head), later))
    }

    pub fn is_coded(&self) -> bool {
        self.coded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart_wherever_they_are_cut() {
        let body = b"\0\0\0\0\x02ab\x01\0\0\0\x03xyz\x01\0\0\0\0\0\0\0\0\x01c";
        for cut in [1, 2, 7, body.len()] {
            let (mut grpc, mut told) = (Grpc::new(Some(b"gzip")), String::new());
            for piece in body.chunks(cut) {
                let mut rest = piece;
                while let Some((part, later)) = grpc.next(rest) {
                    match part {
                        Part::Plain(bytes) | Part::Coded(bytes) => told += &String::from_utf8_lossy(bytes),
                        Part::Begin(_) => told += if grpc.is_coded() { "<" } else { "|" },
                        Part::End => told.push('>'),
                    }
                    rest = later;
                }
            }
            assert_eq!(told, "|ab<xyz>||c");
        }
    }
}
