//! BPF objects, maps, links.
