//! One application, asked from outside: whether it answers, and how much it has written, if it tells.

use super::Eye;
use crate::config::{AppConfig, Probe};
use crate::sense::closer::Closer;
use crate::sense::convert;
use crate::sense::probe::{self, Aside, Untold};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holdfast_core::signal::{AppSign, Seen};
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

/// How long it is not asked for that again.
const fn pause(told: Option<Result<Written, Untold>>) -> Duration {
    match told {
        None | Some(Ok(_)) => WRITTEN_EVERY,
        Some(Err(Untold::Now)) => BUSY,
        Some(Err(Untold::Never)) => UNABLE,
    }
}
