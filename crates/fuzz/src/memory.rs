//! How much memory a test takes at most. The kernel counts it for a process, so such a test runs in one of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Set in the process that was started for one test.
const ALONE: &str = "HOLDFAST_ALONE";
/// Bytes of the smallest page of memory.
const PAGE: usize = 4096;

/// Runs a test in a process of its own: this test program, started again for nothing but it. `test` is its whole name, as
/// `cargo test` prints it.
///
/// # Panics
/// If the test fails there, or there is none of this name.
pub fn alone(test: &str, run: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return run();
    }
    let program = std::env::current_exe().expect("a running program has a path");
    let mut again = Command::new(program);
    again.args(["--exact", test, "--nocapture"]).env(ALONE, "1");
    let output = again.output().expect("it was started once already");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{test}, alone: {said}");
}

/// Memory since some moment. The code of this program is not in it, whenever it is used first: that is many MiB of a
/// debug build, and more with each thing that the program learns to do.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    before: u64,
}

impl Peak {
    /// From now on: what was taken and given back before does not count.
    ///
    /// # Panics
    /// Where the kernel keeps no count.
    #[must_use]
    pub fn start() -> Self {
        load_program().expect("a process may read itself (proc_pid_mem(5))");
        std::fs::write("/proc/self/clear_refs", "5")
            .expect("Linux forgets the peak (proc_pid_clear_refs(5))");
        Self { before: of("self", "VmRSS:").expect("this process is there") }
    }

    /// The most that was in memory since, beyond what was there then, in bytes.
    ///
    /// # Panics
    /// Where the kernel keeps no count.
    #[must_use]
    pub fn grown(&self) -> u64 {
        of("self", "VmHWM:").expect("this process is there").saturating_sub(self.before)
    }

    /// Says how much it was, and fails if that is more than so many MiB.
    ///
    /// # Panics
    /// Then.
    pub fn is_below(&self, what: &str, mib: u64) {
        let grown = self.grown();
        println!("{what}: {} KiB at most, of {mib} MiB", grown >> 10);
        assert!(grown < mib << 20, "{what} took {grown} bytes, and may take {mib} MiB");
    }
}

/// Has every page of this program and its libraries in memory. Code is brought in from its file as it is first used,
/// else, and would be taken for memory of what is measured.
fn load_program() -> io::Result<()> {
    let memory = File::open("/proc/self/mem")?;
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((from, to)) = of_a_file(line) else { continue };
        for page in (from..to).step_by(PAGE) {
            // What lies beyond the end of a file cannot be read, and takes no memory.
            let _ = memory.read_at(&mut [0], page);
        }
    }
    Ok(())
}

/// Where a line of `/proc/self/maps` has a piece of a file that may be read (proc_pid_maps(5)).
fn of_a_file(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let may_be_read = words.next()?.starts_with('r');
    let is_a_file = words.nth(3)?.starts_with('/');
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(from)?, address(to)?)).filter(|_| may_be_read && is_a_file)
}

/// A count of memory of a process, such as `VmHWM:`, in bytes; `None` once it has ended.
#[must_use]
pub fn of(process: &str, count: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(count))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_counts_and_what_was_before_does_not() {
        alone("memory::tests::what_is_taken_and_given_back_counts_and_what_was_before_does_not", || {
            let touch = |mib: usize| drop(std::hint::black_box(vec![1_u8; mib << 20]));
            touch(64);
            let peak = Peak::start();
            assert!(peak.grown() < 8 << 20, "{}", peak.grown());
            touch(24);
            assert!((20 << 20..32 << 20).contains(&peak.grown()), "{}", peak.grown());
        });
    }

    #[test]
    fn code_that_is_used_first_is_no_memory_of_what_is_measured() {
        alone("memory::tests::code_that_is_used_first_is_no_memory_of_what_is_measured", || {
            let _peak = Peak::start();
            let code = of("self", "RssFile:").unwrap();
            load_program().unwrap();
            assert_eq!(of("self", "RssFile:").unwrap(), code, "all of it was there");
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let program = std::env::current_exe().unwrap();
            let program = program.to_str().unwrap();
            let mapped = maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(program));
            let size: u64 = mapped.filter_map(of_a_file).map(|(from, to)| to - from).sum();
            assert!(size > 0 && code >= size, "{code} of {size}");
        });
    }

    #[test]
    #[should_panic(expected = "alone")]
    fn a_test_of_another_name_is_told() {
        alone("memory::tests::there_is_none", || {});
    }
}
