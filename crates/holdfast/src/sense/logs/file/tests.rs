//! Files as they come, go and are rotated, while they are followed.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::testing::{FakeGuest, Lab};
use super::*;
use std::fs::{self, File};
use std::io::Write;

fn append(path: &Path, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn start(lab: &Lab, path: PathBuf) -> tokio::task::JoinHandle<()> {
    let subject = Subject::Guest("orders".parse().unwrap());
    tokio::spawn(follow(FileLog { subject, name: None, path, format: Format::Plain }, lab.means.clone()))
}

#[tokio::test]
async fn a_file_that_comes_is_read_and_one_that_was_there_is_read_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.log"), folder.path().join("new.log"));
    append(&old, "of long ago\n");
    let mut lab = Lab::new(FakeGuest::away());
    let task = start(&lab, folder.path().join("*.log"));
    let old_source = format!("file {}", old.display());
    lab.until(&old_source, |reading| reading.state == State::Following).await;
    append(&old, "one\n");
    assert_eq!(lab.texts(1).await, ["one"]);
    append(&new, "two\n");
    let entry = lab.next().await;
    assert_eq!(
        (entry.record.text.as_str(), entry.source.as_str()),
        ("two", format!("file {}", new.display()).as_str())
    );
    assert_eq!(entry.subject, Subject::Guest("orders".parse().unwrap()));
    fs::remove_file(&new).unwrap();
    lab.until(&entry.source.to_string(), |reading| matches!(reading.state, State::Waiting(_))).await;
    let reading = lab.until(&old_source, |_| true).await;
    assert_eq!((reading.records, reading.bytes, reading.dropped), (1, 3, 0));
    lab.means.stop.cancel();
    task.await.unwrap();
    assert_eq!(lab.means.feeds.registry.read(), []);
}

#[tokio::test]
async fn a_pattern_that_also_names_rotated_files_tells_no_line_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut lab = Lab::new(FakeGuest::away());
    let task = start(&lab, at("orders.log*"));
    lab.until(&format!("file {}", at("orders.log*").display()), |_| true).await;
    append(&at("orders.log"), "one\n");
    assert_eq!(lab.texts(1).await, ["one"]);
    append(&at("orders.log"), "two\n");
    fs::rename(at("orders.log"), at("orders.log.1")).unwrap();
    append(&at("orders.log"), "three\n");
    fs::write(at("orders.log.2.gz"), b"\x1f\x8b\x08").unwrap();
    let mut texts = lab.texts(2).await;
    texts.sort();
    assert_eq!(texts, ["three", "two"]);
    append(&at("orders.log"), "four\n");
    assert_eq!(lab.texts(1).await, ["four"]);
    let packed = format!("file {}", at("orders.log.2.gz").display());
    lab.until(&packed, |reading| matches!(reading.state, State::Failing(_))).await;
    lab.means.stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_last_record_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.log");
    let mut lab = Lab::new(FakeGuest::away());
    let task = start(&lab, path.clone());
    lab.until(&format!("file {}", path.display()), |reading| reading.state.why() == Some("no such file"))
        .await;
    append(&path, "one\ntwo\nthree\n");
    assert_eq!(lab.texts(2).await, ["one", "two"]); // the third is lost with us
    lab.means.stop.cancel();
    task.await.unwrap();
    fs::rename(&path, folder.path().join("orders.log.1")).unwrap();
    append(&path, "four\n");
    let mut lab = Lab::going_on(FakeGuest::away(), lab.places);
    let task = start(&lab, path.clone());
    assert_eq!(lab.texts(2).await, ["three", "four"]);
    lab.means.stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn of_a_pattern_a_file_that_came_while_we_were_away_is_news() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    append(&at("quiet.log"), "of long ago\n");
    append(&at("day-1.log"), "of long ago\n");
    let mut lab = Lab::new(FakeGuest::away());
    let task = start(&lab, at("*.log"));
    let day = format!("file {}", at("day-1.log").display());
    lab.until(&day, |reading| reading.state == State::Following).await;
    append(&at("day-1.log"), "one\n");
    assert_eq!(lab.texts(1).await, ["one"]);
    lab.means.stop.cancel();
    task.await.unwrap();
    // The place is of a second ago, as it would be: a file has a time of birth of its own.
    for place in lab.places.values_mut() {
        let (rest, read_at) = place.rsplit_once(' ').unwrap();
        *place = format!("{rest} {}", read_at.parse::<u64>().unwrap() - 1);
    }
    let young = tempfile::tempdir_in(folder.path()).unwrap();
    let born = std::fs::metadata(young.path()).unwrap().created();
    append(&at("day-2.log"), "two\n");
    let mut lab = Lab::going_on(FakeGuest::away(), lab.places);
    let task = start(&lab, at("day-*.log"));
    if born.is_ok() {
        assert_eq!(lab.texts(1).await, ["two"]);
    }
    lab.means.stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn what_is_no_file_fails_with_a_reason_and_a_full_inlet_keeps_a_file_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.log");
    fs::create_dir(&path).unwrap();
    let mut lab = Lab::new(FakeGuest::away());
    let task = start(&lab, path.clone());
    let source = format!("file {}", path.display());
    let reading = lab.until(&source, |reading| matches!(reading.state, State::Failing(_))).await;
    assert!(reading.state.why().unwrap().ends_with("is not a plain file"), "{reading:?}");
    fs::remove_dir(&path).unwrap();
    let count = 40_000; // more than may wait
    append(&path, &"x\n".repeat(count));
    lab.until(&source, |reading| reading.records > 8_000).await;
    assert_eq!(lab.texts(count).await.len(), count);
    assert_eq!(lab.until(&source, |_| true).await.dropped, 0);
    lab.means.stop.cancel();
    task.await.unwrap();
}
