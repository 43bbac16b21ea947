//! Test kit and end-to-end tests.
