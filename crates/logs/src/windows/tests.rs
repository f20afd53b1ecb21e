//! What windows are judged to be, and that nothing in them can break the judging.

use super::window::{Counts, MOST_IN_WINDOW};
use super::{During, Habits, Judgement, Model, Reason, Room, Watch, Window};
use proptest::collection::vec;
use proptest::prelude::*;

fn counts(pairs: &[(u32, u32)]) -> Window {
    let mut window = Window::default();
    pairs.iter().for_each(|(pattern, count)| window.add(*pattern, *count));
    window
}

fn learned(windows: impl IntoIterator<Item = Window>) -> Model {
    let mut habits = Habits::new(Room::default(), None);
    windows.into_iter().for_each(|window| habits.learn(&window));
    habits.model().expect("something was learned")
}

/// Three lines of each replica, in this order, and now and then a line of maintenance.
fn usual(number: u32) -> Window {
    let mut lines = vec![1, 2, 2, 2, 3, 3, 3];
    lines.extend(std::iter::repeat_n(4, (number % 3) as usize));
    lines.into_iter().collect()
}

#[test]
fn what_was_learned_is_usual_and_what_differs_is_told() {
    let model = learned((0..300).map(usual));
    assert_eq!(model.size().0, 3);
    for number in 0..3 {
        let judgement = model.judge(&usual(number));
        assert!(!judgement.is_unusual && judgement.score < 0.01 && judgement.reasons.is_empty());
    }
    let broken = model.judge(&[1, 2, 2].into_iter().collect());
    assert!(broken.is_unusual && broken.score > 0.5);
    assert_eq!(broken.reasons[0], Reason::Missing { pattern: 3, usual: 3 });
    let new = model.judge(&[1, 2, 2, 2, 9, 3, 3, 3].into_iter().collect());
    assert_eq!(new.says(|n| format!("E{n}")), "E9 is in no usual window");
    let many = model.judge(&[vec![1, 2, 2, 2], vec![3; 40]].concat().into_iter().collect());
    assert_eq!(many.says(|n| format!("E{n}")), "E3 came 40 times, usually 3");
    assert!(model.judge(&Window::default()).is_unusual);
}

#[test]
fn one_more_of_many_is_no_news() {
    let model = learned((0..100).map(|_| counts(&[(1, 26), (2, 5)])));
    assert!(!model.judge(&counts(&[(1, 30), (2, 5)])).is_unusual);
    assert!(!model.judge(&counts(&[(1, 26), (2, 6)])).is_unusual);
    assert!(model.judge(&counts(&[(1, 26), (2, 12)])).is_unusual);
}

/// A load that makes all counts rise and fall together: no vector comes twice, and the subspace knows all of them.
#[test]
fn a_load_never_seen_is_usual_and_one_count_that_does_not_follow_it_is_not() {
    let at = |load: u32| [(1, load), (2, 2 * load), (3, 5 * load)];
    let model = learned((10..400).step_by(2).map(|load| counts(&at(load))));
    assert!(!model.judge(&counts(&at(333))).is_unusual);
    let mut odd = at(300);
    odd[1].1 = 20;
    assert!(model.judge(&counts(&odd)).is_unusual);
}

#[test]
fn a_few_bad_windows_among_those_learned_do_not_become_usual() {
    let broken: Window = [1, 2].into_iter().collect();
    let odd: Window = [1, 2, 2, 2, 3, 3, 3, 8, 8, 8].into_iter().collect();
    let mut windows: Vec<Window> = (0..1_000).map(usual).collect();
    windows.extend(std::iter::repeat_n(broken.clone(), 15));
    windows.extend(std::iter::repeat_n(odd.clone(), 2));
    let model = learned(windows);
    assert!(model.judge(&broken).is_unusual && model.judge(&odd).is_unusual);
    assert!((0..3).all(|number| !model.judge(&usual(number)).is_unusual));
}

#[test]
fn an_order_never_seen_counts_only_once_all_orders_are_known() {
    let turned: Window = [1, 3, 3, 3, 2, 2, 2].into_iter().collect();
    let early = learned((0..200).map(usual)).judge(&turned);
    assert!(!early.is_unusual && early.score > 0.4, "{early:?}");
    let late = learned((0..3_000).map(usual)).judge(&turned);
    assert!(late.is_unusual);
    assert_eq!(late.says(|n| format!("E{n}")), "E3 never came right after E1");
}

#[test]
fn a_window_of_an_incident_is_judged_and_not_learned() {
    let odd = || -> Window { [1, 2, 2, 2, 3, 3, 3, 7, 7].into_iter().collect() };
    let (mut watch, mut other) = (Watch::default(), Watch::default());
    for number in 0..200 {
        watch.window(&usual(number), During::Quiet);
        other.window(&usual(number), During::Quiet);
    }
    for _ in 0..500 {
        let judgement = watch.window(&odd(), During::Incident).expect("it is no beginner");
        assert!(judgement.is_unusual);
    }
    assert_eq!((watch.habits().windows(), watch.habits().size()), (200, other.habits().size()));
    for number in 0..200 {
        assert_eq!(
            watch.window(&usual(number), During::Quiet),
            other.window(&usual(number), During::Quiet),
            "as if it had never been"
        );
    }
}

#[test]
fn nothing_is_said_of_the_first_windows_and_a_new_habit_becomes_one() {
    let mut watch = Watch::default();
    let said = (0..32).filter_map(|number| watch.window(&usual(number), During::Quiet)).count();
    assert_eq!(said, 0);
    let new = || counts(&[(1, 1), (2, 3), (3, 3), (5, 6)]);
    (32..4_000).for_each(|number| drop(watch.window(&usual(number), During::Quiet)));
    let verdicts: Vec<bool> =
        (0..200).filter_map(|_| watch.window(&new(), During::Quiet)).map(|j| j.is_unusual).collect();
    assert!(verdicts[..8].iter().all(|unusual| *unusual) && !verdicts[199]);
}

#[test]
fn what_is_no_more_done_is_forgotten() {
    let old = || counts(&[(1, 5), (2, 5)]);
    let mut watch = Watch::default();
    (0..300).for_each(|_| drop(watch.window(&old(), During::Quiet)));
    (0..20_000).for_each(|_| drop(watch.window(&counts(&[(1, 5), (3, 5)]), During::Quiet)));
    assert!(watch.window(&old(), During::Incident).expect("judged").is_unusual);
}

#[test]
fn memory_is_bounded_when_nothing_ever_comes_again() {
    let room = Room { vectors: 200, counts: 2_000, columns: 24 };
    let mut habits = Habits::new(room, Some(100));
    for number in 0..5_000_u32 {
        habits.learn(&(0..40).map(|n| number * 40 + n).collect());
        let (vectors, counts) = habits.size();
        assert!(vectors <= 200 && counts <= 2_000, "{vectors} {counts}");
    }
    let judgement = habits.model().expect("a model").judge(&usual(1));
    assert!(judgement.score.is_finite());
    let mut wide = Window::default();
    (0..100_000).for_each(|pattern| wide.push(pattern));
    assert_eq!(wide.counts().count(), MOST_IN_WINDOW);
    assert!(wide.steps().count() <= MOST_IN_WINDOW + 1);
    let mut steps = super::steps::Steps::default();
    (0..200).for_each(|n| steps.learn(&(0..1_000).map(|i| n * 1_000 + i).collect()));
    assert!(steps.len() <= 65_536 && !steps.is_settled() && steps.unseen(&wide).is_empty());
}

/// Counts of a busy source, which never come twice: nothing there is unusual, whatever one looks at.
#[test]
fn of_noise_only_little_is_flagged_and_each_flag_has_its_reason() {
    let mut state = 11_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut noisy = || -> Window {
        let load = 0.5 + uniform();
        let mut window = Window::default();
        for pattern in 0..60 {
            let sum: f64 = (0..4).map(|_| uniform()).sum();
            window.add(pattern, (f64::from(pattern % 20 + 1) * load * sum).round() as u32);
        }
        window
    };
    let model = learned((0..1_500).map(|_| noisy()));
    let flagged: Vec<Judgement> =
        (0..2_000).map(|_| model.judge(&noisy())).filter(|judgement| judgement.is_unusual).collect();
    assert!(flagged.len() <= 60, "{} of 2,000", flagged.len());
    assert!(flagged.iter().all(is_sound));
}

#[test]
fn habits_of_one_kind_of_window_or_of_empty_ones_are_habits() {
    assert!(Habits::new(Room::default(), None).model().is_none());
    let empty = learned((0..50).map(|_| Window::default()));
    assert!(!empty.judge(&Window::default()).is_unusual);
    assert!(empty.judge(&usual(0)).is_unusual);
    let one = learned([usual(0)]);
    assert!(!one.judge(&usual(0)).is_unusual && one.judge(&counts(&[(9, 9)])).is_unusual);
}

fn any_window() -> impl Strategy<Value = Counts> {
    let count = prop_oneof![0..5_u32, 0..5_000_u32, Just(u32::MAX)];
    vec((prop_oneof![0..6_u32, any::<u32>()], count), 0..12)
}

fn is_sound(judgement: &Judgement) -> bool {
    let is_within = (0.0..=1.0).contains(&judgement.score);
    let has_reason = judgement.is_unusual != judgement.reasons.is_empty();
    is_within && judgement.is_unusual == (judgement.score > 0.5) && has_reason
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_counts_are_judged_alike_each_time(known in vec(any_window(), 1..60), asked in vec(any_window(), 1..20)) {
        let make = || learned(known.iter().map(|pairs| counts(pairs)));
        let (one, two) = (make(), make());
        for pairs in &asked {
            let judgement = one.judge(&counts(pairs));
            prop_assert!(is_sound(&judgement), "{judgement:?}");
            prop_assert_eq!(&judgement, &two.judge(&counts(pairs)));
        }
    }

    #[test]
    fn the_order_in_which_windows_are_learned_does_not_matter(known in vec(any_window(), 1..40), asked in any_window()) {
        let forth = learned(known.iter().map(|pairs| counts(pairs)));
        let back = learned(known.iter().rev().map(|pairs| counts(pairs)));
        prop_assert_eq!(forth.judge(&counts(&asked)), back.judge(&counts(&asked)));
    }

    #[test]
    fn a_watch_takes_whatever_comes(lines in vec((vec(0..9_u32, 0..20), any::<bool>()), 0..120)) {
        let mut watch = Watch::default();
        let mut quiet = 0;
        for (lines, is_incident) in lines {
            let during = if is_incident { During::Incident } else { During::Quiet };
            quiet += u64::from(!is_incident);
            let judgement = watch.window(&lines.into_iter().collect(), during);
            prop_assert!(judgement.as_ref().is_none_or(is_sound), "{judgement:?}");
        }
        prop_assert_eq!(watch.habits().windows(), quiet);
    }
}
