//! Hostile input for tests: good input is taken apart, damaged and put together anew.
//!
//! Used by tests alone. The same seed gives the same inputs, and each round has its own chance, so that one that found
//! something is run again without those before it.

pub mod evtx;
pub mod memory;

use std::time::{Duration, Instant};

/// Seconds for each target, the seed, and one round to run alone: `600`, `600,7`, or `0,7,1234`.
pub const ASKED: &str = "HOLDFAST_FUZZ";
/// The seed where none is asked for.
const SEED: u64 = 1;
/// Longest that one round may take where it runs long, in a machine with much else to do.
const LONGEST: Duration = Duration::from_millis(2_500);

/// Numbers without a clock: the same seed, the same numbers. (Sebastiano Vigna, splitmix64.)
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Begins anew.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one; 0 below 0.
    pub const fn below(&mut self, end: usize) -> usize {
        (self.draw() % if end == 0 { 1 } else { end as u64 }) as usize
    }

    /// Whether it is so, once in so many times.
    pub const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, of which there is at least one.
    pub const fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// What is damaged, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Damage<'a> {
    /// Input as it should be; at least one.
    pub good: &'a [&'a [u8]],
    /// Pieces that mean something to the decoder; at least one.
    pub words: &'a [&'a [u8]],
    /// Bytes of an input at most.
    pub most: usize,
}

impl Damage<'_> {
    /// Good input with up to 11 damages.
    pub fn input(&self, chance: &mut Chance) -> Vec<u8> {
        let mut input = chance.one(self.good).to_vec();
        for _ in 0..chance.below(12) {
            self.hurt(&mut input, chance);
        }
        input
    }

    /// Good input as text, damaged; what is no UTF-8 any more becomes U+FFFD.
    pub fn text(&self, chance: &mut Chance) -> String {
        String::from_utf8_lossy(&self.input(chance)).into_owned()
    }

    /// One damage.
    pub fn hurt(&self, input: &mut Vec<u8>, chance: &mut Chance) {
        let at = chance.below(input.len() + 1);
        match chance.below(7) {
            0 if at < input.len() => input[at] = chance.draw() as u8,
            1 if at < input.len() => input[at] ^= 1 << chance.below(8),
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, chance.one(self.words).iter().copied())),
            4 => {
                let end = at + chance.below(input.len() - at + 1).min(40);
                let piece = input[at..end].repeat(1 + chance.below(200));
                input.splice(at..at, piece);
            }
            5 => input.extend_from_slice(chance.one::<&[u8]>(self.good)),
            _ => drop(input.drain(at..(at + chance.below(9)).min(input.len()))),
        }
        input.truncate(self.most);
    }
}

/// How much of an input is shown when it found something.
#[must_use]
pub fn show(input: &[u8]) -> String {
    String::from_utf8_lossy(&input[..input.len().min(2_000)]).into_owned()
}

/// What is asked for by the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    seconds: u64,
    seed: u64,
    round: Option<u64>,
}

impl Asked {
    fn read(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split(',').map(|word| word.trim().parse().ok()).collect();
        match numbers?[..] {
            [seconds] => Some(Self { seconds, seed: SEED, round: None }),
            [seconds, seed] => Some(Self { seconds, seed, round: None }),
            [seconds, seed, round] => Some(Self { seconds, seed, round: Some(round) }),
            _ => None,
        }
    }
}

/// Says how a round that failed is run again.
struct Named<'a> {
    target: &'a str,
    seed: u64,
    round: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, round } = self;
            eprintln!("{target} failed in round {round}; again with {ASKED}=0,{seed},{round}");
        }
    }
}

/// Runs so many rounds with a fixed seed; or, where [`ASKED`] says so, for so many seconds with another, where a round that
/// takes 2.5 s fails, too. Says how many there were.
///
/// # Panics
/// Where a round does, or where [`ASKED`] is not understood.
pub fn run(target: &str, rounds: u64, mut round: impl FnMut(&mut Chance)) {
    let asked = std::env::var(ASKED).ok().map(|text| {
        Asked::read(&text).unwrap_or_else(|| panic!("{ASKED} is SECONDS[,SEED[,ROUND]], and not `{text}`"))
    });
    let seed = asked.map_or(SEED, |asked| asked.seed);
    let mut one = |number: u64| {
        let named = Named { target, seed, round: number };
        let began = Instant::now();
        round(&mut Chance::new(Chance::new(seed).draw() ^ Chance::new(number).draw()));
        assert!(asked.is_none() || began.elapsed() < LONGEST, "it took {:?}", began.elapsed());
        drop(named);
    };
    match asked {
        None => (0..rounds).for_each(one),
        Some(Asked { round: Some(number), .. }) => one(number),
        Some(Asked { seconds, .. }) => {
            let (began, mut number) = (Instant::now(), 0);
            while began.elapsed() < Duration::from_secs(seconds) {
                one(number);
                number += 1;
            }
            println!("{target}: {number} rounds with seed {seed}");
        }
    }
}

/// Whether [`run`] goes through all of its usual rounds, so that what they gave may be counted.
#[must_use]
pub fn is_usual() -> bool {
    std::env::var_os(ASKED).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMAGE: Damage<'_> = Damage { good: &[b"one", b"two"], words: &[b"\0"], most: 1_000 };

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_none_is_too_long() {
        let all = |seed| {
            let mut chance = Chance::new(seed);
            (0..500).map(|_| DAMAGE.input(&mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert!(all(7).iter().all(|input| input.len() <= 1_000));
        assert!(all(7).iter().any(|input| input.len() > 100) && all(7).iter().any(Vec::is_empty));
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let asked = |seconds, seed, round| Some(Asked { seconds, seed, round });
        assert_eq!(Asked::read("600"), asked(600, 1, None));
        assert_eq!(Asked::read("600,7"), asked(600, 7, None));
        assert_eq!(Asked::read("0, 7, 12"), asked(0, 7, Some(12)));
        assert!(["", "x", "1,2,3,4", "-1"].iter().all(|text| Asked::read(text).is_none()));
    }
}
