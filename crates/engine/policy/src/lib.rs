//! Configuration, selectors, modes, segments.
#![forbid(unsafe_code)]
