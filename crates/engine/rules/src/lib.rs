//! The Suricata rule language.
#![forbid(unsafe_code)]
