//! The server as a thread.

use crate::{BUCKET, KEY, SECRET};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// How a server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Habit {
    /// As the protocol says.
    #[default]
    Right,
    /// It takes no notice of `If-None-Match`, as old ones do.
    Replaces,
    /// It says that it has no conditional puts.
    Refuses,
    /// It does the first put of each object, and says that it failed.
    LosesAnswers,
    /// It says that it is busy, again and again.
    Busy,
}

impl Habit {
    const ALL: [(Self, &str); 5] = [
        (Self::Right, "right"),
        (Self::Replaces, "replaces"),
        (Self::Refuses, "refuses"),
        (Self::LosesAnswers, "loses-answers"),
        (Self::Busy, "busy"),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(habit, _)| *habit == self).map_or("right", |(_, word)| word)
    }

    pub(crate) fn of(word: &str) -> Self {
        Self::ALL.iter().find(|(_, known)| *known == word).map_or(Self::Right, |(habit, _)| *habit)
    }
}

struct Service {
    root: PathBuf,
    files: FileSystem,
    habit: Habit,
    /// Who puts is alone; and the objects that were put.
    put: Mutex<BTreeSet<String>>,
}

impl Service {
    /// `s3s-fs` takes a bucket that is not there for one that is empty, or makes it.
    fn look_for(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn put_object(
        &self,
        mut asked: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.look_for(&asked.input.bucket)?;
        let is_conditional = asked.input.if_none_match.is_some();
        match self.habit {
            Habit::Busy => return Err(s3_error!(SlowDown)),
            Habit::Refuses if is_conditional => return Err(s3_error!(NotImplemented)),
            Habit::Replaces => asked.input.if_none_match = None,
            Habit::Right | Habit::Refuses | Habit::LosesAnswers => {}
        }
        let mut put = self.put.lock().await;
        let key = asked.input.key.clone();
        let done = self.files.put_object(asked).await?;
        if put.insert(key) && self.habit == Habit::LosesAnswers {
            return Err(s3_error!(InternalError));
        }
        Ok(done)
    }

    async fn get_object(&self, asked: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.look_for(&asked.input.bucket)?;
        self.files.get_object(asked).await
    }

    async fn head_object(&self, asked: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.look_for(&asked.input.bucket)?;
        self.files.head_object(asked).await
    }

    async fn delete_object(
        &self,
        asked: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.look_for(&asked.input.bucket)?;
        self.files.delete_object(asked).await
    }

    async fn list_objects_v2(
        &self,
        asked: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.look_for(&asked.input.bucket)?;
        self.files.list_objects_v2(asked).await
    }
}

/// A server with one bucket, until it is dropped.
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Serves this folder, on a port that is free.
    ///
    /// # Errors
    /// If it cannot listen, or the folder is none.
    pub fn start(root: &Path, habit: Habit) -> io::Result<Self> {
        Self::start_at(root, 0, habit)
    }

    pub(crate) fn start_at(root: &Path, port: u16, habit: Habit) -> io::Result<Self> {
        std::fs::create_dir_all(root.join(BUCKET))?;
        let files = FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder =
            S3ServiceBuilder::new(Service { root: root.to_owned(), files, habit, put: Mutex::default() });
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (tell, told) = mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(("127.0.0.1", port)).await;
            let _ = tell.send(
                listener
                    .as_ref()
                    .map_err(io::Error::kind)
                    .and_then(|listener| listener.local_addr().map_err(|error| error.kind())),
            );
            if let Ok(listener) = listener {
                accept(listener, service).await;
            }
        });
        let address = told.recv().map_err(io::Error::other)??;
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = Builder::new(TokioExecutor::new());
            let _gone = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
