//! Which restore points stay, and why: the one rule for snapshots and backups. A function of what is listed: no clock, no
//! disk.
//!
//! Periods are those of UTC, and only such as have a point count: a VM that was off for a month loses nothing by it, and a
//! clock that jumped makes no point older.

use serde::{Deserialize, Serialize};

/// How many are kept of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keep {
    /// The newest ones, whenever they were taken.
    pub last: u32,
    /// The newest of each hour.
    pub hourly: u32,
    /// The newest of each day.
    pub daily: u32,
    /// The newest of each week; it begins on a Monday.
    pub weekly: u32,
    /// The newest of each month.
    pub monthly: u32,
    /// The newest of each year.
    pub yearly: u32,
}

impl Keep {
    /// Nothing is asked for.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// So many points are asked for at most: one may be the newest of its hour and of its day.
    #[must_use]
    pub fn most(&self) -> u32 {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.into_iter().fold(0, u32::saturating_add)
    }
}

/// A restore point of one VM, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number: what is newer has a higher one.
    pub sequence: u64,
    /// When it was taken, in microseconds since 1970; nothing if it cannot be read.
    pub taken: Option<i64>,
    /// It was read back and hashed, and was well.
    pub is_verified: bool,
    /// What was proved of it: higher is more, 0 is nothing.
    pub proved: u8,
    /// A person was warned of it, or of one before it, and nothing has shown since that all is well.
    pub is_doubtful: bool,
}

/// Why a point stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// One of the last, by its place among them, from 1 on.
    Last(u32),
    /// The newest of its hour.
    Hourly(u32),
    /// The newest of its day.
    Daily(u32),
    /// The newest of its week.
    Weekly(u32),
    /// The newest of its month.
    Monthly(u32),
    /// The newest of its year.
    Yearly(u32),
    /// The newest of all.
    Newest,
    /// The newest that was verified.
    NewestVerified,
    /// The newest of those of which most was proved.
    NewestProved,
    /// The newest before a warning that still stands.
    BeforeWarning,
    /// The oldest that such a warning is about: without it nobody would know what it was.
    Warned,
    /// No newer point that stays was verified.
    NoneNewerVerified,
    /// It cannot be read: whether it may go is for a person to say.
    Hurt,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last(n) => write!(f, "last {n}"),
            Self::Hourly(n) => write!(f, "hourly {n}"),
            Self::Daily(n) => write!(f, "daily {n}"),
            Self::Weekly(n) => write!(f, "weekly {n}"),
            Self::Monthly(n) => write!(f, "monthly {n}"),
            Self::Yearly(n) => write!(f, "yearly {n}"),
            Self::Newest => f.write_str("the newest"),
            Self::NewestVerified => f.write_str("the newest verified"),
            Self::NewestProved => f.write_str("the newest of the best proved"),
            Self::BeforeWarning => f.write_str("the last before a warning"),
            Self::Warned => f.write_str("has a warning"),
            Self::NoneNewerVerified => f.write_str("none newer is verified"),
            Self::Hurt => f.write_str("hurt"),
        }
    }
}

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// Why each of these points of one VM stays, newest first; a point without a reason may go (I12).
#[must_use]
pub fn decide(points: &[Candidate], keep: &Keep) -> Vec<(Candidate, Vec<Reason>)> {
    let mut all: Vec<(Candidate, Vec<Reason>)> = points.iter().map(|point| (*point, Vec::new())).collect();
    all.sort_by_key(|(point, _)| std::cmp::Reverse(point.sequence));
    by_policy(&mut all, keep);
    if let Some((_, reasons)) = all.first_mut() {
        reasons.push(Reason::Newest);
    }
    if let Some((_, reasons)) = all.iter_mut().find(|(point, _)| point.is_verified) {
        reasons.push(Reason::NewestVerified);
    }
    let best = all.iter().map(|(point, _)| point.proved).max().filter(|proved| *proved > 0);
    if let Some((_, reasons)) = all.iter_mut().find(|(point, _)| Some(point.proved) == best) {
        reasons.push(Reason::NewestProved);
    }
    before_warning(&mut all);
    let mut is_safe = false; // a newer one that stays was verified
    for (point, reasons) in &mut all {
        if point.taken.is_none() {
            reasons.push(Reason::Hurt);
        } else if reasons.is_empty() && !is_safe {
            reasons.push(Reason::NoneNewerVerified);
        }
        is_safe |= point.is_verified && !reasons.is_empty();
    }
    all
}

/// As long as the newest point is doubtful, the last one before that stays, and the one that tells of it.
fn before_warning(all: &mut [(Candidate, Vec<Reason>)]) {
    let Some((newest, older)) = all.split_first_mut().filter(|((newest, _), _)| newest.is_doubtful) else {
        return;
    };
    let is_good = |(point, _): &(Candidate, Vec<Reason>)| !point.is_doubtful && point.taken.is_some();
    let Some(good) = older.iter().position(is_good) else { return };
    older[good].1.push(Reason::BeforeWarning);
    let warned = older[..good].iter_mut().rev().find(|(point, _)| point.is_doubtful);
    warned.unwrap_or(newest).1.push(Reason::Warned);
}

/// Whether one of these stays for nothing but its proof: it goes once a newer one is proved as well.
#[must_use]
pub fn stays_for_its_proof(points: &[Candidate], keep: &Keep) -> bool {
    decide(points, keep).iter().any(|(_, reasons)| reasons == &[Reason::NewestProved])
}

/// Whether more of these may go once this one was read back and was well.
#[must_use]
pub fn frees(points: &[Candidate], keep: &Keep, sequence: u64) -> bool {
    let gone = |points: &[Candidate]| decide(points, keep).iter().filter(|(_, why)| why.is_empty()).count();
    let verified = |point: &Candidate| Candidate {
        is_verified: point.is_verified || point.sequence == sequence,
        ..*point
    };
    gone(&points.iter().map(verified).collect::<Vec<_>>()) > gone(points)
}

/// What the policy asks for.
fn by_policy(all: &mut [(Candidate, Vec<Reason>)], keep: &Keep) {
    type Kind = (fn(u32) -> Reason, u32, fn(i64) -> i64);
    let kinds: [Kind; 5] = [
        (Reason::Hourly, keep.hourly, |taken| taken.div_euclid(HOUR)),
        (Reason::Daily, keep.daily, |taken| taken.div_euclid(DAY)),
        (Reason::Weekly, keep.weekly, |taken| (taken.div_euclid(DAY) + 3).div_euclid(7)), // 1970 began on a Thursday
        (Reason::Monthly, keep.monthly, month),
        (Reason::Yearly, keep.yearly, |taken| month(taken).div_euclid(12)),
    ];
    for (at, (_, reasons)) in all.iter_mut().take(keep.last as usize).enumerate() {
        reasons.push(Reason::Last(at as u32 + 1));
    }
    for (reason, count, period) in kinds {
        let mut met = Vec::new();
        for (point, reasons) in all.iter_mut() {
            let Some(period) = point.taken.map(period).filter(|period| !met.contains(period)) else {
                continue;
            };
            if met.len() >= count as usize {
                break;
            }
            met.push(period);
            reasons.push(reason(met.len() as u32));
        }
    }
}

/// Months since the year 0, of the Gregorian calendar. (Howard Hinnant, "chrono-compatible low-level date algorithms".)
fn month(taken: i64) -> i64 {
    let days = taken.div_euclid(DAY) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    (era * 400 + year) * 12 + month + 2
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one =
            (0..900 * DAY, any::<bool>(), 0..4_u8, prop::bool::weighted(0.05), prop::bool::weighted(0.3));
        prop::collection::vec(one, 0..60).prop_map(|all| {
            let mut all = all;
            all.sort_by_key(|(taken, ..)| *taken);
            let numbered = all.into_iter().enumerate();
            numbered
                .map(|(at, (taken, is_verified, proved, is_hurt, is_doubtful))| Candidate {
                    sequence: at as u64 + 1,
                    taken: (!is_hurt).then_some(taken),
                    is_verified: is_verified && !is_hurt,
                    proved,
                    is_doubtful,
                })
                .collect()
        })
    }

    fn keep() -> impl Strategy<Value = Keep> {
        (0..4_u32, 0..5_u32, 0..5_u32, 0..4_u32, 0..4_u32, 0..3_u32).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly)| Keep {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
            },
        )
    }

    fn staying(points: &[Candidate], keep: &Keep) -> Vec<Candidate> {
        decide(points, keep).into_iter().filter(|(_, why)| !why.is_empty()).map(|(point, _)| point).collect()
    }

    #[test]
    fn a_point_that_nothing_but_its_proof_keeps_is_known() {
        let point = |sequence, proved| Candidate {
            sequence,
            taken: Some(sequence as i64 * HOUR),
            is_verified: true,
            proved,
            is_doubtful: false,
        };
        let (keep, proved) = (Keep { last: 2, ..Keep::default() }, point(1, 3));
        assert!(!stays_for_its_proof(&[proved, point(2, 1)], &keep), "it is one of the last");
        assert!(stays_for_its_proof(&[proved, point(2, 1), point(3, 1)], &keep));
        assert!(!stays_for_its_proof(&[proved, point(2, 3), point(3, 1)], &keep), "it may go");
        assert!(!stays_for_its_proof(&[], &keep));
    }

    proptest! {
        #[test]
        fn what_may_go_has_a_newer_verified_one_that_stays_and_the_best_stay(points in candidates(), keep in keep()) {
            let stay = staying(&points, &keep);
            for gone in points.iter().filter(|point| !stay.contains(point)) {
                prop_assert!(stay.iter().any(|point| point.is_verified && point.sequence > gone.sequence));
                prop_assert!(gone.taken.is_some());
            }
            let newest = |is: &dyn Fn(&Candidate) -> bool| points.iter().rfind(|point| is(point)).copied();
            let best = points.iter().map(|point| point.proved).max().unwrap_or(0);
            for must in [newest(&|_| true), newest(&|point| point.is_verified), newest(&|point| point.proved == best)] {
                prop_assert!(must.is_none_or(|must| best == 0 || stay.contains(&must)), "{must:?}");
            }
            let good = newest(&|point| !point.is_doubtful && point.taken.is_some());
            prop_assert!(good.is_none_or(|good| stay.contains(&good)) || points.last().is_some_and(|newest| !newest.is_doubtful));
        }

        #[test]
        fn the_policy_still_holds_with_what_remains(points in candidates(), keep in keep()) {
            let stay = staying(&points, &keep);
            prop_assert_eq!(&staying(&stay, &keep), &stay, "a second time, nothing goes");
            let by_policy = |points: &[Candidate]| {
                let all = decide(points, &keep).into_iter();
                let asked = |(point, why): (Candidate, Vec<Reason>)| {
                    let why: Vec<Reason> = why.into_iter().filter(|why| *why < Reason::Newest).collect();
                    (!why.is_empty()).then_some((point, why))
                };
                all.filter_map(asked).collect::<Vec<_>>()
            };
            prop_assert_eq!(by_policy(&points), by_policy(&stay));
        }

        #[test]
        fn more_is_kept_where_more_is_asked_for(points in candidates(), keep in keep()) {
            let more = Keep { daily: keep.daily + 1, last: keep.last + 1, ..keep };
            let (stay, more) = (staying(&points, &keep), staying(&points, &more));
            let asked = decide(&points, &keep).into_iter().filter(|(_, why)| why.iter().any(|why| *why < Reason::Newest));
            for (point, _) in asked {
                prop_assert!(more.contains(&point));
            }
            prop_assert!(stay.len() <= points.len());
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let at = |year: i64, month: i64| year * 12 + month - 1;
        for (day, expected) in [
            (0, at(1970, 1)),
            (30, at(1970, 1)),
            (31, at(1970, 2)),
            (59, at(1970, 3)),
            (-1, at(1969, 12)),
            (11_016, at(2000, 2)), // 29 February
            (11_017, at(2000, 3)),
            (20_783, at(2026, 11)), // 26 November
        ] {
            assert_eq!(month(day * DAY + 5), expected, "day {day}");
        }
    }

    #[test]
    fn each_kind_keeps_the_newest_of_so_many_periods_that_have_a_point() {
        let point = |sequence: u64, hours: i64| Candidate {
            sequence,
            taken: Some(hours * HOUR),
            is_verified: true,
            proved: 0,
            is_doubtful: false,
        };
        // Two a day for five days, of which one had none.
        let points: Vec<Candidate> =
            [0, 12, 24, 36, 72, 84, 96, 108].iter().zip(1..).map(|(hours, n)| point(n, *hours)).collect();
        let all = decide(&points, &Keep { daily: 3, hourly: 1, ..Keep::default() });
        let of = |sequence: u64| all.iter().find(|(point, _)| point.sequence == sequence).unwrap().1.clone();
        assert_eq!(of(8), [Reason::Hourly(1), Reason::Daily(1), Reason::Newest, Reason::NewestVerified]);
        assert_eq!((of(6), of(4)), (vec![Reason::Daily(2)], vec![Reason::Daily(3)]));
        assert!([1, 2, 3, 5, 7].iter().all(|gone| of(*gone).is_empty()));
    }

    #[test]
    fn the_last_point_before_a_warning_stays_with_the_one_that_tells_of_it_until_a_newer_one_is_beyond_doubt()
    {
        let points = |doubtful: std::ops::Range<u64>, hurt: u64| -> Vec<Candidate> {
            let point = |sequence| Candidate {
                sequence,
                taken: (sequence != hurt).then_some(sequence as i64 * HOUR),
                is_verified: true,
                proved: 0,
                is_doubtful: doubtful.contains(&sequence),
            };
            (1..10).map(point).collect()
        };
        let stays = |points: Vec<Candidate>| -> Vec<(u64, Vec<Reason>)> {
            let all = decide(&points, &Keep { last: 1, ..Keep::default() }).into_iter();
            let told = all.map(|(point, why)| (point.sequence, why));
            told.filter(|(sequence, why)| !why.is_empty() && *sequence != 9).collect()
        };
        let kept = |warned, good| vec![(warned, vec![Reason::Warned]), (good, vec![Reason::BeforeWarning])];
        assert_eq!(stays(points(4..10, 0)), kept(4, 3));
        assert_eq!(stays(points(4..9, 0)), [], "the newest is beyond doubt");
        let hurt = (3, vec![Reason::Hurt]);
        assert_eq!(stays(points(4..10, 3)), [kept(4, 2)[0].clone(), hurt, kept(4, 2)[1].clone()]);
        assert_eq!(stays(points(1..10, 0)), [], "there is none before it");
        let newest = decide(&points(9..10, 0), &Keep { last: 1, ..Keep::default() });
        assert!(
            newest[0].1.contains(&Reason::Warned) && newest[1].1 == [Reason::BeforeWarning],
            "{newest:?}"
        );
    }

    #[test]
    fn without_a_verified_one_nothing_goes() {
        let points: Vec<Candidate> = (1..6)
            .map(|n| Candidate {
                sequence: n,
                taken: Some(n as i64),
                is_verified: n == 2,
                proved: 0,
                is_doubtful: false,
            })
            .collect();
        let all = decide(&points, &Keep { last: 1, ..Keep::default() });
        let gone: Vec<u64> =
            all.iter().filter(|(_, why)| why.is_empty()).map(|(point, _)| point.sequence).collect();
        assert_eq!(gone, [1], "only what is older than the one that was verified");
        let keep = Keep { last: 1, ..Keep::default() };
        assert!(frees(&points, &keep, 5), "then 2 to 4 go");
        assert!(!frees(&points, &keep, 2), "it is verified already");
        assert!(!frees(&points, &Keep { last: 5, ..keep }, 5), "all are to stay");
        assert!(!frees(&points[..2], &keep, 2), "the first may go as it is");
    }
}
