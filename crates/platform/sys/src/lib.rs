//! Linux system interfaces: the network half of the kernel as plain blocking Rust.
//!
//! This crate knows Linux and nothing of what it is used for: no rules, no workloads, no events.
//! It is one of two crates of the tree that may use `unsafe`; each block says why it is sound.
//! Everything that comes from the kernel or from another process (netlink messages, files below
//! `/proc`, frames) is treated as hostile: lengths are checked before use, every read has a named cap.
//!
//! Errors carry the error number and what was being done ([`OsError`]); modules whose kernel
//! interface can fail in more ways have their own enum around it.
//!
//! | module | what |
//! |---|---|
//! | [`netlink`] | links, addresses, routes, namespace ids; a monitor of changes |
//! | [`netns`] | open, make, list network namespaces; run a closure in one |
//! | [`tap`] | multi-queue TAP with whole GSO frames (virtio-net header) |
//! | [`nfqueue`] | NFQUEUE: batches in, verdicts out |
//! | [`rawpkt`] | send and receive frames on an interface (AF_PACKET) |
//! | [`rawip`] | send IP packets of any source address |
//! | [`poll`] | epoll, eventfd, timerfd, signalfd |
//! | [`procfs`] | processes: cgroup, comm, exe, start time, capabilities, own memory and CPU |
//! | [`iptables`] | apply and save rules through `iptables-restore` and `iptables-save` |
//! | [`sysctl`], [`mounts`], [`caps`], [`rlimit`] | host settings |
//! | [`trial`] | tries facilities of the kernel by using them on inert objects |
//! | [`sock`], [`sched`], [`notify`], [`lock`], [`process`], [`memfd`] | sockets, threads, supervision |
#![allow(unsafe_code)] // reason: this crate is the tree's wrapper around system calls
#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

mod call;
mod error;

pub mod caps;
pub mod iptables;
pub mod lock;
pub mod memfd;
pub mod memory;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod nfqueue;
pub mod notify;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod rawip;
pub mod rawpkt;
pub mod rlimit;
pub mod sched;
pub mod sock;
pub mod sysctl;
pub mod tap;
pub mod trial;
pub mod xattr;

pub use error::{Errno, OsError};
