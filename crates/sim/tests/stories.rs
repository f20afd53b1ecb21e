//! Every story file: its timeline is the one it expects, and no invariant breaks. `BLESS=1` rewrites
//! the timelines; review them like code. `STORY=S04` runs one.

use holdfast_core::diagnosis::{Catalogue, Fault};
use holdfast_core::time::Duration;
use holdfast_sim::scenario::{check_file, lasts, tell};
use holdfast_sim::{Options, Story, simulate};
use std::path::PathBuf;

/// Random stories that are told both ways are among so many, and no longer than this.
const SHORT_SEEDS: u64 = 100;
const SHORT: Duration = Duration::from_secs(6 * 3_600);

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

fn files() -> Vec<PathBuf> {
    let wanted = std::env::var("STORY").unwrap_or_default();
    let entries = std::fs::read_dir(folder()).expect("the scenarios folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    files.sort();
    files
}

#[test]
fn every_story_goes_as_it_is_told() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut failed = Vec::new();
    for path in files() {
        if let Err(error) = check_file(&path, bless) {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            failed.push(format!("{error}{}", cause.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} stories failed\n{}", failed.len(), failed.join("\n"));
}

/// A fault's name as the stories write it: `GuestHung` is `guest-hung`.
fn kebab(fault: Fault) -> String {
    let mut name = String::new();
    for letter in fault.to_string().chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// What a story shows and its name must agree: a timeline can be blessed away, a promise cannot (STYLE 1.3).
#[test]
fn each_fault_is_confirmed_where_it_is_and_nowhere_else() {
    let mut wrong = Vec::new();
    for row in Catalogue::standard().iter() {
        for (ending, is) in [("is", true), ("is-not", false), ("unknown", false)] {
            let name = format!("{}-{ending}", kebab(row.fault));
            let path = folder().join(format!("{name}.txt"));
            let Ok(text) = std::fs::read_to_string(&path) else {
                wrong.push(format!("there is no story {name}"));
                continue;
            };
            let story: Story = text.parse().expect("it is a story");
            if !story.why[0].starts_with(&format!("{name}: ")) {
                wrong.push(format!("{name} is called otherwise in its first line"));
            }
            let told = tell(&story, Options { quiet: true, ..Options::default() });
            let confirmed = told.outcomes.iter().any(|(fault, _)| *fault == row.fault);
            if confirmed != is {
                let what = if confirmed { "is confirmed" } else { "is not confirmed" };
                wrong.push(format!("in {name} {} {what}", row.fault));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Quiet time is jumped over; a story told probe by probe goes the same way.
#[test]
fn nothing_happens_in_the_time_that_is_skipped() {
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("the story can be read");
        let story: Story = text.parse().expect("it is a story");
        let run = |dont_skip| tell(&story, Options { dont_skip, ..Options::default() }).timeline.join("\n");
        assert_eq!(run(false), run(true), "{}", path.display());
    }
}

/// In hours of quiet a detector learns, so what is merely suspected may come a moment earlier or later: what is confirmed,
/// what is done and every promise are the same.
#[test]
fn random_stories_end_the_same_whether_quiet_time_is_skipped_or_not() {
    let stories = (0..SHORT_SEEDS).map(|seed| (seed, simulate::story(seed)));
    let mut told = 0;
    for (seed, story) in stories.filter(|(_, story)| lasts(story) <= SHORT) {
        let run = |dont_skip| tell(&story, Options { seed, dont_skip, quiet: true, ..Options::default() });
        let (skipped, whole) = (run(false), run(true));
        assert_eq!(skipped.outcomes, whole.outcomes, "seed {seed}");
        assert!(whole.violations.is_empty() && skipped.inputs < whole.inputs, "seed {seed}");
        told += 1;
    }
    assert!(told >= 10, "{told}");
}
