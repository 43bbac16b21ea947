//! Composition root.
#![forbid(unsafe_code)]
