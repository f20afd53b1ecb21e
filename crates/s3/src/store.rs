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
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
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
/// How long a read of a part of an object may take, with all that is tried again: a guest may be waiting for it, and is better
/// paused than hung.
const PART: Duration = Duration::from_secs(60);

/// A part of a bucket.
pub struct S3 {
    client: AmazonS3,
    prefix: String,
    /// Where it is, for people.
    place: String,
    /// It was seen that the store replaces nothing.
    is_proven: Mutex<bool>,
    /// Somebody found that it is away.
    is_away: Arc<Notify>,
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
        let (is_proven, is_away) = Default::default();
        Ok(Self { client, prefix, place, is_proven, is_away, runtime })
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

/// What comes of it, or that the store is away, as soon as another one finds that: a QEMU whose guest is to be paused for a read
/// that failed waits for all others before it answers anybody, and would be taken for hung.
async fn together<T>(is_away: &Notify, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut found = std::pin::pin!(is_away.notified());
    found.as_mut().enable();
    tokio::select! {
        biased;
        ended = work => {
            if ended.as_ref().is_err_and(Failure::is_away) {
                is_away.notify_waiters();
            }
            ended
        }
        () = found => Err(Error::Generic { store: "S3", source: Away.into() }),
    }
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
        let limit = range.is_some().then_some(PART);
        let read = async move {
            match client.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await {
                Ok(found) => bounded(found.into_stream(), length).await,
                Err(error) if Failure::is_behind_the_end(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        let is_away = Arc::clone(&self.is_away);
        self.told(match limit {
            Some(limit) => self.wait(async move { together(&is_away, in_time(limit, read)).await }),
            None => self.wait(read),
        })
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

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_waited_for_so_long_and_told_as_that() {
        let never = std::future::pending::<Result<(), Error>>();
        let late = in_time(Duration::from_millis(1), never).await.expect_err("nobody answered");
        let told: io::Error = Failure::of("the store", &late).into();
        assert_eq!(
            (told.kind(), &*told.to_string()),
            (ErrorKind::TimedOut, "the store did not answer in time")
        );
        assert!(in_time(PART, async { Ok(7) }).await.is_ok_and(|answer| answer == 7));
    }

    #[tokio::test]
    async fn who_waits_hears_that_the_store_is_away_with_the_first_who_finds_it() {
        let (is_away, never) = (Notify::new(), std::future::pending::<Result<(), Error>>);
        let first = together(&is_away, in_time(Duration::from_millis(1), never()));
        let (waits, first) = tokio::join!(together(&is_away, never()), first);
        let told = [waits, first].map(|ended| Failure::of("the store", &ended.expect_err("it is away")));
        let expected = [
            "the store cannot be reached: a request beside this one found so",
            "the store did not answer in time",
        ];
        assert_eq!(told.map(|failure| failure.to_string()), expected);

        // What only one of them is told is no matter of the others; nor is what was found before.
        let none = || async { Err(Error::NotFound { path: String::new(), source: "".into() }) };
        let waits = in_time(Duration::from_millis(20), together(&is_away, never()));
        let (waits, none) = tokio::join!(waits, together::<()>(&is_away, none()));
        assert!(none.is_err() && waits.is_err_and(|error| !error.to_string().contains("beside")));
    }
}
