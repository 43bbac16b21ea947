//! The packet half of the IPS engine: bytes in, checked packets, whole datagrams, flows and streams out.
//!
//! In the order in which a packet meets them: [`decode`] turns a frame into a checked view, [`defrag`] puts
//! fragments together, [`flow`] finds the conversation it belongs to, [`stream`] puts TCP segments in order.
//! Sender and receiver run on this very kernel, so all four follow what Linux does with such a packet, file by
//! file, and say so where they do.
//!
//! Nothing here reads a clock, allocates without a named cap, or looks at a byte that is not there. Times and
//! seeds are given.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod craft;
pub mod decode;
pub mod defrag;
pub mod flow;
pub mod fuzz;
mod stats;
pub mod stream;

pub use decode::{ChecksumState, DecodeConfig, DecodeEvent, Decoded, Decoder, FrameMeta, LinkType, Packet};
pub use defrag::{Defrag, DefragConfig, Defragged};
pub use flow::{Direction, Flow, FlowConfig, FlowTable, Handshake, Origin};
pub use stream::{Reassembler, SegmentOutcome, StreamConfig, StreamSink, TcpStream};
