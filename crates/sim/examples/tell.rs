//! Tells a story file: `tell FILE [SEED]`. Prints its timeline and the invariants that did not hold.

use holdfast_sim::Options;
use holdfast_sim::scenario::tell;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("say which file");
    let seed = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    let story = text.parse().expect("the file tells a story");
    let told = tell(&story, Options { seed, ..Options::default() });
    told.timeline.iter().for_each(|line| println!("{line}"));
    told.violations.iter().for_each(|violation| println!("{violation}"));
}
