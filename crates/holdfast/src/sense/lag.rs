//! Watches ourselves: how late we wake. Who sleeps too long must not call others silent (I10).

use holdfast_core::signal::ObserverSign;
use holdfast_core::time::Duration;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

/// How often we ask to be woken.
const PERIOD: Duration = Duration::from_millis(250);
/// Lateness up to this is nothing.
const TOLERATED: Duration = Duration::from_millis(250);

/// Reports each time it was woken too late, until nobody wants it any more. Being in time is not told.
/// Sees whatever stops the program: a blocked loop, a starved host, SIGSTOP, a suspended machine.
pub async fn watch(out: mpsc::Sender<ObserverSign>) {
    while !out.is_closed() {
        let asked = now();
        tokio::time::sleep(PERIOD).await;
        if let Some(sign) = judge(now().saturating_sub(asked))
            && out.send(sign).await.is_err()
        {
            return;
        }
    }
}

/// Time since boot, including the time the machine was suspended, which tokio's clock leaves out.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn judge(slept: Duration) -> Option<ObserverSign> {
    let late = slept.saturating_sub(PERIOD);
    (late > TOLERATED).then_some(ObserverSign::Lag(late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_late_is_told() {
        let slept = |millis| judge(Duration::from_millis(millis));
        assert_eq!(slept(0), None);
        assert_eq!(slept(250), None);
        assert_eq!(slept(500), None);
        assert_eq!(slept(501), Some(ObserverSign::Lag(Duration::from_millis(251))));
        assert_eq!(slept(10_250), Some(ObserverSign::Lag(Duration::from_secs(10))));
    }

    #[tokio::test]
    async fn a_loop_that_somebody_blocks_is_seen_to_lag() {
        let (out, mut signs) = mpsc::channel(1);
        let task = tokio::spawn(watch(out));
        tokio::task::yield_now().await; // so that it has asked to be woken
        std::thread::sleep(Duration::from_millis(700)); // the fault under test, not a wait
        match signs.recv().await {
            Some(ObserverSign::Lag(late)) => assert!(late > TOLERATED, "{late:?}"),
            other => panic!("{other:?}"),
        }
        drop(signs);
        task.abort();
    }
}
