//! The stream against a reference model of Linux' receiver, over random segments.
//!
//! The model is a plain reading of `tcp_data_queue`, `tcp_data_queue_ofo`, `tcp_ofo_queue` and of how
//! `tcp_recvmsg` walks the receive queue (net/ipv4/tcp_input.c, net/ipv4/tcp.c): segments whole, in vectors,
//! no shortcuts. Two claims are checked:
//! * when observing, what the sink hears is what the program behind the receiver reads;
//! * when enforcing, whatever is lost between us and the receiver and however it glues its queue together, the
//!   program reads nothing but what the sink has heard, at the same place.

use bulkhead_model::Timestamp;
use bulkhead_net::Reassembler;
use bulkhead_net::decode::{Tcp, TcpFlags, TcpOptions};
use bulkhead_net::flow::{Direction, Handshake};
use bulkhead_net::stream::{StreamConfig, StreamEnd, StreamSink};
use proptest::prelude::*;

/// A queued segment of the model.
#[derive(Debug, Clone)]
struct Skb {
    seq: u64,
    bytes: Vec<u8>,
    fin: bool,
}

impl Skb {
    fn end_seq(&self) -> u64 {
        self.seq + self.bytes.len() as u64 + u64::from(self.fin)
    }
}

/// Linux' receiver, established, with an endless window and a program that reads at once.
#[derive(Debug, Default)]
struct Linux {
    rcv_nxt: u64,
    ofo: Vec<Skb>,
    read: Vec<u8>,
    shut: bool,
    /// `tcp_ooo_try_coalesce` succeeds always, or never.
    coalesce: bool,
}

impl Linux {
    fn data_queue(&mut self, skb: Skb) {
        if self.shut || skb.end_seq() == skb.seq || skb.end_seq() <= self.rcv_nxt {
            return;
        }
        if skb.seq <= self.rcv_nxt {
            self.queue_and_out(&skb);
            self.ofo_queue();
        } else {
            self.data_queue_ofo(skb);
        }
    }

    /// Into the receive queue, where the program reads from `copied_seq` on.
    fn queue_and_out(&mut self, skb: &Skb) {
        let skip = (self.rcv_nxt - skb.seq) as usize;
        self.read.extend(skb.bytes.iter().skip(skip));
        self.rcv_nxt = skb.end_seq();
        if skb.fin {
            self.shut = true;
            self.ofo.clear();
        }
    }

    fn ofo_queue(&mut self) {
        while !self.shut && self.ofo.first().is_some_and(|skb| skb.seq <= self.rcv_nxt) {
            let skb = self.ofo.remove(0);
            if skb.end_seq() > self.rcv_nxt {
                self.queue_and_out(&skb);
            }
        }
    }

    fn data_queue_ofo(&mut self, skb: Skb) {
        // The last one that begins at or before; ends grow with starts.
        let at = self.ofo.iter().rposition(|other| other.seq <= skb.seq);
        let place = match at {
            Some(at) if skb.seq < self.ofo[at].end_seq() => {
                if skb.end_seq() <= self.ofo[at].end_seq() {
                    return;
                }
                if skb.seq == self.ofo[at].seq {
                    self.ofo[at] = skb;
                    at
                } else {
                    self.ofo.insert(at + 1, skb);
                    at + 1
                }
            }
            Some(at) if self.coalesce && skb.seq == self.ofo[at].end_seq() && !self.ofo[at].fin => {
                self.ofo[at].bytes.extend_from_slice(&skb.bytes);
                self.ofo[at].fin = skb.fin;
                at
            }
            Some(at) => {
                self.ofo.insert(at + 1, skb);
                at + 1
            }
            None => {
                self.ofo.insert(0, skb);
                0
            }
        };
        let end = self.ofo[place].end_seq();
        while self.ofo.get(place + 1).is_some_and(|next| next.end_seq() <= end) {
            self.ofo.remove(place + 1);
        }
    }
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    fin: bool,
}

impl StreamSink for Heard {
    fn data(&mut self, dir: Direction, offset: u64, bytes: &[u8]) {
        assert_eq!((dir, offset), (Direction::ToServer, self.bytes.len() as u64));
        self.bytes.extend_from_slice(bytes);
    }

    fn gap(&mut self, _dir: Direction, _offset: u64, _len: u64) {
        panic!("nothing was acknowledged and no cap was reached");
    }

    fn end(&mut self, _dir: Direction, how: StreamEnd) {
        assert_eq!(how, StreamEnd::Fin);
        self.fin = true;
    }
}

#[derive(Debug, Clone)]
struct Sent {
    at: u64,
    bytes: Vec<u8>,
    fin: bool,
    /// Lost behind us.
    lost: bool,
}

fn sent(letters: u8) -> impl Strategy<Value = Sent> {
    let bytes = prop::collection::vec(0..letters, 0..14);
    (0u64..60, bytes, prop::bool::weighted(0.04), prop::bool::weighted(0.3)).prop_map(|(at, bytes, fin, lost)| Sent {
        at,
        bytes,
        fin,
        lost,
    })
}

const FIRST_SEQ: u32 = 0xffff_ffe0;

fn deliver(reassembler: &mut Reassembler, stream: &mut bulkhead_net::TcpStream, sent: &Sent, heard: &mut Heard) -> bool {
    let tcp = Tcp {
        src_port: 1,
        dst_port: 2,
        seq: FIRST_SEQ.wrapping_add(sent.at as u32),
        ack: 500,
        flags: if sent.fin { TcpFlags::FIN | TcpFlags::ACK } else { TcpFlags::ACK },
        window: 1000,
        urgent: 0,
        reserved: 0,
        options: TcpOptions::default(),
        options_raw: &[],
    };
    let outcome = reassembler.segment(stream, Timestamp(1), Direction::ToServer, &tcp, &sent.bytes, heard);
    outcome.passes(sent.bytes.len())
}

fn open(enforce: bool) -> (Reassembler, bulkhead_net::TcpStream) {
    let reassembler = Reassembler::new(StreamConfig::default());
    let handshake = Handshake { source_is_client: true, client_next: Some(FIRST_SEQ), server_next: Some(500) };
    let stream = reassembler.open(enforce, Some(&handshake));
    (reassembler, stream)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn observing_hears_what_the_program_reads(all in prop::collection::vec(sent(250), 1..24)) {
        let (mut reassembler, mut stream) = open(false);
        let mut linux = Linux::default();
        let mut heard = Heard::default();
        for sent in &all {
            deliver(&mut reassembler, &mut stream, sent, &mut heard);
            linux.data_queue(Skb { seq: sent.at, bytes: sent.bytes.clone(), fin: sent.fin });
            prop_assert_eq!(&heard.bytes, &linux.read);
            prop_assert_eq!(heard.fin, linux.shut);
        }
    }

    /// Few letters, so that overlaps often agree and pass.
    #[test]
    fn enforcing_lets_the_program_read_only_what_was_heard(
        all in prop::collection::vec(sent(2), 1..40),
        coalesce in any::<bool>(),
    ) {
        let (mut reassembler, mut stream) = open(true);
        let mut linux = Linux { coalesce, ..Linux::default() };
        let mut heard = Heard::default();
        for sent in &all {
            let passes = deliver(&mut reassembler, &mut stream, sent, &mut heard);
            if passes && !sent.lost {
                linux.data_queue(Skb { seq: sent.at, bytes: sent.bytes.clone(), fin: sent.fin });
            }
            prop_assert!(heard.bytes.starts_with(&linux.read), "{:?} is not the beginning of {:?}", linux.read, heard.bytes);
            prop_assert!(heard.fin || !linux.shut);
        }
    }

    /// An honest sender over a path that loses and repeats gets everything through.
    #[test]
    fn an_honest_sender_is_never_held_up(
        cuts in prop::collection::vec((0usize..400, 1usize..60, any::<bool>()), 1..60),
        coalesce in any::<bool>(),
    ) {
        let text: Vec<u8> = (0..400u32).map(|i| (i * 31 % 251) as u8).collect();
        let (mut reassembler, mut stream) = open(true);
        let mut linux = Linux { coalesce, ..Linux::default() };
        let mut heard = Heard::default();
        let send = |from: usize, len: usize| {
            let to = (from + len).min(text.len());
            Sent { at: from as u64, bytes: text[from..to].to_vec(), fin: to == text.len(), lost: false }
        };
        // First whatever comes, then all of it in order.
        let orderly = (0..text.len()).step_by(37).map(|from| (from, 37, false));
        for (from, len, lost) in cuts.into_iter().chain(orderly) {
            let sent = send(from, len);
            prop_assert!(deliver(&mut reassembler, &mut stream, &sent, &mut heard));
            if !lost {
                linux.data_queue(Skb { seq: sent.at, bytes: sent.bytes, fin: sent.fin });
            }
        }
        prop_assert_eq!(&heard.bytes, &text);
        prop_assert_eq!(&linux.read, &text);
        prop_assert!(heard.fin && linux.shut);
    }
}
