//! Throw-away containers.
#![forbid(unsafe_code)]
pub mod address;
pub mod fabric;
