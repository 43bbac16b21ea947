//! Decode, defrag, flow, stream.
#![forbid(unsafe_code)]
