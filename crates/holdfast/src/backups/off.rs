//! The backup of a VM that is off. Its images are read where they lie, and a start never waits for that: it ends the backup.

use super::run::{End, Job, News, words_of};
use crate::act::chain;
use holdfast_drivers::qemu::{Off, OffEnd};
use std::time::Duration;

/// How long it may take until the disk can be read.
const LIMIT: Duration = Duration::from_secs(30);
/// It is not known how its guest ended.
const NOT_ORDERLY: &str =
    "it was not seen to shut down in order: its file systems may be as after a power cut";

impl Job {
    /// Makes a restore point of the disk as it lies there, telling how it goes.
    pub(super) async fn run_off<F: Future<Output = bool>>(&self, tell: &impl Fn(News) -> F) -> End {
        let off = match self.driver.begin_off_backup(&self.vm, LIMIT).await {
            Ok(off) => off,
            Err(error) => {
                return End::Failed {
                    error: format!("cannot read the disk of vm `{}`, which is off", self.vm),
                    cause: chain(&error),
                    hint: "no point was made; `holdfast vm show` tells how it stands".into(),
                };
            }
        };
        let warning = (!off.is_orderly).then(|| NOT_ORDERLY.to_owned());
        tell(News::Off { size: off.size, warning }).await;
        let end = self.save(self.words_of_off(&off), tell).await;
        let ended = off.end().await;
        match (end, ended) {
            (End::Failed { error, .. }, OffEnd::GaveWay) => End::Failed {
                error,
                cause: "it was started meanwhile, and a start never waits for a backup".into(),
                hint: "no point was made; what was saved is not saved twice: back it up while it runs".into(),
            },
            (End::Failed { error, cause, hint }, OffEnd::Said(said)) if cause.contains("NBD") => {
                End::Failed { error, cause: format!("{cause}; `qemu-nbd`: {said}"), hint }
            }
            (end, _) => end,
        }
    }

    fn words_of_off(&self, off: &Off) -> Vec<String> {
        let mut words = words_of(&off.uri, &self.vm, self.limits);
        words.extend(off.is_orderly.then(|| "--consistent".to_owned()));
        words.extend(off.files.iter().map(|file| format!("--still={}", file.display())));
        words
    }
}
