//! A question to a task that owns what it is about, and its answer.

use tokio::sync::{mpsc, oneshot};

/// Asks it, and waits; nothing if it has ended.
pub async fn ask<Q, A>(task: &mpsc::Sender<Q>, question: impl FnOnce(oneshot::Sender<A>) -> Q) -> Option<A> {
    let (reply, answer) = oneshot::channel();
    task.send(question(reply)).await.ok()?;
    answer.await.ok()
}
