//! One application, asked from outside: whether it answers, and how much it has written, if it tells.

use super::Eye;
use crate::config::{AppConfig, Probe};
use crate::sense::closer::Closer;
use crate::sense::convert;
use crate::sense::probe::{self, Aside, Untold};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holdfast_core::signal::{AppSign, ProbeFailure, Seen};
use holdfast_core::subject::AppName;
use holdfast_core::written::Written;
use std::time::Duration;
use tokio::time::Instant;

/// Questions to one application that may be on their way at a time.
const ASKED_MOST: usize = 2;
/// How much it has written is asked so often.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);
/// One that is too busy to tell is left alone for so long ...
const BUSY: Duration = Duration::from_secs(60);
/// ... and one that cannot tell for so long, as another version may.
const UNABLE: Duration = Duration::from_secs(3_600);

impl Eye {
    /// One application, once a period, each time anew. A question that nobody answers yet does not keep the
    /// next one waiting; once a later one is answered, it says nothing any more.
    pub(super) async fn application(self, name: AppName, app: AppConfig) {
        let mut ticker = self.ticker(self.period);
        let mut asked = FuturesUnordered::new();
        let (mut turn, mut answered, mut counts) = (0_u64, 0, Instant::now());
        let mut closer = Closer::default();
        // A write would meet that of the one before, and a program of the user's is not run twice at a time.
        let alone = app.write || matches!(app.probe, Probe::Command { .. });
        let most = if alone { 1 } else { ASKED_MOST };
        loop {
            tokio::select! {
                goes_on = self.next(&mut ticker), if asked.len() < most => {
                    if !goes_on {
                        return;
                    }
                    turn += 1;
                    let aside = (counts <= Instant::now()).then(Aside::default);
                    if let Some(incarnation) = self.incarnation() {
                        let question = self.ask_application(&app, aside.clone());
                        asked.push(async move { (turn, incarnation, question.await, aside) });
                    }
                }
                Some((of, incarnation, sign, aside)) = asked.next() => {
                    let sign = if answered == 0 { unproven(sign) } else { sign };
                    match sign {
                        AppSign::Answered { .. } => {
                            answered = answered.max(of);
                            closer.answered(incarnation);
                        }
                        AppSign::Failed { .. } if of < answered => continue,
                        AppSign::Failed { .. } if closer.is_due(incarnation) => self.look_closer.notify_one(),
                        AppSign::Failed { .. } => {}
                    }
                    self.tell_of(incarnation, Some(&name), Seen::Application(sign)).await;
                    let told = aside.map(|aside| aside.take());
                    counts = told.map_or(counts, |told| Instant::now() + pause(told));
                    if let Some(Some(Ok(written))) = told {
                        self.tell_of(incarnation, Some(&name), Seen::Written(written)).await;
                    }
                }
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn ask_application(&self, app: &AppConfig, aside: Option<Aside>) -> AppSign {
        match convert::probe(app, &self.driver.places(&self.vm)) {
            Ok(probe) => probe::probe(&probe.telling(aside), app.timeout).await,
            Err(failed) => failed,
        }
    }
}

/// What came before any right answer does not contradict one: it may be that what is expected is wrong (a slip in `expect`), and
/// nobody's disk goes back for that (I15).
fn unproven(sign: AppSign) -> AppSign {
    match sign {
        AppSign::Failed { how: ProbeFailure::Mismatch, text } => {
            AppSign::Failed { how: ProbeFailure::Wrong, text }
        }
        sign @ (AppSign::Answered { .. } | AppSign::Failed { .. }) => sign,
    }
}

/// How long it is not asked for that again.
const fn pause(told: Option<Result<Written, Untold>>) -> Duration {
    match told {
        None | Some(Ok(_)) => WRITTEN_EVERY,
        Some(Err(Untold::Now)) => BUSY,
        Some(Err(Untold::Never)) => UNABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_that_answered_as_expected_before_contradicts_itself() {
        let failed = |how| AppSign::Failed { how, text: "answered `1` instead of `2`".into() };
        assert_eq!(unproven(failed(ProbeFailure::Mismatch)), failed(ProbeFailure::Wrong));
        assert_eq!(unproven(failed(ProbeFailure::Refused)), failed(ProbeFailure::Refused));
    }
}
