//! What a story tells of one step holds at every step: the daemon crashes or stalls at each numbered point of a
//! recovery, and disk, power and journal fail at each moment of it. Every invariant is checked at each step, and in
//! the end every VM is well or held (I21).

use holdfast_sim::faults::{DaemonFault, HostFault};
use holdfast_sim::scenario::tell;
use holdfast_sim::{Event, Happening, Options, Story, When};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Recoveries of each kind.
const STORIES: [&str; 8] = [
    "S01-process-dies",
    "S02-guest-panics",
    "guest-hung-is",
    "vm-hung-is",
    "app-hung-is",
    "vm-paused-io-is",
    "person-restarts",
    "S70-image-deleted",
];

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn first(story: &Story) -> Duration {
    let at = |event: &Event| if let When::At(at) = event.when { Some(at) } else { None };
    story.events.iter().filter_map(at).min().expect("something happens at some time")
}

/// The story in this file, with an end of all faults after which everything must be well.
fn story(name: &str) -> Story {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../scenarios/{name}.txt"));
    let text = std::fs::read_to_string(path).expect("the story is there");
    let mut story: Story = text.parse().expect("it is a story");
    story.heals = Some(first(&story) + secs(900));
    story
}

fn keeps_every_promise(name: &str, story: &Story, options: Options, what: &str) {
    let told = tell(story, Options { quiet: true, ..options.clone() });
    if let Some(violation) = told.violations.first() {
        let timeline = tell(story, options).timeline.join("\n");
        panic!("{name}, {what}: {violation}\n\n{story}----\n{timeline}");
    }
}

/// The daemon's numbered points in a story: before and after each input that matters, record and order.
fn points(story: &Story) -> u64 {
    let points = tell(story, Options { quiet: true, ..Options::default() }).points;
    assert!(points > 4, "a recovery has steps");
    points
}

#[test]
fn a_crash_at_any_step_and_once_more_at_the_next() {
    for name in STORIES {
        let story = story(name);
        for point in 1..=points(&story) {
            for crash_at in [vec![point], vec![point, point + 1], vec![point, point + 3]] {
                let what = format!("crash at {crash_at:?}");
                keeps_every_promise(name, &story, Options { crash_at, ..Options::default() }, &what);
            }
        }
    }
}

#[test]
fn a_stall_of_a_millisecond_to_ten_minutes_at_any_step() {
    for name in STORIES {
        let story = story(name);
        for point in 1..=points(&story) {
            for long in [Duration::from_millis(1), Duration::from_millis(700), secs(4), secs(40), secs(600)] {
                let what = format!("stall of {long:?} at {point}");
                let stall_at = Some((point, long));
                keeps_every_promise(name, &story, Options { stall_at, ..Options::default() }, &what);
            }
        }
    }
}

/// The first ten seconds in twelfths of a second, and close around everything that is told from then on.
fn moments(story: &Story) -> BTreeSet<Duration> {
    let begins = first(story);
    let told = tell(story, Options::default()).timeline;
    let time = |line: &String| {
        let seconds: f64 = line.split_whitespace().next()?.strip_suffix('s')?.parse().ok()?;
        Some(Duration::from_secs_f64(seconds))
    };
    let steps: BTreeSet<Duration> = told.iter().filter_map(time).collect();
    assert!(steps.len() > 2, "a recovery has steps: {told:?}");
    let close = steps
        .into_iter()
        .flat_map(|at| [0, 1, 4, 11, 30, 90, 270].map(Duration::from_millis).map(|after| at + after));
    let grid = (0..120).map(|step| begins + Duration::from_millis(step * 83));
    grid.chain(close).filter(|at| *at >= begins).collect()
}

/// The story, with something more at each moment of its recovery.
fn at_each_moment(more: &[(Happening, Option<Duration>)]) {
    for name in STORIES {
        let plain = story(name);
        for at in moments(&plain) {
            let mut story = plain.clone();
            let event = |(what, lasting): &(Happening, Option<Duration>)| Event {
                when: When::At(at),
                what: what.clone(),
                lasting: *lasting,
            };
            story.events.extend(more.iter().map(event));
            keeps_every_promise(name, &story, Options::default(), &format!("at {at:?}"));
        }
    }
}

#[test]
fn a_full_state_disk_at_any_moment() {
    at_each_moment(&[(Happening::Host(HostFault::StateFull), Some(secs(3)))]);
}

#[test]
fn a_power_cut_at_any_moment() {
    at_each_moment(&[(Happening::Host(HostFault::LosesPower), None)]);
}

#[test]
fn a_damaged_record_at_any_moment() {
    at_each_moment(&[
        (Happening::Daemon(DaemonFault::LosesRecord), None),
        (Happening::Daemon(DaemonFault::Crashes), Some(Duration::from_millis(500))),
    ]);
}
