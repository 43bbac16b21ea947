//! API types, server, client.
#![forbid(unsafe_code)]
