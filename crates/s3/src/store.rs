//! Objects in a bucket. What a repository asks is asked of many threads, which wait; a small runtime of its own does the talking.

use crate::access::Access;
use crate::bucket::Bucket;
use crate::client;
use crate::failure::{Away, Failure};
use futures_util::TryStreamExt;
use holdfast_backup::store::{Store, is_name};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// Threads that talk: those who wait have their own.
const THREADS: usize = 2;
/// What shows that a store replaces nothing: an object that is there, and put again. It belongs to nobody.
const WITNESS: &str = "tmp/put-once";
/// What lies here does not count.
const NOBODYS: &str = "tmp/";
/// How often a put is tried where the store says that another one of the same name is under way.
const TRIES: u32 = 6;
/// More objects are not listed.
const LISTED_MOST: usize = 1 << 24;
/// Reads from the beginning that are longer have no range: an object is then read whole, also if it is empty.
const WHOLE: usize = 1 << 20;
/// How long a read of a part of an object may take.
#[derive(Clone, Copy)]
struct Patience {
    /// With all that is tried again: a guest may be waiting for it, and is better paused than hung.
    part: Duration,
    /// The same where nothing was heard of the store since it was found to be away.
    away: Duration,
    /// So soon after that it is away still, and is not asked.
    still: Duration,
}

const PATIENCE: Patience =
    Patience { part: Duration::from_secs(60), away: Duration::from_secs(3), still: Duration::from_secs(2) };

/// A part of a bucket.
pub struct S3 {
    client: AmazonS3,
    prefix: String,
    /// Where it is, for people.
    place: String,
    /// It was seen that the store replaces nothing.
    is_proven: Mutex<bool>,
    /// Whether it can be reached, as those who read parts of objects find.
    reach: Arc<Reach>,
    /// Here until the end.
    runtime: Option<Runtime>,
}

impl S3 {
    /// This part of this bucket. Nothing is asked of the store yet.
    ///
    /// # Errors
    /// If what is known of it is of no use, or there are no more threads.
    pub fn open(bucket: &Bucket, access: &Access) -> io::Result<Self> {
        let place = format!("the store ({})", access.shown());
        let client = client::connect(access, bucket).map_err(|error| Failure::of(&place, &error))?;
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("s3").enable_all().build()?;
        let (prefix, runtime) = (bucket.prefix.clone(), Some(runtime));
        let reach = Arc::new(Reach::new(PATIENCE));
        Ok(Self { client, prefix, place, is_proven: Mutex::default(), reach, runtime })
    }

    /// Whether there is nothing yet.
    ///
    /// # Errors
    /// Anything that a network or a store can say.
    pub fn is_empty(&self) -> io::Result<bool> {
        let (client, prefix) = (self.client.clone(), Path::from(&self.prefix[..]));
        let nobodys = Path::from(format!("{prefix}/{NOBODYS}"));
        let first = self.wait(async move {
            let mut all = client.list(Some(&prefix));
            while let Some(found) = all.try_next().await? {
                if !found.location.prefix_matches(&nobodys) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        self.told(first)
    }

    fn path(&self, name: &str) -> io::Result<Path> {
        let wrong = || io::Error::new(ErrorKind::InvalidInput, format!("`{name}` is no name of an object"));
        is_name(name).then(|| Path::from(format!("{}/{name}", self.prefix))).ok_or_else(wrong)
    }

    /// Waits for an answer. The thread that waits may be one of another runtime: it is not driven here.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (tell, told) = mpsc::sync_channel(1);
        self.runtime.as_ref()?.spawn(async move {
            let _ = tell.send(work.await); // nobody waits for it any more
        });
        told.recv().ok()
    }

    fn told<T>(&self, answer: Option<Result<T, Error>>) -> io::Result<T> {
        let answer = answer.ok_or_else(|| Failure::other("what talks to the store has ended".into()))?;
        answer.map_err(|error| Failure::of(&self.place, &error).into())
    }

    /// Sees once, before anything is put, that the store replaces nothing.
    fn prove(&self) -> io::Result<()> {
        let mut is_proven = self.is_proven.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_proven {
            let (client, path) = (self.client.clone(), self.path(WITNESS)?);
            if !self.told(self.wait(async move { replaces_nothing(&client, &path).await }))? {
                return Err(Failure::replaces(&self.place));
            }
            *is_proven = true;
        }
        Ok(())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It waits for nothing: this may be a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether an object that is there stays when it is put again. The first time it is put for that.
async fn replaces_nothing(client: &AmazonS3, path: &Path) -> Result<bool, Error> {
    let mut is_put = false;
    for tried in 0..TRIES {
        match put(client, path, PutPayload::from_static(b"once\n")).await {
            Ok(()) if is_put => return Ok(false),
            Ok(()) => is_put = true,
            Err(error) if is_there(&error) => return Ok(true),
            Err(error) if is_open(&error) => wait_or_give_up(tried, error).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Puts an object that is not there. An answer may be lost, and the same put sent again: that what is there is what was to
/// be put, to the last byte, is then no refusal. No two objects of a repository are alike: each has a random name in it.
async fn create(client: &AmazonS3, path: &Path, bytes: PutPayload) -> Result<(), Error> {
    let mut tried = 0;
    loop {
        let refused = match put(client, path, bytes.clone()).await {
            Err(error) if is_open(&error) => error,
            ended => return ended,
        };
        match holds(client, path, &bytes).await {
            Ok(true) => return Ok(()),
            Ok(false) if matches!(refused, Error::AlreadyExists { .. }) => return Err(refused),
            // Somebody was at it, and failed or removed it; or what broke off was not done.
            Ok(false) | Err(Error::NotFound { .. }) => wait_or_give_up(tried, refused).await?,
            Err(error) => return Err(error),
        }
        tried += 1;
    }
}

/// Puts an object that is not there, once.
async fn put(client: &AmazonS3, path: &Path, bytes: PutPayload) -> Result<(), Error> {
    client.put_opts(path, bytes, PutMode::Create.into()).await.map(drop)
}

/// Whether it is not known what became of a put: somebody else was at the same object, or a connection broke.
fn is_open(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. }) || Failure::is_broken_off(error)
}

/// Whether a store refused to replace an object; otherwise it only says that somebody else is at it.
fn is_there(error: &Error) -> bool {
    let Error::AlreadyExists { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Error::Precondition { .. } | Error::NotModified { .. }))
}

/// Waits before a put is tried again; the last time it says what was in the way, and never that the object is there: it is not.
async fn wait_or_give_up(tried: u32, error: Error) -> Result<(), Error> {
    if tried + 1 < TRIES {
        tokio::time::sleep(Duration::from_millis(100 << tried)).await;
        return Ok(());
    }
    let source = "others put and remove the same object all the time".into();
    let is_taken = matches!(error, Error::AlreadyExists { .. });
    Err(if is_taken { Error::Generic { store: "S3", source } } else { error })
}

/// Whether an object is these bytes.
async fn holds(client: &AmazonS3, path: &Path, bytes: &PutPayload) -> Result<bool, Error> {
    let length = bytes.content_length();
    let found = client.get_opts(path, GetOptions::default()).await?;
    if found.meta.size != length as u64 {
        return Ok(false);
    }
    let bytes: Vec<&[u8]> = bytes.iter().map(AsRef::as_ref).collect();
    Ok(bounded(found.into_stream(), length + 1).await? == bytes.concat())
}

/// What comes of it within this time.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |late: Elapsed| Err(Error::Generic { store: "S3", source: late.into() });
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

/// Whether a store can be reached, as those find who read parts of its objects for guests.
///
/// A QEMU whose guest is to be paused for a read that failed answers nobody until all its others have ended, and sends those that
/// still waited for their turn: were each of them to find by itself that the store is away, it would be taken for hung.
struct Reach {
    patience: Patience,
    /// When it was last found to be away, if nothing was heard of it since.
    away: Mutex<Option<Instant>>,
    /// Somebody found that.
    found: Notify,
}

impl Reach {
    fn new(patience: Patience) -> Self {
        Self { patience, away: Mutex::default(), found: Notify::default() }
    }

    fn away(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes of it, or that the store is away: as soon as another one finds that, and at once where that was found just now.
    async fn read<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut found = std::pin::pin!(self.found.notified());
        found.as_mut().enable(); // before it is looked, so that nothing is missed
        let (away, patience) = (*self.away(), self.patience);
        if away.is_some_and(|at| at.elapsed() < patience.still) {
            return Err(not_there());
        }
        let limit = if away.is_some() { patience.away } else { patience.part };
        tokio::select! {
            biased;
            ended = in_time(limit, read) => {
                let is_away = ended.as_ref().is_err_and(Failure::is_away);
                *self.away() = is_away.then(Instant::now);
                if is_away {
                    self.found.notify_waiters();
                }
                ended
            }
            () = found => Err(not_there()),
        }
    }
}

fn not_there() -> Error {
    Error::Generic { store: "S3", source: Away.into() }
}

/// So many bytes of a stream at most, whatever was announced.
async fn bounded(
    mut stream: futures_util::stream::BoxStream<'static, Result<impl AsRef<[u8]> + Send, Error>>,
    length: usize,
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(part) = stream.try_next().await? {
        let rest = length - bytes.len();
        bytes.extend_from_slice(&part.as_ref()[..part.as_ref().len().min(rest)]);
        if bytes.len() == length {
            break;
        }
    }
    Ok(bytes)
}

impl Store for S3 {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (client, path) = (self.client.clone(), self.path(name)?);
        self.prove()?;
        let bytes = PutPayload::from(bytes.to_vec());
        self.told(self.wait(async move { create(&client, &path, bytes).await }))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (client, path) = (self.client.clone(), self.path(name)?);
        if length == 0 {
            return self.told(self.wait(async move { client.head(&path).await })).map(|_| Vec::new());
        }
        let end = offset.checked_add(length as u64);
        let part = end.map_or(GetRange::Offset(offset), |end| GetRange::Bounded(offset..end));
        let range = (offset > 0 || length < WHOLE).then_some(part);
        let is_part = range.is_some();
        let read = async move {
            match client.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await {
                Ok(found) => bounded(found.into_stream(), length).await,
                Err(error) if Failure::is_behind_the_end(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        let reach = Arc::clone(&self.reach);
        self.told(if is_part { self.wait(async move { reach.read(read).await }) } else { self.wait(read) })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let (client, path) = (self.client.clone(), self.path(folder)?);
        let above = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let listed = self.wait(async move {
            let (mut all, mut found) = (client.list(Some(&path)), Vec::new());
            while let Some(object) = all.try_next().await? {
                let name = object.location.as_ref().get(above..).filter(|name| is_name(name));
                found.extend(name.map(|name| (name.to_owned(), object.size)));
                if found.len() > LISTED_MOST {
                    let source = format!("there are more than {LISTED_MOST} objects in `{path}`").into();
                    return Err(Error::Generic { store: "S3", source });
                }
            }
            found.sort();
            Ok(found)
        });
        self.told(listed)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (client, path) = (self.client.clone(), self.path(name)?);
        // A store does not say that what it removes was not there. Of two who remove it at once both may hear that it was:
        // whoever asks wants it gone, and it is.
        self.told(self.wait(async move {
            client.head(&path).await?;
            client.delete(&path).await
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(1);
    const BESIDE: &str = "the store cannot be reached: a request beside this one found so";
    const LATE: &str = "the store did not answer in time";

    /// Nothing is heard of the store.
    fn silence() -> std::future::Pending<Result<(), Error>> {
        std::future::pending()
    }

    fn said(ended: Result<(), Error>) -> String {
        Failure::of("the store", &ended.expect_err("it is away")).to_string()
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_waited_for_so_long_and_told_as_that() {
        let late = in_time(SHORT, silence()).await.expect_err("nobody answered");
        let told: io::Error = Failure::of("the store", &late).into();
        assert_eq!((told.kind(), &*told.to_string()), (ErrorKind::TimedOut, LATE));
        assert!(in_time(LONG, async { Ok(7) }).await.is_ok_and(|answer| answer == 7));
    }

    #[tokio::test]
    async fn who_waits_and_who_comes_just_then_hear_that_the_store_is_away_with_the_first_who_finds_it() {
        let reach = Reach::new(Patience { part: LONG, away: LONG, still: LONG });
        let first = in_time(SHORT, silence());
        let (waits, first) = tokio::join!(reach.read(silence()), reach.read(first));
        assert_eq!((&*said(waits), &*said(first)), (BESIDE, LATE));
        for _ in 0..20 {
            assert_eq!(said(reach.read(silence()).await), BESIDE, "it waited for its turn");
        }
    }

    #[tokio::test]
    async fn a_store_that_was_away_is_waited_for_only_briefly_until_it_is_heard_again() {
        let reach = Reach::new(Patience { part: LONG, away: SHORT, still: Duration::ZERO });
        for _ in 0..3 {
            assert!(reach.read::<()>(async { Err(not_there()) }).await.is_err());
            assert_eq!(said(reach.read(silence()).await), LATE);
        }
        assert!(reach.read(async { Ok(()) }).await.is_ok());
        let (waits, _) = tokio::join!(reach.read(silence()), reach.read::<()>(async { Err(not_there()) }));
        assert_eq!(said(waits), BESIDE, "it was waited for as ever");
    }

    #[tokio::test]
    async fn what_a_store_refuses_to_one_is_no_matter_of_the_others() {
        let reach = Reach::new(Patience { part: SHORT, away: LONG, still: LONG });
        let none = async { Err(Error::NotFound { path: String::new(), source: "".into() }) };
        let (none, waits) = tokio::join!(reach.read::<()>(none), reach.read(silence()));
        assert!(none.is_err());
        assert_eq!(said(waits), LATE);
    }
}
