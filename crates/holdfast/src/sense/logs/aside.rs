//! A thread of its own, of low priority, for what strangers can flood: it decides nothing, and gives way to those who
//! do. Without it, a flood would be one more task between a crash and its being heard of.

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// How much it gives way.
pub const NICE: i32 = 5;

/// Where tasks run aside, until it is time to stop.
pub fn start(stop: CancellationToken) -> Handle {
    begin(stop).unwrap_or_else(|error| {
        tracing::warn!(%error, "logs are received beside everything else: there is no thread for them");
        Handle::current()
    })
}

fn begin(stop: CancellationToken) -> std::io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let receive = move || {
        give_way();
        runtime.block_on(stop.cancelled());
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("senders".into()).spawn(receive)?;
    Ok(handle)
}

/// From now on this thread has its turn behind others.
pub fn give_way() {
    let _ = rustix::process::nice(NICE); // it only becomes less
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_runs_aside_gives_way_and_ends_in_time() {
        let stop = CancellationToken::new();
        let aside = start(stop.clone());
        let own = rustix::process::nice(0).unwrap();
        let there = aside
            .spawn(async { (std::thread::current().name() == Some("senders"), rustix::process::nice(0)) });
        let (is_own_thread, nice) = there.await.unwrap();
        assert!(is_own_thread);
        assert_eq!(nice.unwrap(), (own + NICE).min(19));
        assert_eq!(rustix::process::nice(0).unwrap(), own, "nobody else");
        let endless = aside.spawn(std::future::pending::<()>());
        stop.cancel();
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
