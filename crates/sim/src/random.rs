//! Random numbers that anybody can have again: everything in a simulated world comes from one seed.

use std::time::Duration;

/// A small generator (xoshiro256**, Blackman and Vigna 2018), seeded through SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let a = mix(seed.wrapping_add(GOLDEN));
        let b = mix(a.wrapping_add(GOLDEN));
        let c = mix(b.wrapping_add(GOLDEN));
        let d = mix(c.wrapping_add(GOLDEN));
        Self { state: [a, b, c, d] }
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `n`, or 0 if `n` is 0.
    pub const fn below(&mut self, n: u64) -> u64 {
        scale(self.bits(), n)
    }

    /// True in so many of a hundred cases.
    pub const fn percent(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    /// A length of time in between, to the millisecond.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(self.below(span.saturating_add(1)))
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's finisher.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const fn scale(bits: u64, n: u64) -> u64 {
    ((bits as u128 * n as u128) >> 64) as u64
}

/// A number below `n` that depends on nothing but its arguments: what a moment looks like does not
/// change because the moments before it were skipped.
#[must_use]
pub const fn noise(seed: u64, what: u64, at: u64, n: u64) -> u64 {
    scale(mix(mix(seed ^ what.wrapping_mul(GOLDEN)) ^ at.wrapping_mul(GOLDEN)), n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_gives_others() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (850..1_150).contains(n)), "{seen:?}");
        let mut quiet = [0u32; 10];
        for at in 0..10_000 {
            quiet[noise(7, 3, at, 10) as usize] += 1;
        }
        assert!(quiet.iter().all(|n| (850..1_150).contains(n)), "{quiet:?}");
    }

    #[test]
    fn a_length_of_time_stays_between_its_ends() {
        let mut random = Random::new(3);
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(2));
        assert!((0..1_000).map(|_| random.between(least, most)).all(|d| (least..=most).contains(&d)));
        assert_eq!(random.between(most, least), most);
    }
}
