//! Watches the host: pressure, memory, disks and the words of its kernel.
//!
//! What the kernel does not offer here is not told at all: no pressure file means no statement about
//! pressure, never "none". It must never fill a disk, nor wait on one where others wait too.

mod disk;
pub mod kernel;

use holdfast_core::signal::HostSign;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often pressure is read; the kernel renews its averages every 2 s.
const PRESSURE_PERIOD: Duration = Duration::from_secs(2);
/// How often memory is read, in turns of [`PRESSURE_PERIOD`].
const MEMORY_TURNS: u32 = 5;
/// Bytes of a kernel file that are read.
const MOST_READ: u64 = 16 * 1024;

/// Watches until nobody wants it any more. `folders` hold VM disks or our own state.
pub async fn watch(folders: Vec<PathBuf>, out: mpsc::Sender<HostSign>) {
    let disks = folders.into_iter().map(|folder| disk::watch(folder, out.clone()));
    tokio::join!(watch_load(out.clone()), futures_util::future::join_all(disks), kernel::watch(out.clone()),);
}

async fn watch_load(out: mpsc::Sender<HostSign>) {
    let mut clock = tokio::time::interval(PRESSURE_PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = None;
    for turn in 0_u32.. {
        clock.tick().await;
        let times = read("/proc/stat").as_deref().and_then(processor_times);
        let steal = stolen(before, times);
        before = times;
        let memory = || read("/proc/meminfo").as_deref().and_then(memory);
        let signs = [pressure(steal), if turn % MEMORY_TURNS == 0 { memory() } else { None }];
        for sign in signs.into_iter().flatten() {
            if out.send(sign).await.is_err() {
                return;
            }
        }
        if out.is_closed() {
            return;
        }
    }
}

/// The start of a file of the kernel's; none if there is no such file or it may not be read.
fn read(path: &str) -> Option<String> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST_READ).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn pressure(steal: u16) -> Option<HostSign> {
    let stall = |what: &str, line: &str| stalled(&read(&format!("/proc/pressure/{what}"))?, line);
    Some(HostSign::Pressure {
        cpu: stall("cpu", "some")?,
        memory: stall("memory", "some")?,
        io: stall("io", "full")?,
        steal,
    })
}

/// For how long, since this host booted, some process could run and had no processor (kernel document `accounting/psi`); none if this
/// kernel does not tell.
pub fn waited_for_processors() -> Option<Duration> {
    waited(&read("/proc/pressure/cpu")?)
}

fn waited(text: &str) -> Option<Duration> {
    field(text, "some", "total=")?.parse().ok().map(Duration::from_micros)
}

/// A field of a line in a pressure file.
fn field<'a>(text: &'a str, line: &str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(' '))?;
    line.split(' ').find_map(|field| field.strip_prefix(name))
}

/// The average over 10 s in a line of a pressure file, in tenths of a percent (kernel document
/// `accounting/psi`): `some avg10=1.53 avg60=0.87 avg300=0.74 total=1157622151`.
fn stalled(text: &str, line: &str) -> Option<u16> {
    let share = field(text, line, "avg10=")?;
    let (whole, part) = share.split_once('.').unwrap_or((share, "0"));
    let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 100)?;
    let tenth = part.bytes().next().filter(u8::is_ascii_digit)?;
    Some((whole * 10 + u16::from(tenth - b'0')).min(1_000))
}

/// Processor time in ticks: all of it, and what a hypervisor above took away (`man 5 proc`, `/proc/stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    all: u64,
    stolen: u64,
}

fn processor_times(text: &str) -> Option<Times> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    let stolen = *ticks.get(7)?;
    Some(Times { all: ticks.iter().fold(0, |all, tick| all.saturating_add(*tick)), stolen })
}

/// The share of stolen time between two looks, in tenths of a percent.
fn stolen(before: Option<Times>, now: Option<Times>) -> u16 {
    let (Some(before), Some(now)) = (before, now) else { return 0 };
    let all = now.all.saturating_sub(before.all);
    let stolen = now.stolen.saturating_sub(before.stolen);
    let share = u128::from(stolen) * 1_000 / u128::from(all.max(1));
    u16::try_from(share.min(1_000)).unwrap_or(1_000)
}

/// `/proc/meminfo`, in KiB whatever it says.
fn memory(text: &str) -> Option<HostSign> {
    let field = |name: &str| -> Option<u64> {
        let row = text.lines().find_map(|row| row.strip_prefix(name)?.strip_prefix(':'))?;
        row.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
    };
    Some(HostSign::Memory { available: field("MemAvailable")?, total: field("MemTotal")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRESSURE: &str = "some avg10=1.53 avg60=0.87 avg300=0.74 total=1157622151\n\
                            full avg10=100.00 avg60=0.10 avg300=0.18 total=1066621\n";

    #[test]
    fn pressure_is_read_in_tenths_of_a_percent() {
        assert_eq!(stalled(PRESSURE, "some"), Some(15));
        assert_eq!(waited(PRESSURE), Some(Duration::from_micros(1_157_622_151)));
        assert_eq!(stalled(PRESSURE, "full"), Some(1_000));
        assert_eq!(stalled("some avg10=0.00 avg60=0.00", "full"), None);
        for strange in
            ["some avg10=-1.0", "some avg10=NaN", "some avg10=101.0", "some avg10=", "some", "some avg10=9.x"]
        {
            assert_eq!((stalled(strange, "some"), waited(strange)), (None, None), "{strange}");
        }
    }

    #[test]
    fn stolen_time_is_a_share_of_the_time_between_two_looks() {
        let times = |text| processor_times(text);
        let before = times("cpu  100 0 50 800 0 0 0 50 0 0\ncpu0 1 2 3");
        let now = times("cpu  150 0 60 880 0 0 0 110 9 9\n");
        assert_eq!(before, Some(Times { all: 1_000, stolen: 50 }));
        assert_eq!(stolen(before, now), 300);
        assert_eq!(stolen(now, before), 0); // it never goes back, but kernels have had bugs
        assert_eq!(stolen(None, now), 0);
        assert_eq!(times("cpu  1 2 3 4 5"), None); // a kernel older than the field
        assert_eq!(times(""), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "MemTotal:       24570976 kB\nMemFree:  1 kB\nMemAvailable:   20000000 kB\n";
        let sign = HostSign::Memory { available: 20_480_000_000, total: 25_160_679_424 };
        assert_eq!(memory(text), Some(sign));
        assert_eq!(memory("MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn this_host_is_read() {
        assert!(read("/proc/stat").as_deref().and_then(processor_times).is_some());
        assert!(matches!(
            read("/proc/meminfo").as_deref().and_then(memory),
            Some(HostSign::Memory { available, total }) if available <= total && total > 0
        ));
        assert_eq!(read("/proc/no-such-file"), None);
        let offers = std::path::Path::new("/proc/pressure/cpu").exists();
        assert_eq!(pressure(0).is_some(), offers);
    }

    #[tokio::test]
    async fn a_host_is_watched_until_nobody_listens() {
        let folder = tempfile::tempdir().expect("a folder");
        let (out, mut signs) = mpsc::channel(8);
        let task = tokio::spawn(watch(vec![folder.path().into()], out));
        let mut seen = (false, false);
        while seen != (true, true) {
            match signs.recv().await.expect("it goes on") {
                HostSign::Memory { .. } => seen.0 = true,
                HostSign::Disk { path, .. } => {
                    assert_eq!(path, folder.path().to_string_lossy());
                    seen.1 = true;
                }
                HostSign::Pressure { .. } | HostSign::Kernel(_) => {}
            }
        }
        task.abort();
    }

    proptest! {
        #[test]
        fn any_text_of_a_kernel_is_read(text in "(cpu|some|full|MemTotal|MemAvailable|[ :.=0-9a-z\n-]){0,60}") {
            prop_assert!(stalled(&text, "some").is_none_or(|share| share <= 1_000));
            let times = processor_times(&text);
            let share = stolen(Some(Times { all: 0, stolen: 0 }), times);
            prop_assert!(share <= 1_000);
            if let Some(HostSign::Memory { total, .. }) = memory(&text) {
                prop_assert_eq!(total % 1_024, 0);
            }
        }
    }
}
