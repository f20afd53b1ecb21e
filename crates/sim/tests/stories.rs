//! Every story file: its timeline is the one it expects, and no invariant breaks. `BLESS=1` rewrites
//! the timelines; review them like code. `STORY=S04` runs one.

use holdfast_sim::scenario::check_file;
use std::path::PathBuf;

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let wanted = std::env::var("STORY").unwrap_or_default();
    let entries = std::fs::read_dir(folder).expect("the scenarios folder is there");
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
