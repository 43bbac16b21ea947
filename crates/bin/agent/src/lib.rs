//! The composition root: builds the path, the engine, the inventory, the store and the API, and joins them.
#![forbid(unsafe_code)]

pub mod datapath;
pub mod frame;
pub mod hold;
pub mod path;
pub mod registry;
