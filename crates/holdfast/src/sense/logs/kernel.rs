//! What this host's kernel says (`/dev/kmsg`), from now on, or from where it was read last in this boot.

use super::chain;
use super::health::State;
use super::joined::{Joined, WAITS};
use super::means::Means;
use crate::sense::host::kernel::{DEVICE, LONGEST_RECORD, MOST_AT_ONCE, REST, is_overwritten, next, open};
use holdfast_core::subject::{HostName, Subject};
use holdfast_logs::{Record, Severity, clean_text};
use rustix::fs::SeekFrom;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// The device is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Reads until it is time to stop.
pub async fn follow(host: HostName, means: Means) {
    let feed = means.feed(Subject::Host(host), "kernel");
    let mut joined = Joined::new(feed.clone());
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim();
    let place = means.place(&feed);
    let mut behind =
        place.and_then(|place| place.strip_prefix("kernel ")?.strip_prefix(boot)?.trim().parse().ok());
    let reading = async {
        loop {
            match read(&mut joined, boot, &mut behind).await {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // As for every daemon that is not root: nothing is broken.
                    feed.is(State::Waiting(format!("only root may read {DEVICE} here")));
                }
                Err(error) => feed.is(State::Failing(format!("cannot read {DEVICE}: {}", chain(&error)))),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    means.stop.run_until_cancelled(reading).await;
}

async fn read(joined: &mut Joined, boot: &str, behind: &mut Option<u64>) -> io::Result<()> {
    // The records that are kept, or those to come.
    let from = if behind.is_some() { SeekFrom::Data(0) } else { SeekFrom::End(0) };
    let device = open(DEVICE, from)?;
    let feed = joined.feed.clone();
    feed.is(State::Following);
    let mut bytes = [0; LONGEST_RECORD];
    loop {
        for _ in 0..MOST_AT_ONCE {
            let length = match wait(&device, &mut bytes, joined).await {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if is_overwritten(&error) => {
                    feed.gauge.dropped(1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some((number, record)) = record(&bytes[..length], feed.received(), since_boot()) else {
                continue;
            };
            if behind.is_some_and(|behind| number <= behind) {
                continue;
            }
            *behind = Some(number);
            if !joined.bring(record.into(), Some(format!("kernel {boot} {number}"))).await {
                return Ok(());
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// The next record; meanwhile what waits for its next line is brought. Zero when nobody takes records any more.
async fn wait(
    device: &AsyncFd<OwnedFd>,
    bytes: &mut [u8; LONGEST_RECORD],
    joined: &mut Joined,
) -> io::Result<usize> {
    while joined.is_waiting() {
        if let Ok(length) = tokio::time::timeout(WAITS, next(device, bytes)).await {
            return length;
        }
        if !joined.rest(false).await {
            return Ok(0);
        }
    }
    next(device, bytes).await
}

/// The kernel counts its messages' time without that of sleep.
fn since_boot() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000)
}

/// A record of the kernel itself with its number: `PRIORITY,NUMBER,MICROSECONDS,FLAGS[,..];TEXT`, then lines of
/// ` KEY=VALUE`. What programs write there is theirs, and they have a log.
fn record(bytes: &[u8], received: i64, now: i64) -> Option<(u64, Record)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once(';')?;
    let mut words = head.split(',');
    let mut number = || words.next()?.parse::<u64>().ok();
    let (priority, number, time) = (number()?, number()?, number()?);
    if priority >> 3 != 0 {
        return None;
    }
    let mut lines = rest.lines();
    let said = clean_text(lines.next()?.as_bytes()).into_owned();
    let fields = lines.filter_map(|line| line.strip_prefix(' ')?.split_once('=')).take(8);
    let fields = fields.map(|(name, value)| {
        let short = |text: &str| clean_text(text.as_bytes()).chars().take(64).collect::<String>();
        (short(name).to_lowercase(), short(value))
    });
    let ago = now.saturating_sub(i64::try_from(time).unwrap_or(i64::MAX)).max(0);
    let record = Record {
        time: Some(received.saturating_sub(ago)),
        severity: Severity::from_syslog(u8::try_from(priority & 7).unwrap_or(7)),
        program: "kernel".into(),
        text: said,
        fields: fields.collect(),
        ..Record::default()
    };
    (!record.text.is_empty()).then_some((number, record))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_has_its_time_its_severity_and_its_device() {
        let bytes = b"3,812,61000000,-,caller=T1;I/O error, dev vda\n SUBSYSTEM=block\n DEVICE=b254:0\n";
        let (number, record) = record(bytes, 1_000_000_000, 62_000_000).unwrap();
        assert_eq!(number, 812);
        assert_eq!((record.time, record.severity), (Some(999_000_000), Some(Severity::Error)));
        assert_eq!((record.program.as_str(), record.text.as_str()), ("kernel", "I/O error, dev vda"));
        assert_eq!(record.fields[1], ("device".into(), "b254:0".into()));
    }

    #[test]
    fn a_program_does_not_speak_as_the_kernel() {
        assert_eq!(record(b"11,813,61000123,-;I/O error, dev vda\n", 0, 0), None);
    }

    proptest! {
        #[test]
        fn any_record_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in "[0-7],[0-9]{1,20},[0-9]{1,20},-;") {
            let all = [head.as_bytes(), &bytes].concat();
            if let Some((_, record)) = record(&all, 0, 0) {
                prop_assert!(!record.text.chars().any(char::is_control));
            }
        }
    }
}
