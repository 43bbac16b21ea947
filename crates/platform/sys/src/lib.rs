//! Linux system interfaces.
