//! This crate against the running kernel, inside network namespaces that each test makes for itself.
//! A test that needs root and has none prints `NOT RUN:` and its name.
#![allow(unsafe_code)] // reason: one test loads a BPF program by its bare system call

mod iptables;
mod namespaces;
mod netlink;
mod nfqueue;
mod pair;
mod rawpkt;
mod settings;
mod tap;

/// Ends the test here when it is not root's, saying so.
#[macro_export]
macro_rules! root_only {
    ($name:expr) => {
        if !bulkhead_sys::process::is_root() {
            println!("NOT RUN: {}: needs root", $name);
            return;
        }
    };
}
