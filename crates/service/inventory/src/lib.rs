//! Containers to workloads.
#![forbid(unsafe_code)]
