//! HTTP and JSON over the Unix socket: the one view that CLI and dashboard share.
//!
//! Only whoever may open the socket (mode 0600) may ask (I19). Bodies are small and bounded; nothing that
//! comes in is run or used as a path.

mod again;
pub mod around;
pub mod backups;
pub mod counters;
pub mod lessons;
pub mod logs;
mod named;
pub mod numbers;
pub mod points;
pub mod proofs;
mod routes;
pub mod shape;
pub mod snapshots;
pub mod sources;

pub use routes::{Api, Problems, Refusal, Words};

use routes::router;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}")]
pub struct ListenError {
    path: String,
    #[source]
    source: std::io::Error,
}

/// Listens on a Unix socket that only its owner may open. The state folder is already ours alone, so an
/// old socket file there is a leftover.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let error = |source| ListenError { path: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(error(cause)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

/// Serves until told to stop.
pub async fn serve(listener: UnixListener, api: Api, stop: CancellationToken) {
    let app = router(api);
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(cause) = serving.await {
        tracing::error!(%cause, "the API stopped");
    }
}
