//! The words of the host's kernel, from now on (`/dev/kmsg`, kernel document `ABI/testing/dev-kmsg`).

use super::super::awaited;
use super::super::findings::Findings;
use holdfast_core::signal::HostSign;
use rustix::fs::{CWD, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// Longer than the longest record of any kernel (`PRINTKRB_RECORD_MAX`, `CONSOLE_EXT_LOG_MAX`).
pub const LONGEST_RECORD: usize = 8 * 1024;
/// Records read before a rest; what comes faster is dropped by the kernel itself.
pub const MOST_AT_ONCE: u32 = 200;
/// That rest.
pub const REST: Duration = Duration::from_millis(100);
/// The device.
pub const DEVICE: &str = "/dev/kmsg";

/// Watches until nobody wants it any more. Where it is not there or not allowed, that is said once.
pub async fn watch(out: mpsc::Sender<HostSign>) {
    tokio::select! {
        () = out.closed() => {}
        ended = follow(&out) => if let Err(error) = ended {
            tracing::warn!(%error, "the kernel's messages cannot be read; disk and memory faults of the host show later");
        }
    }
}

async fn follow(out: &mpsc::Sender<HostSign>) -> io::Result<()> {
    let kernel = open(DEVICE, SeekFrom::End(0))?;
    let mut findings = Findings::new();
    let mut record = [0; LONGEST_RECORD];
    loop {
        for _ in 0..MOST_AT_ONCE {
            let length = match next(&kernel, &mut record).await {
                Ok(length) => length,
                // The record was overwritten before we came; the next one is read next.
                Err(error) if is_overwritten(&error) => continue,
                Err(error) => return Err(error),
            };
            let found = text(&record[..length]).and_then(|text| findings.find(text, Instant::now()));
            if let Some(finding) = found
                && out.send(HostSign::Kernel(finding)).await.is_err()
            {
                return Ok(());
            }
        }
        tokio::time::sleep(REST).await;
    }
}

/// Opens the device, at its end or at the first record that is kept.
pub fn open(path: &str, from: SeekFrom) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let kernel = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&kernel)?.st_mode);
    if kind != FileType::CharacterDevice {
        return Err(io::Error::other(format!("{path} is not the kernel's device")));
    }
    rustix::fs::seek(&kernel, from)?;
    awaited(kernel)
}

/// The next record, whole. [`is_overwritten`] tells an error that only means that some are gone.
pub async fn next(kernel: &AsyncFd<OwnedFd>, record: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = kernel.readable().await?;
        if let Ok(read) = ready.try_io(|kernel| Ok(rustix::io::read(kernel, &mut *record)?)) {
            return read;
        }
    }
}

/// The record was overwritten before it was read; the next one is read next.
pub fn is_overwritten(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::PIPE.raw_os_error())
}

/// The text of a record, if the kernel itself wrote it: `PRIORITY,NUMBER,TIME,FLAGS[,..];TEXT\n` and then
/// lines of fields. Programs can write here too, but never as the kernel (facility 0).
fn text(record: &[u8]) -> Option<&[u8]> {
    let border = record.iter().position(|&byte| byte == b';')?;
    let priority = record[..border].split(|&byte| byte == b',').next()?;
    let priority: u32 = std::str::from_utf8(priority).ok()?.parse().ok()?;
    let text = &record[border + 1..];
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    (priority >> 3 == 0).then_some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_own_text_is_taken() {
        assert_eq!(
            text(b"3,812,61000123,-;I/O error, dev vda\n SUBSYSTEM=block\n"),
            Some(&b"I/O error, dev vda"[..])
        );
        assert_eq!(text(b"6,1,0,-,caller=T1;Linux version 6.1"), Some(&b"Linux version 6.1"[..]));
    }

    #[test]
    fn a_program_cannot_speak_as_the_kernel() {
        assert_eq!(text(b"11,813,61000123,-;I/O error, dev vda\n"), None); // facility 1, user
        assert_eq!(text(b"x,813,61000123,-;I/O error, dev vda\n"), None);
        assert_eq!(text(b"no border"), None);
    }

    #[test]
    fn what_is_not_the_kernels_device_is_refused() {
        assert!(open("/no/such/device", SeekFrom::End(0)).is_err());
        assert!(open("/proc/meminfo", SeekFrom::End(0)).is_err());
    }

    #[tokio::test]
    async fn watching_ends_when_nobody_listens() {
        let (out, signs) = mpsc::channel(1);
        drop(signs);
        watch(out).await;
    }

    proptest! {
        #[test]
        fn any_record_is_read(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(text(&record).is_none_or(|text| !text.contains(&b'\n')));
        }
    }
}
