//! The only randomness: a sequence that follows from the seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::ops::Range;

/// Everything that is left to chance.
#[derive(Debug)]
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// Dice that fall the same for the same seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// A number of a range.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// Whether something of a probability, in thousandths, happens.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.range(0..1000) < permille
    }

    /// Any of some.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let index = self.range(0..of.len().max(1) as u64);
        of.get(usize::try_from(index).unwrap_or(0)).cloned()
    }

    /// A time that is mostly short and sometimes long.
    pub fn delay(&mut self, usual: Range<u64>, slow: Range<u64>) -> u64 {
        if self.chance(30) { self.range(slow) } else { self.range(usual) }
    }
}
