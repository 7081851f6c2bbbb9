//! numpy's legacy random numbers (`np.random.seed(n)` and the functions of the global `RandomState`).
//!
//! The notebooks draw their weights, masks and shuffles from this stream, so a training can only be compared with
//! theirs if every draw is the same. numpy has frozen these algorithms; the words come from `rand_mt`, the rest is here.

use rand_mt::Mt;
use serde::{Deserialize, Serialize};

/// The generator behind `np.random.*`: MT19937 plus the cached second value of a normal pair.
#[derive(Clone, Debug)]
pub struct RandomState {
    words: Mt,
    position: Position,
}

/// How far a [`RandomState`] has come since it was seeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The number of words drawn.
    words: u64,
    spare_normal: Option<f64>,
}

impl RandomState {
    /// The state after `np.random.seed(seed)`: numpy seeds from a plain integer with the Knuth initialiser.
    pub fn new(seed: u32) -> Self {
        RandomState { words: Mt::new(seed), position: Position::default() }
    }

    /// The state of part `part` of update `update` of a training with `seed`: parts that are worked on side by side draw from
    /// states of their own.
    pub fn of_part(seed: u32, update: u64, part: u64) -> Self {
        // The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): seeds that are close become seeds that are not.
        let mut mixed = u64::from(seed) ^ update.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.rotate_right(16);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self::new((mixed ^ (mixed >> 31)) as u32)
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The state that has come so far from `seed`.
    pub fn restore(seed: u32, position: Position) -> Self {
        let mut state = Self::new(seed);
        (0..position.words).for_each(|_| {
            state.word();
        });
        state.position = position;
        state
    }

    #[inline]
    fn word(&mut self) -> u32 {
        self.position.words += 1;
        self.words.next_u32()
    }

    /// `np.random.random_sample()`: uniform in `[0, 1)` with 53 bits, from two words.
    pub fn random_sample(&mut self) -> f64 {
        let high = f64::from(self.word() >> 5);
        let low = f64::from(self.word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `np.random.randint(2)`: the lowest bit of one word (numpy's masked rejection never rejects here).
    #[inline]
    pub fn randint2(&mut self) -> u32 {
        self.word() & 1
    }

    /// `np.random.randn()`: Marsaglia's polar method. A pair is made at a time: its second value is returned first,
    /// the other is kept for the next call.
    pub fn randn(&mut self) -> f64 {
        if let Some(value) = self.position.spare_normal.take() {
            return value;
        }
        loop {
            let x = 2.0 * self.random_sample() - 1.0;
            let y = 2.0 * self.random_sample() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.position.spare_normal = Some(factor * x);
                return factor * y;
            }
        }
    }

    /// `np.random.shuffle(values)`: Fisher-Yates from the last element down.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.interval(last as u32) as usize);
        }
    }

    /// `np.random.permutation(count)`: `0..count` shuffled.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        self.shuffle(&mut order);
        order
    }

    /// A whole number in `0..=max`, by masking a word and drawing again while it is too large. `max` is at least 1.
    fn interval(&mut self, max: u32) -> u32 {
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let value = self.word() & mask;
            if value <= max {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every expected value below was printed by numpy 2.4.6 with the call named beside it.
    /// `seed(1); random_sample(5)`, and the largest seed numpy takes.
    #[test]
    fn random_sample_follows_numpy() {
        let mut rng = RandomState::new(1);
        assert_eq!(
            [0; 5].map(|_| rng.random_sample()),
            [0.417022004702574, 0.7203244934421581, 0.00011437481734488664, 0.30233257263183977, 0.14675589081711304]
        );
        let mut rng = RandomState::new(u32::MAX);
        assert_eq!([0; 2].map(|_| rng.random_sample()), [0.0976320289940138, 0.9123828453026218]);
    }

    /// `seed(1); random_sample(79400); randint(2, size=10000)`: the weights and the first mask of notebook s0.
    #[test]
    fn randint2_follows_numpy() {
        let mut rng = RandomState::new(1);
        for _ in 0..79_400 {
            rng.random_sample();
        }
        let mask: Vec<u32> = (0..10_000).map(|_| rng.randint2()).collect();
        assert_eq!(mask[..20], [0, 1, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1]);
        assert_eq!(mask.iter().sum::<u32>(), 4926);
    }

    /// `seed(42); randn(784 * 128)`, then `permutation(60000)` twice after the other draws of notebook s4.
    #[test]
    fn randn_and_permutation_follow_numpy() {
        let mut rng = RandomState::new(42);
        let normal: Vec<f64> = (0..784 * 128).map(|_| rng.randn()).collect();
        assert_eq!(
            normal[..5],
            [0.4967141530112327, -0.13826430117118466, 0.6476885381006925, 1.5230298564080254, -0.23415337472333597]
        );
        assert_eq!(normal[784 * 128 - 2..], [1.6109728877565355, 1.3885900667626174]);
        for _ in 0..128 * 64 + 64 * 10 {
            rng.randn();
        }
        let order = rng.permutation(60_000);
        assert_eq!(order[..5], [40514, 7881, 55624, 15642, 44424]);
        assert_eq!(order[59_997..], [49292, 21217, 22699]);
        assert_eq!(rng.permutation(60_000)[..5], [14326, 371, 31170, 5796, 55519]);
    }

    /// `seed(1); randn(3); permutation(10); randn(); random_sample()`: the kept normal outlives other draws.
    #[test]
    fn the_second_normal_is_kept() {
        let mut rng = RandomState::new(1);
        assert_eq!([0; 3].map(|_| rng.randn()), [1.6243453636632417, -0.6117564136500754, -0.5281717522634557]);
        assert_eq!(rng.permutation(10), [1, 7, 3, 0, 8, 5, 9, 4, 2, 6]);
        assert_eq!(rng.randn(), -1.0729686221561705);
        assert_eq!(rng.random_sample(), 0.22957721372982554);
    }

    #[test]
    fn a_restored_state_draws_the_same() {
        let mut rng = RandomState::new(9);
        for _ in 0..7 {
            rng.randn();
        }
        rng.permutation(100);
        let mut restored = RandomState::restore(9, rng.position());
        assert_eq!([0; 3].map(|_| restored.randn()), [0; 3].map(|_| rng.randn()));
        assert_eq!(restored.position(), rng.position());
    }

    /// `seed(7); shuffle(list("abcdefghij"))`, and lengths with nothing to shuffle.
    #[test]
    fn shuffle_follows_numpy() {
        let mut rng = RandomState::new(7);
        let mut letters: Vec<char> = ('a'..='j').collect();
        rng.shuffle(&mut letters);
        assert_eq!(letters.iter().collect::<String>(), "ifacbjhdge");
        assert!(rng.permutation(0).is_empty());
        assert_eq!(rng.permutation(1), [0]);
    }
}
