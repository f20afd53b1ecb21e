//! Every kind of probe against servers that misbehave, and against real ones.
#![expect(clippy::unwrap_used, reason = "tests")]

mod hostile;
mod real;

use super::*;

/// Long enough for a busy machine, for what must end by itself.
const AMPLE: Duration = Duration::from_secs(30);
/// Short, for what can only end by its limit.
const SHORT: Duration = Duration::from_millis(300);

fn postgres(at: Target) -> Probe {
    Probe::Postgres(Postgres {
        at,
        user: "postgres".into(),
        password: None,
        database: "postgres".into(),
        query: postgres::QUERY.into(),
        expect: None,
        write: false,
        written: None,
    })
}

fn mysql(at: Target) -> Probe {
    Probe::Mysql(Mysql {
        at,
        user: "root".into(),
        password: None,
        database: None,
        query: mysql::QUERY.into(),
        expect: None,
    })
}

fn redis(at: Target) -> Probe {
    Probe::Redis(Redis { at, user: None, password: None, database: 0, key: None, expect: None })
}

fn http(at: Target) -> Http {
    Http { at, tls: None, name: "localhost".into(), path: "/".into(), status: None, contains: None }
}

fn banner(at: Target, banner: &str) -> Probe {
    Probe::Tcp(Tcp { at, banner: Some(banner.into()) })
}

/// All kinds that wait for a byte.
fn all(at: &Target) -> Vec<Probe> {
    let at = || at.clone();
    let secure = Http { tls: Some(Tls::public().unwrap()), ..http(at()) };
    vec![
        postgres(at()),
        mysql(at()),
        redis(at()),
        Probe::Http(http(at())),
        Probe::Http(secure),
        banner(at(), "220 "),
    ]
}

/// Asks, with a guard for the promise that a probe ends by its limit.
async fn ask(probe: &Probe, limit: Duration) -> AppSign {
    tokio::time::timeout(2 * AMPLE, super::probe(probe, limit)).await.expect("a probe ends by its limit")
}

async fn failure(probe: &Probe, limit: Duration) -> (ProbeFailure, String) {
    match ask(probe, limit).await {
        AppSign::Failed { how, text } => {
            assert!(text.chars().count() <= 256, "{text}");
            (how, text)
        }
        AppSign::Answered { .. } => panic!("{probe:?} was answered"),
    }
}

async fn answered(probe: &Probe) {
    match ask(probe, AMPLE).await {
        AppSign::Answered { latency } => assert!(latency <= AMPLE),
        AppSign::Failed { how, text } => panic!("{probe:?}: {how:?}, {text}"),
    }
}
