//! A body for a fuzzer: any bytes in, a panic when a promise is broken.

use crate::{Config, Context, Dir, Session, Sink, Transaction, Transport};

struct Reader(u64);

impl Sink for Reader {
    fn update(&mut self, tx: &mut Transaction, _: Dir) {
        self.0 += tx.news().map(|value| tx.window(value).bytes.len() as u64).sum::<u64>();
    }
}

/// Bytes of the longest piece; of datagrams, the next piece goes on where this one is so long.
const PIECE_BYTES_MAX: usize = 127;

/// Pieces of a session, each behind a byte: the lowest bit is the direction, the rest the length.
pub fn fuzz_session(transport: Transport, mut bytes: &[u8]) {
    let mut context = Context::new(Config { window_bytes: 64, transactions_max: 4, ..Config::default() });
    let mut session = Session::new(transport);
    let mut sink = Reader(0);
    let mut datagram = Vec::new();
    while let [head, rest @ ..] = bytes {
        let dir = if head & 1 == 0 { Dir::ToServer } else { Dir::ToClient };
        let (piece, after) = rest.split_at(usize::from(head >> 1).min(rest.len()));
        if transport == Transport::Udp && (piece.len() == PIECE_BYTES_MAX || !datagram.is_empty()) {
            datagram.extend_from_slice(piece);
            if piece.len() < PIECE_BYTES_MAX {
                session.data(dir, &datagram, &mut context, &mut sink);
                datagram.clear();
            }
        } else if piece.is_empty() {
            session.gap(dir, u64::from(*head), &mut context, &mut sink);
        } else {
            session.data(dir, piece, &mut context, &mut sink);
        }
        assert!(session.pending() <= 2 * context.config.pending_bytes_max + 256);
        bytes = after;
    }
    session.close(&mut context, &mut sink);
}
