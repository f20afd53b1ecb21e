//! A11 to A17 of SAFETY.md: a guest agent that lies, shouts, mumbles, or says nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Fake, Side};
use holdfast_drivers::qemu::agent::{Agent, AgentError, Freeze, Session};
use holdfast_drivers::qemu::snapshot::freeze::{FreezeError, while_frozen};
use holdfast_drivers::qemu::wire::{ReadError, WireError};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20); // no test waits so long; it only keeps one from hanging
const SHORT: Duration = Duration::from_millis(250);

/// Answers the sync of a new client as a real agent does.
async fn sync(side: &mut Side) -> Option<()> {
    let asked = side.hear().await?;
    assert_eq!(asked["execute"], "guest-sync-delimited");
    side.say(b"\xff").await;
    side.say(format!("{{\"return\": {}}}\n", asked["arguments"]["id"])).await;
    Some(())
}

/// An agent that syncs well and then gives these answers, one a question.
fn agent(answers: &[&str]) -> (Fake, Agent) {
    let answers: Vec<String> = answers.iter().map(|&a| a.to_owned()).collect();
    let fake = Fake::play(move |mut side| {
        let mut answers = VecDeque::from(answers.clone());
        async move {
            if sync(&mut side).await.is_none() {
                return;
            }
            while let Some(asked) = side.hear().await {
                let Some(answer) = answers.pop_front() else { continue };
                side.say(answer.replace("ID", &asked["id"].to_string())).await;
                side.say("\n").await;
            }
        }
    });
    let agent = Agent::new(fake.path(), 1_000);
    (fake, agent)
}

#[tokio::test]
async fn an_honest_agent_is_understood() {
    let (_fake, agent) = agent(&[
        r#"{"return": {}}"#,
        r#"{"return": {"id": "debian", "version-id": "12", "pretty-name": "Debian \u001b[1m", "new": [1]}}"#,
        r#"{"return": [{"name": "vda", "mountpoint": "/", "type": "ext4", "used-bytes": 5, "total-bytes": 9, "disk": []}]}"#,
        r#"{"return": {"pid": 9}, "id": ID}"#,
        r#"{"return": {"exited": false}, "id": ID}"#,
        r#"{"return": {"exited": true, "exitcode": 3, "out-data": "aGVsbG8=", "err-data": "IQ=="}, "id": ID}"#,
    ]);
    let mut session = agent.session(LONG).await.unwrap();
    session.ping().await.unwrap();
    let os = session.os().await.unwrap();
    assert_eq!(os.pretty_name.unwrap().as_str(), "Debian \\u{1b}[1m");
    let fs = session.file_systems().await.unwrap();
    assert_eq!((fs.kept[0].mountpoint.as_str(), fs.kept[0].used_bytes), ("/", Some(5)));
    let end = session.exec(&["/bin/true".into()]).await.unwrap();
    assert_eq!((end.code, end.output.as_slice()), (Some(3), b"hello!".as_slice()));
}

#[tokio::test]
async fn what_others_left_in_the_pipe_is_no_answer_to_us() {
    let fake = Fake::play(|mut side| async move {
        // A13: the end of a long answer to a client before us, an old sync, a reply to nobody.
        side.say(vec![b'x'; 100_000]).await;
        side.say(b"\"}}\n\xff{\"return\": 17}\n{\"return\": \"old\"}\n").await;
        sync(&mut side).await;
        let asked = side.hear().await.unwrap();
        side.say(format!("{{\"return\": \"thawed\", \"id\": {}}}\n", asked["id"].as_u64().unwrap() - 1))
            .await;
        side.say(format!("{{\"return\": \"frozen\", \"id\": {}}}\n", asked["id"])).await;
        side.until_gone().await;
    });
    let agent = Agent::new(fake.path(), 1_000);
    let mut session = agent.session(LONG).await.unwrap();
    assert_eq!(session.freeze_state().await.unwrap(), Freeze::Frozen);
}

#[tokio::test]
async fn an_agent_that_answers_everything_but_us_is_given_up() {
    let fake = Fake::play(|mut side| async move {
        side.hear().await;
        while side.say(b"\xff{\"return\": 3}\n").await {}
    });
    let agent = Agent::new(fake.path(), 1_000);
    let error = agent.session(LONG).await.unwrap_err();
    assert!(matches!(error, AgentError::Absurd(_)), "{error:?}");
}

#[tokio::test]
async fn a_gibibyte_without_an_end_of_line_is_cut_off_at_its_limit() {
    let shout = |marked: bool| {
        Fake::play(move |mut side| async move {
            if marked {
                sync(&mut side).await;
                side.hear().await;
            }
            for _ in 0..1 << 14 {
                if !side.say(vec![b'x'; 1 << 16]).await {
                    return;
                }
            }
        })
    };
    let fake = shout(true); // A11
    let agent = Agent::new(fake.path(), 1_000);
    let error = agent.session(LONG).await.unwrap().ping().await.unwrap_err();
    assert!(matches!(error, AgentError::Garbage(ReadError::Refused(WireError::TooLong(_)))), "{error:?}");
    assert!(fake.taken.load(Ordering::Relaxed) < 3 << 20);
    let fake = shout(false); // the same before the sync
    let error = Agent::new(fake.path(), 1_000).session(LONG).await.unwrap_err();
    assert!(matches!(error, AgentError::Garbage(ReadError::Refused(WireError::TooLong(_)))), "{error:?}");
    assert!(fake.taken.load(Ordering::Relaxed) < 4 << 20);
}

#[tokio::test]
async fn monstrous_json_is_refused() {
    let deep = format!("{{\"return\": {}", "[".repeat(100_000)); // A12
    let many = format!("{{\"return\": [{}]}}", "1,".repeat(60_000));
    for (answer, what) in [(deep.as_str(), WireError::TooDeep(64)), (&many, WireError::TooMany(50_000))] {
        let (_fake, agent) = agent(&[answer]);
        let error = agent.session(LONG).await.unwrap().file_systems().await.unwrap_err();
        assert!(matches!(&error, AgentError::Garbage(ReadError::Refused(e)) if *e == what), "{error:?}");
    }
    for answer in [
        r#"{"return": "thawed", "return": "frozen"}"#,
        r#"{"return": 1e999}"#,
        r#"{"return": 7}"#,
        r#"{"return": {"thawed": "frozen"}}"#,
        r#"{"return": "half"#,
        "[]",
        "\u{0}",
    ] {
        let (_fake, agent) = agent(&[answer]);
        let error = agent.session(LONG).await.unwrap().freeze_state().await.unwrap_err();
        assert!(matches!(error, AgentError::Odd(_)), "{answer}: {error:?}");
    }
}

/// Numbers that fit no field of an answer (A12).
const MONSTROUS: [&str; 8] =
    ["1e999", "-1e999", "1e308", "18446744073709551616", "-9223372036854775809", "1.5", "NaN", "\"NaN\""];

/// Whether `ask` refuses the answer of this form with each of these numbers for its NUMBER, and goes on to ask.
async fn is_refused<T: std::fmt::Debug>(
    form: &[&str],
    numbers: &[&str],
    ask: impl AsyncFn(&mut Session<'_>) -> Result<T, AgentError>,
) {
    for number in numbers {
        let answers: Vec<String> = form.iter().map(|answer| answer.replace("NUMBER", number)).collect();
        let answers: Vec<&str> = answers.iter().map(String::as_str).chain([r#"{"return": {}}"#]).collect();
        let (_fake, agent) = agent(&answers);
        let mut session = agent.session(LONG).await.unwrap();
        let error = ask(&mut session).await.unwrap_err();
        assert!(matches!(error, AgentError::Odd(_)), "{answers:?}: {error:?}");
        session.ping().await.unwrap();
    }
}

#[tokio::test]
async fn numbers_that_fit_no_field_are_refused() {
    let counts = [&MONSTROUS[..], &["-1"]].concat(); // what is counted is never negative
    let system = |used: &str, total: &str| {
        format!(r#"{{"return": [{{"mountpoint": "/", "used-bytes": {used}, "total-bytes": {total}}}]}}"#)
    };
    for form in [system("NUMBER", "9"), system("9", "NUMBER")] {
        is_refused(&[&form], &counts, async |session| session.file_systems().await).await;
    }
    let card = r#"{"return": [{"name": "lo", "ip-addresses": [{"ip-address": "::1", "prefix": NUMBER}]}]}"#;
    is_refused(&[card], &counts, async |session| session.interfaces().await).await;
    is_refused(&[r#"{"return": NUMBER}"#], &counts, async |session| session.freeze().await).await;
    let (opened, seeked) = (r#"{"return": 5}"#, r#"{"return": {"position": NUMBER, "eof": false}}"#);
    is_refused(&[opened, seeked], &counts, async |session| session.read_file_at("/a", 7, 60).await).await;
    is_refused(&[r#"{"return": NUMBER}"#], &MONSTROUS, async |session| session.read_file("/a", 9).await)
        .await;
    let started = r#"{"return": {"pid": NUMBER}}"#;
    is_refused(&[started], &MONSTROUS, async |session| session.begin(&["x".into()], true).await).await;
    let ended = r#"{"return": {"exited": true, "exitcode": NUMBER}}"#;
    is_refused(&[ended], &MONSTROUS, async |session| session.ended(7).await).await;
    let (_fake, greatest) = agent(&[&system("18446744073709551615", "1")]);
    let told = greatest.session(LONG).await.unwrap().file_systems().await.unwrap();
    assert_eq!((told.kept[0].used_bytes, told.kept[0].total_bytes), (Some(u64::MAX), Some(1)));
}

#[tokio::test]
async fn one_byte_at_a_time_does_not_stretch_the_limit() {
    let fake = Fake::play(|mut side| async move {
        sync(&mut side).await; // A14
        side.hear().await;
        while side.say(b" ").await {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let agent = Agent::new(fake.path(), 1_000);
    let mut session = agent.session(SHORT).await.unwrap();
    assert!(matches!(session.ping().await.unwrap_err(), AgentError::Silent(_)));
}

#[tokio::test]
async fn an_agent_that_is_away_is_silent_not_an_error_of_ours() {
    let fake = Fake::play(|mut side| async move { side.until_gone().await });
    let error = Agent::new(fake.path(), 1_000).session(SHORT).await.unwrap_err();
    assert!(matches!(error, AgentError::Silent(_)), "{error:?}");
}

#[tokio::test]
async fn file_systems_and_interfaces_by_the_thousand_become_a_few_printable_ones() {
    let fs = r#"{"name": "a", "mountpoint": "/\u001b]0;x\u0007", "type": "ext4"}"#; // A15
    let nic = r#"{"name": "\u202eeth0", "ip-addresses": []}"#;
    let answers = [
        format!(r#"{{"return": [{}]}}"#, vec![fs; 5_000].join(",")),
        format!(r#"{{"return": [{}]}}"#, vec![nic; 3_000].join(",")),
    ];
    let (_fake, agent) = agent(&[&answers[0], &answers[1]]);
    let mut session = agent.session(LONG).await.unwrap();
    let all = session.file_systems().await.unwrap();
    assert_eq!((all.kept.len(), all.left_out), (256, 4_744));
    assert_eq!(all.kept[0].mountpoint.as_str(), "/\\u{1b}]0;x\\u{7}");
    let all = session.interfaces().await.unwrap();
    assert_eq!((all.kept.len(), all.left_out), (256, 2_744));
    assert_eq!(all.kept[0].name.as_str(), "\\u{202e}eth0");
}

/// An address is a text: `tidy` sees to it that there is nothing in this crate that could dial one. That nobody else
/// does is tried with listeners in the real tests.
#[tokio::test]
async fn addresses_that_must_never_be_dialled_are_texts_cut_and_counted() {
    let claimed = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.9",
        "0.0.0.0",
        "169.254.169.254",
        "fd00:ec2::254",
        "10.0.2.16",
        "127.0.0.9:5432",
        "http://169.254.169.254/latest",
        "$(reboot)",
        "\u{1b}]0;x\u{7}",
    ]; // A16: loopback, metadata service, another VM, and what is no address
    let addresses = claimed.map(|address| json!({ "ip-address": address, "prefix": 8 }));
    let many = vec![json!({ "ip-address": "127.0.0.1" }); 5_000];
    let cards = json!({ "return": [
        { "name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": addresses },
        { "name": "eth0", "ip-addresses": many },
    ]});
    let (_fake, agent) = agent(&[&cards.to_string()]);
    let told = agent.session(LONG).await.unwrap().interfaces().await.unwrap();
    let texts: Vec<&str> =
        told.kept[0].ip_addresses.kept.iter().map(|address| address.ip_address.as_str()).collect();
    assert_eq!(texts[..10], claimed[..10]);
    assert_eq!(texts[10], "\\u{1b}]0;x\\u{7}");
    let crowd = &told.kept[1].ip_addresses;
    assert_eq!((crowd.kept.len(), crowd.left_out), (64, 4_936));
}

#[tokio::test]
async fn a_freeze_of_nothing_and_a_thaw_that_never_ends_are_told() {
    let (_fake, lying) = agent(&[r#"{"return": 0}"#]); // A17
    let error = lying.session(LONG).await.unwrap().freeze().await.unwrap_err();
    assert_eq!(error.to_string(), "the guest agent froze nothing");
    let (_fake, mute) = agent(&[]);
    let error = mute.session(SHORT).await.unwrap().thaw().await.unwrap_err();
    assert!(matches!(error, AgentError::Silent(_)) && error.is_unknown(), "{error:?}");
    let round = [r#"{"return": 1}"#, r#"{"return": "frozen"}"#].repeat(3);
    let (_fake, stubborn) = agent(&round);
    let error = stubborn.session(LONG).await.unwrap().thaw().await.unwrap_err();
    assert_eq!(error.to_string(), "the guest agent thaws and stays frozen");
}

#[tokio::test]
async fn endless_command_output_is_cut_or_refused() {
    let output = "QUFB".repeat(40_000);
    let end = json!({ "return": { "exited": true, "exitcode": 0, "out-data": output, "err-data": output } });
    let (_fake, talky) = agent(&[r#"{"return": {"pid": 1}}"#, &end.to_string()]);
    let end = talky.session(LONG).await.unwrap().exec(&["x".into()]).await.unwrap();
    assert_eq!(end.output.len(), 65_536);
    let running = [r#"{"return": {"pid": 1}}"#].into_iter().chain([r#"{"return": {"exited": false}}"#; 99]);
    let (_fake, endless) = agent(&running.collect::<Vec<_>>());
    let error = endless.session(SHORT).await.unwrap().exec(&["x".into()]).await.unwrap_err();
    assert!(matches!(error, AgentError::Silent(_)), "{error:?}");
}

#[tokio::test]
async fn a_file_that_never_ends_is_read_up_to_its_limit() {
    let chunk = json!({ "return": { "count": 3, "buf-b64": "QUFB", "eof": false } }).to_string();
    let answers: Vec<&str> =
        [r#"{"return": 5}"#].into_iter().chain([chunk.as_str(); 99]).chain([r#"{"return": {}}"#]).collect();
    let (_fake, agent) = agent(&answers);
    let content = agent.session(LONG).await.unwrap().read_file("/proc/meminfo", 100).await.unwrap();
    assert_eq!(content.len(), 100);
}

#[tokio::test]
async fn a_piece_of_a_file_is_bounded_whatever_the_guest_says_of_its_size() {
    let chunk = json!({ "return": { "count": 3, "buf-b64": "QUFB", "eof": false } }).to_string();
    let seek = |to: &str| format!(r#"{{"return": {{"position": {to}, "eof": false}}}}"#);
    let (open, end, set) = (r#"{"return": 5}"#, seek("18446744073709551615"), seek("7"));
    let answers: Vec<&str> =
        [open, &end, &set].into_iter().chain([chunk.as_str(); 20]).chain([r#"{"return": {}}"#]).collect();
    let (_fake, liar) = agent(&answers);
    let (size, bytes) = liar.session(LONG).await.unwrap().read_file_at("/var/log/a", 7, 60).await.unwrap();
    assert_eq!((size, bytes.len()), (u64::MAX, 60));
    let (_fake, short) = agent(&[open, &seek("6"), r#"{"return": {}}"#]);
    let found = short.session(LONG).await.unwrap().read_file_at("/var/log/a", 7, 60).await.unwrap();
    assert_eq!(found, (6, Vec::new()), "what lies behind the end is not asked for");
    let (_fake, odd) = agent(&[open, &seek("-1")]);
    let error = odd.session(LONG).await.unwrap().read_file_at("/var/log/a", 7, 60).await.unwrap_err();
    assert!(matches!(error, AgentError::Odd(_)), "{error:?}");
}

#[tokio::test]
async fn a_command_is_begun_and_asked_after_until_it_ends() {
    let running = r#"{"return": {"exited": false}}"#;
    let ended = r#"{"return": {"exited": true, "exitcode": 2, "out-data": "aGVsbG8=", "err-data": "IQ=="}}"#;
    let (_fake, agent) = agent(&[r#"{"return": {"pid": 7}}"#, running, ended]);
    let mut session = agent.session(LONG).await.unwrap();
    let pid = session.begin(&["x".into()], true).await.unwrap();
    assert_eq!(session.ended(pid).await.unwrap(), None);
    let end = session.ended(pid).await.unwrap().unwrap();
    assert_eq!((pid, end.code, end.output.as_slice()), (7, Some(2), &b"hello!"[..]));
}

#[tokio::test]
async fn between_two_sessions_the_socket_is_free_for_others() {
    let (fake, agent) = agent(&[r#"{"return": {}}"#]);
    for _ in 0..3 {
        agent.session(LONG).await.unwrap().ping().await.unwrap();
        let other = Agent::new(fake.path(), 7); // the fake serves one client at a time, as QEMU does
        other.session(LONG).await.unwrap().ping().await.unwrap();
    }
    let mut session = agent.session(LONG).await.unwrap();
    session.call::<Value>("guest-ping", Value::Null).await.unwrap();
    let second = Agent::new(fake.path(), 9);
    assert!(matches!(second.session(SHORT).await.unwrap_err(), AgentError::Silent(_)));
}

/// An agent that answers each command by its name; what it has no answer for it does not hear. Counts the thaws.
fn agent_that(
    answer: impl Fn(&str, usize) -> Option<&'static str> + Clone + Send + Sync + 'static,
) -> (Fake, Agent, Count) {
    let thaws = Count::default();
    let counted = thaws.clone();
    let fake = Fake::play(move |mut side| {
        let (answer, counted) = (answer.clone(), counted.clone());
        async move {
            if sync(&mut side).await.is_none() {
                return;
            }
            while let Some(asked) = side.hear().await {
                let command = asked["execute"].as_str().unwrap_or_default().to_owned();
                if command == "guest-fsfreeze-thaw" {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let Some(answer) = answer(&command, counted.load(Ordering::Relaxed)) else { continue };
                side.say(format!("{{{answer}, \"id\": {}}}\n", asked["id"])).await;
            }
        }
    });
    let agent = Agent::new(fake.path(), 1_000);
    (fake, agent, thaws)
}

type Count = std::sync::Arc<std::sync::atomic::AtomicUsize>;

async fn freeze<T>(agent: &Agent, most: Duration, work: impl Future<Output = T>) -> Result<T, FreezeError> {
    let session = agent.session(LONG).await.unwrap();
    while_frozen(agent, session, most, work, || true).await
}

const REFUSED: &str = r#""error": {"class": "GenericError", "desc": "busy"}"#;

#[tokio::test]
async fn a_guest_that_stays_frozen_is_thawed_until_it_says_that_it_is() {
    let (_fake, agent, thaws) = agent_that(|command, thaws| match command {
        "guest-fsfreeze-freeze" => Some(r#""return": 1"#), // I16
        "guest-fsfreeze-thaw" if thaws == 1 => Some(REFUSED),
        "guest-fsfreeze-thaw" if thaws == 2 => None,
        "guest-fsfreeze-thaw" => Some(r#""return": 0"#),
        "guest-fsfreeze-status" if thaws < 5 => Some(r#""return": "frozen""#),
        "guest-fsfreeze-status" => Some(r#""return": "thawed""#),
        _ => None,
    });
    let done = freeze(&agent, LONG, async { thaws.load(Ordering::Relaxed) }).await;
    assert_eq!(done.unwrap(), 0, "it was done while the guest was frozen");
    assert_eq!(thaws.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn work_that_never_ends_leaves_no_guest_frozen() {
    let (_fake, agent, thaws) = agent_that(|command, thaws| match command {
        "guest-fsfreeze-freeze" => Some(r#""return": 1"#), // I16
        "guest-fsfreeze-thaw" => Some(r#""return": 1"#),
        "guest-fsfreeze-status" if thaws > 0 => Some(r#""return": "thawed""#),
        _ => None,
    });
    let done = freeze(&agent, SHORT, std::future::pending::<()>()).await;
    assert!(matches!(done, Err(FreezeError::Late(_))), "{done:?}");
    assert_eq!(thaws.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_is_done_to_a_guest_that_is_not_frozen() {
    for (answer, thawed) in [(Some(REFUSED), 0), (None, 1), (Some(r#""return": 0"#), 1)] {
        let (_fake, agent, thaws) = agent_that(move |command, thaws| match command {
            "guest-fsfreeze-freeze" => answer, // A17: it says that it froze nothing
            "guest-fsfreeze-thaw" => Some(r#""return": 0"#),
            "guest-fsfreeze-status" if thaws > 0 => Some(r#""return": "thawed""#),
            _ => None,
        });
        let mut is_done = false;
        let done = freeze(&agent, SHORT, async { is_done = true }).await;
        assert!(matches!(done, Err(FreezeError::NotFrozen(_))), "{done:?}");
        assert!(!is_done);
        assert_eq!(thaws.load(Ordering::Relaxed), thawed, "{answer:?}");
    }
}
