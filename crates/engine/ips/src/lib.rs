//! Compile rules, prefilter, inspect.
#![forbid(unsafe_code)]
