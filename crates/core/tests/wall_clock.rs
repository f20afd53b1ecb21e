//! The wall clock is for showing times only (I20): it may be moved, and nothing is decided differently.

use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::time::Timestamp;

#[test]
fn each_time_is_shown_by_the_wall_clock_of_its_moment() {
    let mut engine = Engine::new();
    let at = Timestamp::from_secs;
    let started = Started { host: "atlas".parse().expect("a name"), boot: "b".into(), wall_offset: 5 };
    let _ = engine.step(at(10), &Input::Started(started));
    let reaction = engine.step(at(20), &Input::WallClock { offset: -3_600_000_000 });
    assert!(reaction.actions.is_empty());
    assert_eq!(
        [0, 10, 19, 20, 99].map(|s| engine.wall_offset(at(s))),
        [5, 5, 5, -3_600_000_000, -3_600_000_000]
    );
}
