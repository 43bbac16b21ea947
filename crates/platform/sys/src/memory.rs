//! What the allocator holds beside what is in use.

/// Gives free memory back to the system, wherever in the heap it lies. The allocator does so by itself at the heap's end only: what
/// reading and compiling a large set of rules has used lies below what came of it. Where the C library has no such call, nothing is done.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, may be called at any time and by any thread, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn free_memory_below_what_is_in_use_goes_back() {
        let resident = || crate::procfs::Process { pid: std::process::id() }.rss_bytes().unwrap_or(0);
        // Small blocks, so that they lie in the heap, and every hundredth stays.
        let mut blocks: Vec<Option<Box<[u8; 8_000]>>> = (0..8_000).map(|number| Some(Box::new([number as u8; 8_000]))).collect();
        for (number, block) in blocks.iter_mut().enumerate() {
            if number % 100 != 0 {
                *block = None;
            }
        }
        let before = resident();
        give_back();
        let after = resident();
        assert!(after + 30_000_000 < before, "{before} to {after}");
        assert!(blocks.iter().flatten().count() == 80);
    }
}
