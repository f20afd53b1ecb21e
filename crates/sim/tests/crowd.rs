//! A thousand VMs lost at once (S55): counted, for nobody reads a timeline of that length.

use holdfast_sim::scenario::tell;
use holdfast_sim::{Options, Story};
use std::time::Duration;

/// As the story says.
const BOOTS_IN: f64 = 6.0;
/// One in twenty of a thousand may boot at the same time.
const AT_ONCE: usize = 50;

/// The moments in seconds at which something is started, and the name of each, from lines of the timeline.
fn starts(timeline: &[String]) -> Vec<(f64, String)> {
    let start = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, "act", "start", vm, _] = words[..] else { return None };
        Some((at.trim_end_matches('s').parse().expect("a moment"), vm.to_owned()))
    };
    timeline.iter().filter_map(start).collect()
}

#[test]
fn a_thousand_vms_lost_with_their_host_come_back_a_few_at_a_time_and_what_they_need_first() {
    let story: Story = "S55: the host loses power with 1,000 VMs, which all need one. I6 I11\n\nhost atlas\n\
        vm db on atlas\nvms web1 to web999 on atlas, needs db\nat 60s: host loses power\n"
        .parse()
        .expect("a story");
    let story = Story { until: Some(Duration::from_secs(420)), ..story };
    let told = tell(&story, Options::default());
    assert_eq!(told.violations, [], "a promise is broken");
    let starts = starts(&told.timeline);
    assert_eq!(starts.len(), 1_000, "each is started once");
    assert_eq!(starts[0].1, "db");
    assert!(starts[1].0 >= starts[0].0 + BOOTS_IN, "the others wait until it is up");
    for (at, _) in &starts {
        let booting = starts.iter().filter(|(other, _)| (*at - BOOTS_IN..=*at).contains(other)).count();
        assert!(booting <= AT_ONCE, "{booting} boot at {at}s");
    }
    let rest: Vec<&String> = told.timeline.iter().filter(|line| !line.contains("  act  ")).collect();
    assert!(rest.is_empty(), "no incident, so no try is spent, and all are up at the end: {rest:?}");
}
