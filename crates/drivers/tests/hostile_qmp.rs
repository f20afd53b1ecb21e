//! A18 and A19 of SAFETY.md: a hypervisor that says anything, or nothing (R13).

#![expect(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Fake, Side};
use holdfast_drivers::qemu::qmp::{Qmp, QmpError};
use holdfast_drivers::qemu::wire::{ReadError, WireError};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20); // no test waits so long; it only keeps one from hanging
const SHORT: Duration = Duration::from_millis(200);
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#;

/// Greets and answers the negotiation; then the test goes on.
async fn greet(side: &mut Side) {
    side.say(format!("{GREETING}\r\n")).await;
    let hello = side.hear().await.unwrap();
    side.say(format!("{{\"return\": {{}}, \"id\": {}}}\r\n", hello["id"])).await;
}

#[tokio::test]
async fn an_answer_finds_its_question_among_strangers() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        let asked = side.hear().await.unwrap();
        side.say("{\"return\": {\"status\": \"lie\"}, \"id\": 77}\n").await;
        side.say("{\"return\": {\"status\": \"lie\"}, \"id\": \"x\"}\n{\"return\": {\"status\": \"lie\"}}\n")
            .await;
        side.say(format!("{{\"return\": {{\"status\": \"truth\"}}, \"id\": {}}}\n", asked["id"])).await;
        side.until_gone().await;
    });
    let (qmp, _events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    assert_eq!(qmp.version(), (7, 2));
    let answer: Value = qmp.call("query-status", Value::Null, LONG).await.unwrap();
    assert_eq!(answer, json!({ "status": "truth" }));
    assert_eq!(qmp.tally().strays.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_refusal_is_told_with_its_words_made_harmless() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        let asked = side.hear().await.unwrap();
        let error =
            json!({ "error": { "class": "GenericError", "desc": "no \u{1b}[31m!" }, "id": asked["id"] });
        side.say(format!("{error}\n")).await;
        side.until_gone().await;
    });
    let (qmp, _events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    let error = qmp.run("stop", Value::Null, LONG).await.unwrap_err();
    assert_eq!(error.to_string(), "refused: no \\u{1b}[31m!");
    assert!(!error.is_unknown());
}

#[tokio::test]
async fn silence_is_an_answer_and_the_connection_stays_of_use() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        let first = side.hear().await.unwrap();
        tokio::time::sleep(SHORT * 3).await;
        side.say(format!("{{\"return\": 1, \"id\": {}}}\n", first["id"])).await;
        let second = side.hear().await.unwrap();
        side.say(format!("{{\"return\": 2, \"id\": {}}}\n", second["id"])).await;
        side.until_gone().await;
    });
    let (qmp, _events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    let first = qmp.call::<u8>("query-status", Value::Null, SHORT).await.unwrap_err();
    assert!(matches!(first, QmpError::Silent { asked: true, .. }), "{first:?}");
    let never = qmp.call::<u8>("system_reset", Value::Null, SHORT / 4).await.unwrap_err();
    assert!(matches!(never, QmpError::Silent { asked: false, .. }), "{never:?}");
    assert!(first.is_unknown() && !never.is_unknown());
    // The reset above was withdrawn, so the second question that the other side hears is this one.
    assert_eq!(qmp.call::<u8>("query-status", Value::Null, LONG).await.unwrap(), 2);
    assert_eq!(qmp.tally().strays.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_socket_that_never_greets_is_given_up_in_time() {
    let fake = Fake::play(|mut side| async move { side.until_gone().await }); // R13
    let error = Qmp::connect(&fake.path(), SHORT).await.unwrap_err();
    assert!(matches!(error, QmpError::Silent { asked: false, .. }), "{error:?}");
}

#[tokio::test]
async fn another_greeting_is_no_qemu() {
    for words in ["{\"hello\": 1}\n", "{\"event\": \"STOP\"}\n"] {
        let fake = Fake::play(move |mut side| async move {
            side.say(words).await;
        });
        let error = Qmp::connect(&fake.path(), LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::NotQemu), "{words}: {error:?}");
    }
    for words in ["SSH-2.0-OpenSSH\n", "[]\n", "{\"QMP\": 7}\n", "\0\0\0\n"] {
        let fake = Fake::play(move |mut side| async move {
            side.say(words).await;
        });
        let error = Qmp::connect(&fake.path(), LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::Odd(_)), "{words}: {error:?}");
    }
}

/// What becomes of a question when the hypervisor says `words` and closes.
async fn after(words: &'static [u8]) -> QmpError {
    let fake = Fake::play(move |mut side| async move {
        greet(&mut side).await;
        side.hear().await;
        side.say(words).await;
    });
    let (qmp, mut events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    let error = qmp.run("query-status", Value::Null, LONG).await.unwrap_err();
    assert!(events.next().await.is_none());
    assert!(qmp.has_ended());
    error
}

#[tokio::test]
async fn broken_words_end_the_connection_cleanly() {
    use QmpError::{Ended, Garbage};
    assert!(matches!(after(b"").await, Ended));
    assert!(matches!(after(b"{\"return\": {").await, Garbage(ReadError::Broken)));
    assert!(matches!(
        after(b"{\"a\": \"\xff\xfe\"}\n").await,
        Garbage(ReadError::Refused(WireError::NotText))
    ));
    assert!(matches!(after(b"no json\n").await, Ended));
    assert!(matches!(after(b"{\"return\": 1, \"return\": 2, \"id\": 1}\n").await, Ended));
    assert!(matches!(after(b"{\"event\": 1e999}\n").await, Ended));
    let deep: &'static [u8] = "[".repeat(100_000).leak().as_bytes();
    assert!(matches!(after(deep).await, Garbage(ReadError::Refused(WireError::TooDeep(64)))));
}

/// Numbers that fit no field of an answer (A12); the driver's own fields are tried beside their types, in `sign.rs`.
const MONSTROUS: [&str; 6] = ["1e999", "-1", "1e308", "18446744073709551616", "1.5", "\"NaN\""];

#[tokio::test]
async fn a_number_that_fits_no_field_is_refused_and_the_connection_stays_of_use() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        for number in MONSTROUS {
            let asked = side.hear().await.unwrap();
            side.say(format!("{{\"timestamp\": {{\"seconds\": {number}}}, \"event\": \"RESUME\"}}\n")).await;
            side.say(format!("{{\"return\": 1, \"id\": {number}}}\n")).await;
            side.say(format!("{{\"return\": {number}, \"id\": {}}}\n", asked["id"])).await;
        }
        side.until_gone().await;
    });
    let (qmp, mut events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    for (round, number) in (1..).zip(MONSTROUS) {
        let error = qmp.call::<u64>("query-status", Value::Null, LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::Odd(_)), "{number}: {error:?}");
        assert_eq!(qmp.tally().strays.load(Ordering::Relaxed), round, "{number} is no number of ours");
        assert_eq!(
            events.next().await.unwrap().name,
            "RESUME",
            "{number}: what it says of the time is not read"
        );
    }
}

#[tokio::test]
async fn a_version_that_cannot_be_is_no_qemu() {
    for number in MONSTROUS {
        let fake = Fake::play(move |mut side| async move {
            let version = format!("{{\"qemu\": {{\"major\": {number}, \"minor\": 0}}}}");
            side.say(format!("{{\"QMP\": {{\"version\": {version}}}}}\n")).await;
        });
        let error = Qmp::connect(&fake.path(), LONG).await.unwrap_err();
        assert!(matches!(error, QmpError::Odd(_)), "{number}: {error:?}");
    }
}

#[tokio::test]
async fn an_endless_message_is_cut_off_at_its_limit() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        side.hear().await;
        while side.say([b'x'; 65_536]).await {}
    });
    let (qmp, _events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    let error = qmp.run("query-status", Value::Null, LONG).await.unwrap_err();
    assert!(matches!(error, QmpError::Garbage(ReadError::Refused(WireError::TooLong(_)))), "{error:?}");
    assert!(fake.taken.load(Ordering::Relaxed) < 6 << 20);
}

#[tokio::test]
async fn an_event_flood_drowns_neither_the_answer_nor_the_shutdown() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        let asked = side.hear().await.unwrap();
        side.say("{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n").await;
        let flood = "{\"event\": \"NEW_IN_QEMU_99\", \"data\": {\"x\": [1, 2, 3]}}\n".repeat(1_000);
        for _ in 0..100 {
            side.say(&flood).await;
        }
        side.say(format!("{{\"return\": 5, \"id\": {}}}\n", asked["id"])).await;
    });
    let (qmp, mut events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    assert_eq!(qmp.call::<u8>("query-status", Value::Null, LONG).await.unwrap(), 5);
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        names.push(event.name);
    }
    assert!(names.iter().take(300).any(|name| name == "SHUTDOWN"));
    assert!(names.len() < 300, "{} events were kept", names.len());
    assert!(qmp.tally().events.load(Ordering::Relaxed) > 99_000);
}

#[tokio::test]
async fn a_stranger_under_the_socket_cannot_make_a_caller_wait_for_ever() {
    let fake = Fake::play(|mut side| async move {
        greet(&mut side).await;
        side.until_gone().await; // hears everything, answers nothing
    });
    let (qmp, _events) = Qmp::connect(&fake.path(), LONG).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let qmp = qmp.clone();
        calls.spawn(async move { qmp.run("query-status", Value::Null, SHORT).await });
    }
    for answer in calls.join_all().await {
        assert!(matches!(answer, Err(QmpError::Silent { .. })), "{answer:?}");
    }
}

#[test]
fn a_descriptor_goes_with_the_very_command_that_it_is_for() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    let hypervisor = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(format!("{GREETING}\r\n").as_bytes()).unwrap();
        let mut heard = Vec::new();
        for id in 0..4 {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 4096];
            let mut into = [std::io::IoSliceMut::new(&mut bytes)];
            let got = recvmsg(&stream, &mut into, &mut beside, RecvFlags::empty()).unwrap().bytes;
            let files = beside.drain().filter_map(|beside| {
                if let RecvAncillaryMessage::ScmRights(files) = beside { Some(files) } else { None }
            });
            let mut text = String::new();
            files.flatten().for_each(|file| drop(std::fs::File::from(file).read_to_string(&mut text)));
            let said: Value = serde_json::from_slice(&bytes[..got]).unwrap();
            heard.push((said["execute"].as_str().unwrap().to_owned(), text));
            stream.write_all(format!("{{\"return\": {{}}, \"id\": {id}}}\n").as_bytes()).unwrap();
        }
        heard
    });
    let (path, memory) = (folder.path().join("s"), folder.path().join("memory"));
    std::fs::write(&memory, "what it remembers").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (qmp, _events) = Qmp::connect(&path, LONG).await.unwrap();
        qmp.run("query-status", Value::Null, LONG).await.unwrap();
        let file = std::fs::File::open(&memory).unwrap();
        let _: Value = qmp.hand("add-fd", json!({}), file.into(), LONG).await.unwrap();
        qmp.run("query-status", Value::Null, LONG).await.unwrap();
    });
    let heard = hypervisor.join().unwrap();
    let heard: Vec<(&str, &str)> = heard.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let plain = ("query-status", "");
    assert_eq!(heard, [("qmp_capabilities", ""), plain, ("add-fd", "what it remembers"), plain]);
}
