//! Hostile replies of a guest's agent and of a hypervisor, over real sockets. What is looked for is a panic, a caller that
//! is never told, and words that reach anybody untamed or beyond their limits (I17, I18).

#![expect(clippy::unwrap_used, reason = "tests")]

use super::agent::{Agent, AgentError, Session};
use super::qmp::Qmp;
use super::sign;
use super::untrusted::{MAX_TEXT, Text, tame};
use super::wire::{Limits, Wire};
use holdfast_fuzz::{Chance, Damage, is_usual, run, show};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

/// Nothing here waits so long.
const LONG: Duration = Duration::from_secs(20);

const WORDS: [&[u8]; 18] = [
    b"\n",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u001b[2J",
    b"\\ud800",
    b"1e999",
    b"18446744073709551615",
    b"-9223372036854775809",
    b"{\"return\":",
    b"\"error\":{\"class\":\"\\u202e\",\"desc\":\"\\u0007\"}",
    b"\"id\":0,",
    b"\"id\":null,",
    b"==",
];

/// An answer to each question, with the number of the question in place of `ID`.
const ANSWERS: [&[u8]; 9] = [
    b"{\"return\":{},\"id\":ID}\n",
    b"{\"return\":{\"id\":\"debian\",\"pretty-name\":\"Debian GNU/Linux 12\",\"kernel-release\":\"6.1\"},\"id\":ID}\n",
    b"{\"return\":[{\"mountpoint\":\"/\",\"type\":\"ext4\",\"used-bytes\":1,\"total-bytes\":2}],\"id\":ID}\n",
    b"{\"return\":[{\"name\":\"eth0\",\"hardware-address\":\"52:54\",\"ip-addresses\":[{\"ip-address\":\"::1\",\"prefix\":64}]}],\"id\":ID}\n",
    b"{\"return\":\"thawed\",\"id\":ID}\n",
    b"{\"return\":{\"pid\":7},\"id\":ID}\n",
    b"{\"return\":{\"exited\":true,\"exitcode\":0,\"out-data\":\"aGVsbG8=\",\"err-data\":\"aGVsbG8=\"},\"id\":ID}\n",
    b"{\"return\":7,\"id\":ID}\n",
    b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":ID}\n",
];
/// Answers to a seek and a read.
const PIECE: [&[u8]; 2] = [
    b"{\"return\":{\"position\":99,\"eof\":false},\"id\":ID}\n",
    b"{\"return\":{\"count\":5,\"buf-b64\":\"aGVsbG8=\",\"eof\":true},\"id\":ID}\n",
];

const DAMAGE: Damage<'_> = Damage { good: &ANSWERS, words: &WORDS, most: 1 << 14 };

/// Which answers are good ones, in order, to what is asked in [`ask`].
const TALKS: [&[&[u8]]; 7] = [
    &[ANSWERS[1]],
    &[ANSWERS[2]],
    &[ANSWERS[3]],
    &[ANSWERS[0], ANSWERS[4]],
    &[ANSWERS[5], ANSWERS[6]],
    &[ANSWERS[7], PIECE[0], PIECE[0], PIECE[1], ANSWERS[0]],
    &[ANSWERS[4]],
];

/// A socket that the test plays, for one client after the other.
struct Peer {
    _folder: tempfile::TempDir,
    path: PathBuf,
    listener: UnixListener,
}

impl Peer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        Self { _folder: folder, path, listener }
    }
}

/// Runs rounds that wait.
fn rounds(target: &str, count: u64, mut round: impl AsyncFnMut(&Peer, &mut Chance)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let peer = runtime.block_on(async { Peer::new() });
    run(target, count, |chance| {
        let ended = runtime.block_on(async { tokio::time::timeout(LONG, round(&peer, chance)).await });
        assert!(ended.is_ok(), "a caller was never told");
    });
}

fn is_tame(text: &str) {
    assert!(tame(text, usize::MAX) == text, "{text:?}");
    assert!(text.chars().count() <= 10 * MAX_TEXT + 1, "{}", text.len());
}

fn all_tame<'a>(texts: impl IntoIterator<Item = Option<&'a Text>>) {
    texts.into_iter().flatten().for_each(|text| is_tame(text.as_str()));
}

/// Asks one of the questions; whether the answer was a good one.
async fn ask(session: &mut Session<'_>, which: usize) -> Result<(), AgentError> {
    match which {
        0 => {
            let os = session.os().await?;
            all_tame([&os.id, &os.pretty_name, &os.version_id, &os.kernel_release].map(Option::as_ref));
        }
        1 => {
            let all = session.file_systems().await?;
            assert!(all.kept.len() <= 256);
            all_tame(all.kept.iter().flat_map(|one| [Some(&one.mountpoint), Some(&one.kind)]));
        }
        2 => {
            let all = session.interfaces().await?;
            assert!(all.kept.len() <= 256);
            for one in &all.kept {
                all_tame([Some(&one.name), one.hardware_address.as_ref()]);
                all_tame(one.ip_addresses.kept.iter().map(|address| Some(&address.ip_address)));
            }
        }
        3 => session.thaw().await?,
        4 => {
            let end = session.exec(&["journalctl".to_owned()]).await?;
            assert!(end.output.len() <= 64 * 1024);
        }
        5 => {
            let (_, bytes) = session.read_file_at("/var/log/app.log", 7, 1_000).await?;
            assert!(bytes.len() <= 1_000);
        }
        _ => drop(session.freeze_state().await?),
    }
    Ok(())
}

#[test]
fn fuzz_replies_of_an_agent() {
    let (mut good, mut refused, mut first) = (0, 0, 1_u32);
    rounds("agent", 2_500, async |peer, chance| {
        first += 100;
        let agent = Agent::new(&peer.path, first);
        let which = chance.below(TALKS.len());
        let mut said = Vec::new();
        for (nth, answer) in TALKS[which].iter().enumerate() {
            let number = u64::from(first) + 2 + nth as u64;
            said.extend(String::from_utf8_lossy(answer).replace("ID", &number.to_string()).into_bytes());
        }
        let mut sync = format!("\u{0}{{\"return\":{}}}\n", first + 1).into_bytes();
        sync[0] = 0xff;
        if chance.once_in(8) {
            DAMAGE.hurt(&mut sync, chance);
        }
        for _ in 0..chance.below(4) {
            DAMAGE.hurt(&mut said, chance);
        }
        let talk = async {
            let mut session = agent.session(LONG).await?;
            ask(&mut session, which).await
        };
        // All is said at once, then nothing more can come: no question waits for its limit.
        let play = async {
            let (mut stream, _) = peer.listener.accept().await.unwrap();
            let _ = stream.write_all(&[&sync[..], &said[..]].concat()).await;
            let _ = stream.shutdown().await;
            stream
        };
        let (talked, _stream) = tokio::join!(talk, play);
        match talked {
            Ok(()) => good += 1,
            Err(error) => {
                refused += 1;
                is_tame(&error.to_string());
            }
        }
    });
    assert!(!is_usual() || (good > 100 && refused > 100), "{good} {refused}");
}

const HELLO: &[u8] =
    b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":7,\"minor\":2}}}}\n{\"return\":{},\"id\":0}\n";
/// What a hypervisor says.
const SAID: [&[u8]; 8] = [
    b"{\"return\":{\"status\":\"running\"},\"id\":1}\n",
    b"{\"return\":[{\"stats\":{\"rd_operations\":1,\"wr_operations\":2,\"failed_rd_operations\":3}}],\"id\":1}\n",
    b"{\"return\":{\"last-update\":1,\"stats\":{\"stat-free-memory\":5}},\"id\":1}\n",
    b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"},\"id\":1}\n",
    b"{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n",
    b"{\"event\":\"GUEST_PANICKED\",\"data\":{\"action\":\"pause\"}}\n",
    b"{\"event\":\"BLOCK_IO_ERROR\",\"data\":{\"device\":\"d\",\"node-name\":\"n\",\"action\":\"stop\",\"nospace\":true}}\n",
    b"{\"event\":\"BLOCK_IMAGE_CORRUPTED\",\"data\":{\"device\":\"d\",\"msg\":\"m\",\"fatal\":true}}\n",
];
const OF_QEMU: Damage<'_> = Damage { good: &SAID, words: &WORDS, most: 1 << 14 };

/// Connects to a hypervisor that says this, asks it something, and takes its events; how many meant something.
async fn converse(path: &Path, which: usize) -> usize {
    let Ok((qmp, mut events)) = Qmp::connect(path, LONG).await else { return 0 };
    let told = match which {
        0 => qmp.call::<sign::Status>("query-status", ().into(), LONG).await.map(|it| {
            let _ = it.state();
        }),
        1 => qmp.call::<Vec<sign::BlockStats>>("query-blockstats", ().into(), LONG).await.map(|all| {
            let _ = sign::counters(&all, None);
        }),
        _ => qmp.call::<sign::BalloonStats>("qom-get", ().into(), LONG).await.map(|it| {
            let _ = sign::counters(&[], Some(&it));
        }),
    };
    if let Err(error) = told {
        is_tame(&error.to_string());
    }
    drop(qmp);
    let mut meant = 0;
    while let Some(event) = events.next().await {
        is_tame(&event.name);
        meant += usize::from(sign::of_event(&event).is_some());
    }
    meant
}

#[test]
fn fuzz_replies_and_events_of_a_hypervisor() {
    let mut meant = 0;
    rounds("qmp", 2_500, async |peer, chance| {
        let mut hello = HELLO.to_vec();
        if chance.once_in(8) {
            OF_QEMU.hurt(&mut hello, chance);
        }
        let (said, which) = (OF_QEMU.input(chance), chance.below(3));
        let play = async {
            let (stream, _) = peer.listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let _ = write.write_all(&hello).await;
            if !hello.ends_with(b"\n") {
                return; // or both would wait for the rest
            }
            let mut lines = BufReader::new(read).lines();
            let _capabilities = lines.next_line().await;
            if hello == HELLO {
                let _question = lines.next_line().await;
            }
            let _ = write.write_all(&[&said[..], b"\n", SAID[0]].concat()).await;
        };
        meant += tokio::join!(converse(&peer.path, which), play).0;
    });
    assert!(!is_usual() || meant > 100, "{meant}");
}

#[test]
fn fuzz_messages_on_a_wire() {
    let limits = Limits { bytes: 4_096, depth: 8, values: 100 };
    let (mut taken, mut refused) = (0, 0);
    run("wire", 5_000, |chance| {
        let input = DAMAGE.input(chance);
        let whole = messages(limits, &input, input.len().max(1));
        assert_eq!(whole, messages(limits, &input, 1 + chance.below(60)), "{}", show(&input));
        let (all, is_refused) = whole;
        assert!(all.iter().all(|message| message.len() <= limits.bytes && !message.contains('\n')));
        taken += all.len();
        refused += usize::from(is_refused);
    });
    assert!(!is_usual() || (taken > 100 && refused > 100), "{taken} {refused}");
}

/// The messages of a stream that comes in pieces of so many bytes, and whether it was given up.
fn messages(limits: Limits, input: &[u8], step: usize) -> (Vec<String>, bool) {
    let (mut wire, mut all) = (Wire::new(limits), Vec::new());
    for mut piece in input.chunks(step) {
        loop {
            match wire.take(&mut piece) {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}
