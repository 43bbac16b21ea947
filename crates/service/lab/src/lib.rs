//! Throw-away containers.
#![forbid(unsafe_code)]
