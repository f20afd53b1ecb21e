//! Quiet on healthy days, and awake when something changes. All chance is of a seeded generator.

use super::*;

/// A small generator.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// How many of a mean.
    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut left, mut count) = (mean, 0);
        loop {
            left += self.next().ln();
            if left < 0.0 {
                return count;
            }
            count += 1;
        }
    }
}

/// A system with its daily life: patterns of requests in proportion to the time of day, with bursts; a line like
/// clockwork; jobs by the hour and by the day; warnings now and then, and a line as never before each few hours.
struct System {
    unusual: Unusual,
    chance: Chance,
    now: u64,
    /// Which of the ids below 128 came.
    seen: u128,
    known: u64,
    told: Vec<(u64, Statement)>,
    /// What goes wrong: how many times the usual load, whether the clockwork stands still.
    load: f64,
    stands_still: bool,
    during: During,
}

const CLOCKWORK: u64 = 1;
const REQUESTS: std::ops::Range<u64> = 10..40;
const HOURLY: std::ops::Range<u64> = 50..70;
const DAILY: std::ops::Range<u64> = 80..95;
const WARNING: u64 = 100;

fn heard(id: u64, is_new: bool, severity: Option<Severity>) -> Heard {
    Heard { pattern: PatternId(id), family: None, is_new, severity }
}

impl System {
    fn new(seed: u64) -> Self {
        let chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (unusual, told) = (Unusual::default(), Vec::new());
        let during = During::Quiet;
        Self { unusual, chance, now: 0, seen: 0, known: 0, told, load: 1.0, stands_still: false, during }
    }

    fn say(&mut self, id: u64, severity: Option<Severity>) {
        let is_new = self.is_new(id);
        let name = |id: PatternId| format!("pattern {}", id.0);
        let told = self.unusual.line(self.now, heard(id, is_new, severity), self.during, name);
        self.told.extend(told.map(|statement| (self.now, statement)));
    }

    /// Larger ids come once only.
    fn is_new(&mut self, id: u64) -> bool {
        let mask = 1_u128.checked_shl(u32::try_from(id).unwrap_or(u32::MAX)).unwrap_or(0);
        let is_new = self.seen & mask == 0;
        self.seen |= mask;
        is_new
    }

    fn second(&mut self) {
        self.now += 1_000_000;
        let second = self.now / 1_000_000;
        let day = (second as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let burst = if second % 4_099 < 20 { 3.0 } else { 1.0 };
        for (rank, id) in REQUESTS.enumerate() {
            let mean = 0.4 * (1.0 + 0.8 * day) * burst * self.load / (1.0 + rank as f64);
            for _ in 0..self.chance.poisson(mean) {
                self.say(id, Some(Severity::Info));
            }
        }
        if second % 10 == 3 && !self.stands_still {
            self.say(CLOCKWORK, None);
        }
        if second % 3_600 == 17 {
            HOURLY.for_each(|id| self.say(id, None));
        }
        if second % 86_400 == 8_000 {
            DAILY.for_each(|id| (0..20).for_each(|_| self.say(id, None)));
        }
        if self.chance.next() < 1.0 / 1_800.0 {
            self.say(WARNING, Some(Severity::Warning));
        }
        if self.chance.next() < 1.0 / 14_400.0 {
            self.known += 1;
            let severity = if self.known.is_multiple_of(5) { Severity::Error } else { Severity::Info };
            self.say(1_000 + self.known, Some(severity));
        }
        let told = self.unusual.look(self.now, self.during, |id| format!("pattern {}", id.0));
        self.told.extend(told.into_iter().map(|statement| (self.now, statement)));
    }

    fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.second());
    }

    fn told_since(&self, since: u64) -> Vec<Sort> {
        self.told.iter().filter(|(at, _)| *at > since).map(|(_, statement)| statement.sort).collect()
    }
}

/// One that has lived for so many days.
fn settled(seed: u64, days: u64) -> System {
    let mut system = System::new(seed);
    system.run(days * 86_400);
    system
}

/// The number that `docs/logs.md` promises.
const FALSE_A_DAY: usize = 2;

#[test]
fn healthy_days_are_quiet() {
    for seed in 1..=6 {
        let system = settled(seed, 4);
        let told = system.told.len();
        assert!(told <= 4 * FALSE_A_DAY, "seed {seed}: {told} in four days: {:?}", system.told);
    }
}

#[test]
fn a_line_like_clockwork_is_missed_soon_and_once() {
    let mut system = settled(1, 1);
    let since = system.now;
    system.stands_still = true;
    system.run(180);
    let silences = system.told.iter().filter(|(at, one)| *at > since && one.sort == Sort::Silence);
    let [(at, last)] = &silences.cloned().collect::<Vec<_>>()[..] else { panic!("{:?}", system.told) };
    assert!((20_000_000..40_000_000).contains(&(at - since)), "{}", at - since);
    assert!(
        last.says.starts_with("pattern 1 has not come for ") && last.says.ends_with(", usually every 10 s"),
        "{}",
        last.says
    );
    assert!(last.decibans >= 39.9);
}

#[test]
fn a_flood_is_a_burst_and_many_more_requests_another_rate() {
    let mut system = settled(2, 1);
    let since = system.now;
    for _ in 0..600 {
        system.say(WARNING, Some(Severity::Warning));
    }
    system.run(120);
    assert!(system.told_since(since).contains(&Sort::Burst), "{:?}", system.told);
    let mut system = settled(2, 1);
    let since = system.now;
    system.load = 6.0;
    system.run(2_400);
    assert!(system.told_since(since).contains(&Sort::Rate), "{:?}", system.told);
    let mut system = settled(2, 2);
    system.run(20_000); // into the busy hours
    let since = system.now;
    system.load = 0.0;
    system.run(2_400);
    assert!(system.told_since(since).contains(&Sort::Rate), "{:?}", system.told);
}

#[test]
fn a_minute_with_another_mixture_of_known_lines_is_told() {
    let mut system = settled(7, 2);
    system.run(40_000);
    let since = system.now;
    for id in REQUESTS.chain(HOURLY).rev().step_by(2) {
        (0..9).for_each(|_| system.say(id, None));
    }
    system.run(60);
    assert_eq!(system.told_since(since), [Sort::Window]);
    let says = &system.told.last().expect("told").1.says;
    assert!(says.starts_with("a minute unlike the others: ") && says.contains("usually"), "{says}");
}

#[test]
fn a_new_error_surprises_a_settled_source_and_not_one_that_is_new_itself() {
    let mut young = settled(3, 0);
    young.run(600);
    young.say(5_000, Some(Severity::Error));
    assert_eq!(young.told, []);
    let mut system = settled(3, 1);
    let since = system.now;
    system.run(1);
    system.say(5_000, Some(Severity::Error));
    assert_eq!(system.told_since(since), [Sort::New]);
    assert_eq!(system.told.last().expect("told").1.says, "a line as never before: pattern 5000");
    // A source that brings new lines all the time surprises nobody by one more.
    for id in 6_000..6_600 {
        system.say(id, Some(Severity::Error));
        system.run(60);
    }
    let since = system.now;
    system.run(1);
    system.say(9_000, Some(Severity::Error));
    assert_eq!(system.told_since(since), []);
}

#[test]
fn nothing_is_learned_from_an_incident_and_nothing_missed_while_nobody_listened_i10() {
    let mut system = settled(4, 1);
    system.during = During::Incident;
    system.load = 20.0;
    system.run(7_200);
    system.during = During::Quiet;
    system.load = 1.0;
    system.run(1_000);
    system.load = 6.0;
    let since = system.now;
    system.run(2_400);
    assert!(system.told_since(since).contains(&Sort::Rate), "what the incident did is not usual");
    let mut system = settled(5, 1);
    let since = system.now;
    system.now += 3_600_000_000; // the host slept
    system.run(60);
    assert_eq!(system.told_since(since), []);
    system.unusual.interrupt(system.now); // the VM was started anew
    system.stands_still = true;
    system.run(300);
    assert!(!system.told_since(since).contains(&Sort::Silence), "what never spoke since is not missed");
}

/// What the habits of minutes and of quarters know after an hour: an incident is open from a second on until another,
/// counted in the quarter that begins then, and the load is 50 times the usual meanwhile.
fn after_an_incident(seed: u64, from: u64, until: u64) -> (System, System) {
    let mut spared = settled(seed, 0);
    spared.run(14 * 86_400 / 24); // ends with a quarter
    assert_eq!(spared.now % (QUARTER * MINUTE), 0);
    let mut before = settled(seed, 0);
    before.run(14 * 86_400 / 24);
    for second in 1..=900 {
        let is_open = (from..until).contains(&second);
        spared.during = if is_open { During::Incident } else { During::Quiet };
        spared.load = if is_open { 50.0 } else { 1.0 };
        spared.second();
    }
    (before, spared)
}

/// The busiest minute and the busiest quarter of a request, so far as they are remembered.
fn busiest(system: &System) -> (f64, f64) {
    system.unusual.rhythms[&PatternId(REQUESTS.start)].most()
}

#[test]
fn an_incident_of_some_seconds_within_a_minute_teaches_neither_it_nor_its_quarter() {
    for (from, until) in [(305, 325), (61, 841)] {
        let (before, after) = after_an_incident(8, from, until);
        let (minute, quarter) = busiest(&before);
        let (later_minute, later_quarter) = busiest(&after);
        assert!(later_minute <= 1.3 * minute, "{from}: {minute} {later_minute}");
        assert!(later_quarter <= quarter, "{from}: {quarter} {later_quarter}");
        let spared = until.div_ceil(60) - from / 60;
        let (known, knows) = (before.unusual.stretches.known(), after.unusual.stretches.known());
        assert_eq!(knows - known, 15 - spared, "each minute is learned whole or not at all");
    }
}

#[test]
fn a_wait_with_an_incident_in_it_is_not_usual() {
    let mut system = settled(9, 1);
    let habit = |system: &System| system.unusual.rhythms[&PatternId(CLOCKWORK)].longest();
    let usual = habit(&system);
    system.stands_still = true;
    system.run(5);
    system.during = During::Incident;
    system.run(100);
    (system.during, system.stands_still) = (During::Quiet, false);
    system.run(60);
    assert!(habit(&system) <= usual, "{usual} {}", habit(&system));
}

#[test]
fn what_was_learned_outlives_a_restart_and_takes_a_bounded_room_i18() {
    let mut system = settled(6, 1);
    let kept = serde_json::to_string(&system.unusual).expect("it is data");
    assert!(kept.len() < 512 << 10, "{}", kept.len());
    system.unusual = serde_json::from_str(&kept).expect("its own words");
    let since = system.now;
    system.run(300);
    assert_eq!(system.told_since(since), []);
    system.stands_still = true;
    system.run(60);
    assert!(system.told_since(since).contains(&Sort::Silence));
    for id in 0..200_000 {
        system.say(10_000 + id, None);
    }
    assert!(system.unusual.rhythms.len() <= MOST_RHYTHMS);
    system.run(120);
    let kept = serde_json::to_string(&system.unusual).expect("it is data");
    assert!(kept.len() < 4 << 20, "{}", kept.len());
}

#[test]
fn a_pattern_that_is_split_is_neither_news_nor_silence_nor_an_odd_minute() {
    let mut unusual = Unusual::default();
    let family = |pattern: u64| (pattern > 1).then_some(Family { parent: PatternId(1), root: PatternId(1) });
    let mut told = Vec::new();
    for second in 0..40_000_u64 {
        let now = second * 1_000_000;
        told.extend(unusual.look(now, During::Quiet, |id| id.0.to_string()));
        if second % 10 == 3 {
            let pattern = if second < 30_000 { 1 } else { 2 + second / 10 % 2 };
            let heard =
                Heard { pattern: PatternId(pattern), family: family(pattern), ..heard(0, second == 3, None) };
            told.extend(unusual.line(now, heard, During::Quiet, |id| id.0.to_string()));
        }
    }
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(unusual.patterns(), 2, "its parent comes no more, and is not waited for");
}
