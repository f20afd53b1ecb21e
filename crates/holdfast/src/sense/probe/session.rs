//! A session with PostgreSQL that is kept for the next question, so that many numbers cost few logins.
//!
//! Whoever asks has it to himself, and leaves it to the next if the server answered. Who does not get it soon makes one of his
//! own. It is kept for [`LONGEST`] and no longer, whether it is used or not: PostgreSQL that is shut down in its `smart`
//! mode waits for its clients. Probes never use it: whether a new client is let in is what they ask.

use super::Trouble;
use super::connection::{Heard, Hearing};
use super::postgres::{Login, Postgres};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, Error};

/// A session is not kept longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Its end need not be heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// One who is logged in.
pub(super) struct Session {
    login: Login,
    pub(super) hearing: Arc<Hearing>,
    client: Client,
    /// `None` once it has ended. It is served only while something is asked.
    connection: Option<Connection<Heard, NoTlsStream>>,
    until: Instant,
    /// Somebody will close it when its time is over.
    watched: bool,
}

impl Session {
    pub(super) async fn open(postgres: &Postgres, hearing: &Arc<Hearing>) -> Result<Self, Trouble> {
        let (client, connection) = postgres.login(hearing).await?;
        let (login, hearing) = (postgres.as_login(), Arc::clone(hearing));
        let until = Instant::now() + LONGEST;
        Ok(Self { login, hearing, client, connection: Some(connection), until, watched: false })
    }

    /// Says something, and serves the connection meanwhile.
    pub(super) async fn converse<T>(&mut self, say: impl AsyncFnOnce(&Client) -> T) -> T {
        let mut say = pin!(say(&self.client));
        let connection = &mut self.connection;
        poll_fn(|cx| {
            serve(connection, cx);
            say.as_mut().poll(cx)
        })
        .await
    }

    /// What the last question may have left behind is swept away; `None` if that cannot be done, or in time.
    async fn swept(mut self, limit: Duration) -> Option<Self> {
        self.hearing.anew();
        let sweep = self.converse(async |client: &Client| client.simple_query("discard all").await);
        match tokio::time::timeout(limit, sweep).await {
            Ok(Ok(_)) => Some(self),
            Ok(Err(_refused)) => {
                self.close().await;
                None
            }
            Err(_late) => None,
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let Self { client, connection, .. } = self;
        drop(client);
        if let Some(connection) = connection {
            let _nobody_cares: Result<Result<(), Error>, _> =
                tokio::time::timeout(FAREWELL, connection).await;
        }
    }

    fn is_over(&self) -> bool {
        self.connection.is_none() || self.until <= Instant::now()
    }
}

/// What has ended is dropped, so that whoever waits for an answer learns it.
fn serve(connection: &mut Option<Connection<Heard, NoTlsStream>>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|open| Pin::new(open).poll(cx).is_ready()) {
        *connection = None;
    }
}

type Place = Mutex<Option<Session>>;

/// Where the session with one application is kept, for all who ask it.
#[derive(Clone, Default)]
pub struct KeptSession(Arc<Place>);

/// Nobody else has the session meanwhile.
pub(super) struct Turn(OwnedMutexGuard<Option<Session>>);

impl KeptSession {
    /// `None` if others have it for too long.
    pub(super) async fn turn(&self, limit: Duration) -> Option<Turn> {
        let place = tokio::time::timeout(limit, Arc::clone(&self.0).lock_owned()).await;
        place.ok().map(Turn)
    }
}

impl Turn {
    /// The session, if there is one for this login that still answers.
    pub(super) async fn take(&mut self, postgres: &Postgres, limit: Duration) -> Option<Session> {
        let session = self.0.take()?;
        let fits = !session.is_over() && session.login == postgres.as_login();
        if fits { session.swept(limit).await } else { None }
    }

    /// Leaves the session to the next.
    pub(super) fn leave(mut self, mut session: Session) {
        if !std::mem::replace(&mut session.watched, true) {
            tokio::spawn(close_at(session.until, Arc::downgrade(OwnedMutexGuard::mutex(&self.0))));
        }
        *self.0 = Some(session);
    }
}

/// Closes what is over by then.
async fn close_at(until: Instant, place: Weak<Place>) {
    tokio::time::sleep_until(until.into()).await;
    let Some(place) = place.upgrade() else { return };
    let over = place.lock().await.take_if(|session| session.is_over());
    if let Some(session) = over {
        session.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Manner};
    use super::super::{Probe, answer};
    use super::*;

    const AMPLE: Duration = Duration::from_secs(30);

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("it is short");
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn done(tag: &str) -> Vec<u8> {
        [message(b'C', format!("{tag}\0").as_bytes()), message(b'Z', b"I")].concat()
    }

    fn login() -> Vec<u8> {
        [message(b'R', &[0; 4]), message(b'Z', b"I")].concat()
    }

    fn row(value: &str) -> Vec<u8> {
        let described = [&1_u16.to_be_bytes()[..], b"n\0", &[0; 18]].concat();
        let length = u32::try_from(value.len()).expect("it is short");
        let data = [&1_u16.to_be_bytes()[..], &length.to_be_bytes(), value.as_bytes()].concat();
        [message(b'T', &described), message(b'D', &data), done("SELECT 1")].concat()
    }

    fn refused(code: &str) -> Vec<u8> {
        let said = message(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes());
        [said, message(b'Z', b"I")].concat()
    }

    /// What a server says to each who logs in.
    async fn server(says: Vec<Vec<u8>>) -> (Fake, Postgres) {
        let server = Fake::start(Manner::Converse(says)).await;
        let (user, database, query) = ("postgres".into(), "postgres".into(), "select n".into());
        let at = server.target();
        (
            server,
            Postgres { at, user, password: None, database, query, expect: None, write: false, written: None },
        )
    }

    async fn asked(postgres: &Postgres, kept: Option<&KeptSession>) -> String {
        answer(&Probe::Postgres(postgres.clone()), kept, AMPLE).await.expect("it answers")
    }

    #[tokio::test]
    async fn the_next_question_is_asked_in_the_same_session_and_in_another_once_that_is_gone() {
        let first = [login(), done("SET"), row("1")];
        let second = [done("DISCARD ALL"), done("SET"), row("2")];
        let (_server, postgres) = server([first, second].concat()).await; // then it closes the connection
        let kept = KeptSession::default();
        for value in ["1", "2", "1", "2"] {
            assert_eq!(asked(&postgres, Some(&kept)).await, value);
        }
        assert_eq!(asked(&postgres, None).await, "1", "a session of its own");
        let other = Postgres { user: "other".into(), ..postgres };
        assert_eq!(asked(&other, Some(&kept)).await, "1", "nobody is taken for another");
    }

    #[tokio::test]
    async fn a_session_that_is_mute_or_cannot_be_swept_is_left_for_another() {
        for swept in [Vec::new(), refused("25001")] {
            let (_server, postgres) = server(vec![login(), done("SET"), row("1"), swept, row("2")]).await;
            let kept = KeptSession::default();
            let question = Probe::Postgres(postgres);
            for _ in 0..2 {
                let limit = Duration::from_secs(8);
                assert_eq!(answer(&question, Some(&kept), limit).await, Ok("1".to_owned()));
            }
        }
    }

    #[tokio::test]
    async fn an_error_of_the_server_costs_no_session_and_a_broken_one_is_not_kept() {
        let refuses = [login(), done("SET"), refused("42P01")];
        let (_server, postgres) = server([&refuses[..], &[done("DISCARD ALL"), done("SET")]].concat()).await;
        let (kept, question) = (KeptSession::default(), Probe::Postgres(postgres));
        let why = answer(&question, Some(&kept), AMPLE).await.expect_err("it is refused");
        assert_eq!(why, "ERROR: no (42P01)");
        assert!(kept.0.lock().await.is_some());
        let why = answer(&question, Some(&kept), AMPLE).await.expect_err("it is closed");
        assert!(why.starts_with("closed the connection after "), "{why}");
        assert!(kept.0.lock().await.is_none());
    }

    #[tokio::test]
    async fn nobody_waits_long_for_one_who_is_slow() {
        let (_server, postgres) = server(vec![login(), done("SET"), row("1")]).await;
        let kept = KeptSession::default();
        let slow = kept.turn(AMPLE).await;
        assert!(slow.is_some());
        let limit = Duration::from_secs(8);
        assert_eq!(answer(&Probe::Postgres(postgres), Some(&kept), limit).await, Ok("1".to_owned()));
        drop(slow);
        assert!(kept.0.lock().await.is_none(), "a session of its own is not left");
    }

    #[tokio::test]
    async fn a_session_is_not_kept_for_ever_so_that_a_server_can_be_shut_down() {
        let (_server, postgres) = server(vec![login()]).await;
        let kept = KeptSession::default();
        let mut session = Session::open(&postgres, &Hearing::new()).await.expect("it lets us in");
        session.until = Instant::now() + Duration::from_millis(500);
        kept.turn(AMPLE).await.expect("nobody has it").leave(session);
        let gone = async {
            while kept.0.lock().await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(AMPLE, gone).await.expect("it is closed when its time is over");
    }
}
