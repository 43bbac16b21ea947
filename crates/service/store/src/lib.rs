//! Event log.
#![forbid(unsafe_code)]
