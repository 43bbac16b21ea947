//! Chance from a seed: the same seed throws the same, so that a case that failed can be played again.

use crate::traffic::known_bytes;

#[derive(Debug, Clone)]
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    pub fn word(&mut self) -> u64 {
        self.thrown += 1;
        let bytes = known_bytes(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(self.thrown), 8);
        bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// From 0 to one less.
    ///
    /// # Panics
    /// When nothing is below.
    pub fn below(&mut self, max: usize) -> usize {
        (self.word() % max as u64) as usize
    }

    /// Once in so many throws.
    pub fn once_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// # Panics
    /// When there is nothing to pick.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
