//! Redis and what speaks its protocol (RESP 2): PING, or GET of one key.
//!
//! Written by hand: four kinds of reply are all we need, and each is bounded before it is read.

use super::connection::{Hearing, connect};
use super::{Password, Target, Trouble, compare};
use crate::config::Expect;
use holdfast_core::signal::ProbeFailure;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of one line of a reply.
const LONGEST_REPLY: usize = 4 * 1024;

/// A question to Redis.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Where.
    pub at: Target,
    /// The user to log in as (Redis 6 and newer); `None` is `default`.
    pub user: Option<String>,
    /// Its password, if it has one.
    pub password: Option<Password>,
    /// The number of the database.
    pub database: u32,
    /// The key to get; without one, PING.
    pub key: Option<String>,
    /// What the key must hold, or PING must answer (`PONG` if nothing is said).
    pub expect: Option<Expect>,
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Text(String),
    Error(String),
    Nothing,
}

impl Redis {
    pub(super) async fn ask(&self, hearing: &Arc<Hearing>) -> Result<(), Trouble> {
        let mut stream = connect(&self.at, hearing).await?;
        let (request, replies) = self.request();
        stream.write_all(&request).await.map_err(|error| hearing.broken(&error))?;
        let mut heard = Vec::new();
        let mut answer = Reply::Nothing;
        for _ in 0..replies {
            answer = loop {
                match parse(&heard).map_err(Trouble::wrong)? {
                    Some((reply, used)) => {
                        heard.drain(..used);
                        break reply;
                    }
                    None => read_more(&mut stream, &mut heard, hearing).await?,
                }
            };
            if let Reply::Error(text) = answer {
                return Err(Trouble::new(meaning(&text), text));
            }
        }
        let pong = Expect::from("PONG");
        let expected = self.expect.as_ref().or(self.key.is_none().then_some(&pong));
        let compared = match &answer {
            Reply::Text(text) => compare(expected, Some(text)),
            Reply::Nothing => compare(expected, None),
            Reply::Error(_) => Ok(()),
        };
        // A key may have run out, or been evicted: no other answer than before is a contradiction.
        compared.map_err(|trouble| Trouble::wrong(trouble.text))?;
        hearing.answered();
        Ok(())
    }

    /// All commands at once, so that a probe is one round trip; and how many replies they have.
    fn request(&self) -> (Vec<u8>, usize) {
        let mut commands: Vec<Vec<&str>> = Vec::new();
        let database = self.database.to_string();
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => commands.push(vec!["AUTH", user, &password.0]),
            (None, Some(password)) => commands.push(vec!["AUTH", &password.0]),
            (_, None) => {}
        }
        if self.database != 0 {
            commands.push(vec!["SELECT", &database]);
        }
        commands.push(self.key.as_ref().map_or_else(|| vec!["PING"], |key| vec!["GET", key]));
        let mut request = Vec::new();
        for command in &commands {
            request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for word in command {
                request.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
        }
        (request, commands.len())
    }
}

async fn read_more(
    stream: &mut super::connection::Heard,
    heard: &mut Vec<u8>,
    hearing: &Hearing,
) -> Result<(), Trouble> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece).await {
        Ok(0) => Err(hearing.broken(&std::io::Error::from(std::io::ErrorKind::UnexpectedEof))),
        Ok(count) => {
            heard.extend_from_slice(&piece[..count]);
            Ok(())
        }
        Err(error) => Err(hearing.broken(&error)),
    }
}

/// The first reply and its length; `None` while it is not all there.
fn parse(heard: &[u8]) -> Result<Option<(Reply, usize)>, &'static str> {
    let Some(end) = heard.windows(2).take(LONGEST_REPLY).position(|pair| pair == b"\r\n") else {
        return if heard.len() > LONGEST_REPLY {
            Err("not the protocol of Redis: endless line")
        } else {
            Ok(None)
        };
    };
    let (kind, line) = heard[..end].split_first().ok_or("not the protocol of Redis: empty line")?;
    let text = || String::from_utf8_lossy(line).into_owned();
    let after = end + 2;
    match kind {
        b'+' | b':' => Ok(Some((Reply::Text(text()), after))),
        b'-' => Ok(Some((Reply::Error(text()), after))),
        b'$' if line == b"-1" => Ok(Some((Reply::Nothing, after))),
        b'$' => {
            let length: usize = text().parse().map_err(|_| "not the protocol of Redis: bad length")?;
            if length as u64 > super::MOST_HEARD {
                return Err("the value is too long for a probe");
            }
            let Some(rest) = heard[after..].get(..length + 2) else { return Ok(None) };
            if !rest.ends_with(b"\r\n") {
                return Err("not the protocol of Redis: the value does not end");
            }
            let value = String::from_utf8_lossy(&rest[..length]).into_owned();
            Ok(Some((Reply::Text(value), after + length + 2)))
        }
        _ => Err("not the protocol of Redis"),
    }
}

/// What an error says of the server (redis.io, "protocol", and `src/server.c`).
fn meaning(text: &str) -> ProbeFailure {
    match text.split(' ').next() {
        Some("LOADING") => ProbeFailure::Starting,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => ProbeFailure::Denied,
        _ if text.contains("max number of clients") => ProbeFailure::Exhausted,
        _ if text.contains("invalid password") || text.contains("AUTH") => ProbeFailure::Denied,
        _ => ProbeFailure::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_taken_one_by_one() {
        let text = |text: &str| Reply::Text(text.into());
        assert_eq!(parse(b"+PONG\r\n+x"), Ok(Some((text("PONG"), 7))));
        assert_eq!(parse(b"$5\r\nhel\r\n\r\nrest"), Ok(Some((text("hel\r\n"), 11))));
        assert_eq!(parse(b":42\r\n"), Ok(Some((text("42"), 5))));
        assert_eq!(parse(b"$-1\r\n"), Ok(Some((Reply::Nothing, 5))));
        assert_eq!(parse(b"-ERR no\r\n"), Ok(Some((Reply::Error("ERR no".into()), 9))));
    }

    #[test]
    fn half_a_reply_is_waited_for() {
        for part in [&b""[..], b"+PON", b"+PONG\r", b"$5\r\n", b"$5\r\nhello", b"$5\r\nhello\r"] {
            assert_eq!(parse(part), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_at_once() {
        for wrong in [
            &b"\r\n"[..],
            b"*2147483647\r\n",
            b"%9223372036854775807\r\n",
            b"$99999999999999999999\r\n",
            b"$65537\r\n",
            b"$-2\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"$2\r\nabcd",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&[b'+'; LONGEST_REPLY + 2]).is_err());
    }

    #[test]
    fn an_error_is_understood() {
        for (text, how) in [
            ("LOADING Redis is loading the dataset in memory", ProbeFailure::Starting),
            ("NOAUTH Authentication required.", ProbeFailure::Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", ProbeFailure::Denied),
            ("ERR max number of clients reached", ProbeFailure::Exhausted),
            ("ERR Client sent AUTH, but no password is set", ProbeFailure::Denied),
            ("MISCONF Redis is configured to save RDB snapshots", ProbeFailure::Wrong),
        ] {
            assert_eq!(meaning(text), how, "{text}");
        }
    }

    #[test]
    fn a_key_cannot_smuggle_in_a_command() {
        let probe = Redis {
            at: Target { host: "127.0.0.1".into(), port: 6379 },
            user: None,
            password: Some(Password("a b\r\nc".into())),
            database: 3,
            key: Some("x\r\nFLUSHALL\r\n".into()),
            expect: None,
        };
        let expected = "*2\r\n$4\r\nAUTH\r\n$6\r\na b\r\nc\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n\
                        *2\r\n$3\r\nGET\r\n$13\r\nx\r\nFLUSHALL\r\n\r\n";
        assert_eq!(probe.request(), (expected.as_bytes().to_vec(), 3));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(heard in proptest::collection::vec(any::<u8>(), 0..6_000)) {
            if let Ok(Some((_, used))) = parse(&heard) {
                prop_assert!(used <= heard.len() && used > 0);
            }
        }
    }
}
