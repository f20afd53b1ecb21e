//! A VM that floods the daemon with syslog, beside another that is killed: the crash is found, the VM that floods is left
//! alone, and memory is bounded.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Dice, Start, told, turn, wait_restarted};
use crate::lab::{BOOT, Lab, SOON, vm_section, vms_of};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Packets a second that are tried.
const A_SECOND: u64 = 100_000;
/// Memory that logs may take of the daemon, in bytes, beyond what it has with two VMs: 8 MiB that wait, 4 MiB of patterns
/// of the VM that floods, 16 MiB of habits of all, and 12 MiB for what is being written and what the allocator keeps. The
/// other VM's few lines count for nothing.
const CEILING: u64 = 40 << 20;

/// Everything that it starts ends with it.
struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    began: Instant,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(to: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |of: fn(SocketAddr, &AtomicBool, &AtomicU64)| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || of(to, &stop, &sent))
        };
        let threads = vec![one(packets), one(connection)];
        Self { stop, sent, began: Instant::now(), threads }
    }

    /// Lines a second so far.
    fn rate(&self) -> u64 {
        let passed = self.began.elapsed().as_millis().max(1);
        self.sent.load(Ordering::Relaxed) * 1_000 / u64::try_from(passed).unwrap()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// A line unlike every other, for that is what costs most.
fn line(dice: &mut Dice) -> String {
    let mut word = || char::from(b'a' + u8::try_from(dice.below(26)).unwrap()).to_string().repeat(5);
    let words: Vec<String> = (0..12).map(|_| word()).collect();
    format!("<13>Nov 26 20:00:00 billing app: {} took {} ms", words.join(" "), dice.below(1 << 40))
}

/// Packets, so many a second if that can be done; one in a thousand as long as a packet can be.
fn packets(to: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dice = Dice::new(33);
    let lines: Vec<String> = (0..10_000).map(|_| line(&mut dice)).collect();
    let long = format!("<13>{}", "long ".repeat(13_000));
    let (began, mut count) = (Instant::now(), 0);
    for line in lines.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        count += 1;
        let line = if count % 1_000 == 0 { &long } else { line };
        sent.fetch_add(u64::from(socket.send_to(line.as_bytes(), to).is_ok()), Ordering::Relaxed);
        let due = Duration::from_micros(count * 1_000_000 / A_SECOND);
        if let Some(early) = due.checked_sub(began.elapsed())
            && early > Duration::from_millis(1)
        {
            std::thread::sleep(early);
        }
    }
}

/// One connection, as fast as it takes: short lines that never come again, and lines of 64 KiB.
fn connection(to: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut dice = Dice::new(34);
    while !stop.load(Ordering::Relaxed) {
        let short: String = (0..100).map(|_| line(&mut dice) + "\n").collect();
        let piece = format!("{short}<13>{}\n", "x".repeat(64 << 10));
        let mut left = piece.as_bytes();
        while !left.is_empty() && !stop.load(Ordering::Relaxed) {
            let written = stream.write(left).unwrap_or(0); // it is kept waiting
            left = &left[written..];
        }
        sent.fetch_add(101, Ordering::Relaxed);
    }
}

/// Where a flood goes that is none of the daemon's: what it costs the machine, it costs here, too.
struct Sink {
    address: SocketAddr,
    _sockets: (UdpSocket, TcpListener),
}

impl Sink {
    fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        Self { address, _sockets: (UdpSocket::bind(address).unwrap(), tcp) }
    }
}

/// The most that a process ever had in memory, in bytes.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// Seconds of processor time that a process has taken.
fn processor(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// Seconds from the end of the process of `orders` to its incident, and to another process.
fn crash(lab: &Lab) -> (f64, f64) {
    let crashes = |lab: &Lab| -> Vec<Value> {
        lab.incidents().into_iter().filter(|incident| incident["fault"] == "VmCrashed").collect()
    };
    let (before, known) = (Start::of(lab, "orders"), crashes(lab).len());
    let there = vms_of(&lab.state());
    let (killed, at) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let process = rustix::process::Pid::from_raw(before.pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    lab.until_without_daemon(BOOT, "another process runs", || {
        vms_of(&lab.state()).iter().any(|pid| !there.contains(pid))
    });
    let again = killed.elapsed().as_secs_f64();
    lab.until(BOOT, "the crash is told of", |lab| crashes(lab).len() > known);
    let found = crashes(lab).swap_remove(0);
    (found["opened"].as_f64().unwrap() - at.as_secs_f64(), again)
}

/// Crashes the VM, and sees it through; the times of [`crash`].
fn through(lab: &Lab, flood: Option<SocketAddr>) -> (f64, f64) {
    let before = Start::of(lab, "orders");
    let flood = flood.map(Flood::start);
    let taken = processor(lab.daemon_pid());
    std::thread::sleep(Duration::from_secs(if flood.is_some() { 5 } else { 0 }));
    let share = (processor(lab.daemon_pid()) - taken) / 5.0;
    let times = crash(lab);
    if let Some(flood) = flood {
        let (rate, most) = (flood.rate(), peak(lab.daemon_pid()) >> 20);
        println!("{rate} lines a second, {share:.2} of a core, {most} MiB at most");
    }
    wait_restarted(lab, "orders", before);
    told(lab, &["vm", "release", "orders"]);
    times
}

/// Median, least and most.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    format!("{:.3} s ({:.3}-{:.3})", times[times.len() / 2], times[0], times[times.len() - 1])
}

/// `HOLDFAST_R33=10` crashes it so often with and without the flood.
#[test]
fn a_crash_is_found_beside_a_flood_of_syslog_of_another_vm_and_memory_is_bounded_r33_a20() {
    let _turn = turn();
    let rounds = std::env::var("HOLDFAST_R33").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut lab = Lab::new(&format!(
        "{}[vm.billing.log.sent]\naddress = [\"127.0.0.1\"]\n[logs.syslog]\nudp = \"{port}\"\ntcp = \"{port}\"\n",
        vm_section("billing")
    ));
    lab.start_warm(&["orders", "billing"]);
    let floods = Start::of(&lab, "billing");
    let idle = peak(lab.daemon_pid());

    let sink = Sink::new();
    let ways = [("no flood", None), ("flood of a sink", Some(sink.address)), ("flood", Some(port))];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for ((_, flood), times) in ways.iter().zip(&mut times) {
            times.push(through(&lab, *flood));
        }
    }
    let most = peak(lab.daemon_pid());
    println!("memory {} MiB at first, {} MiB at most", idle >> 20, most >> 20);
    for ((what, _), times) in ways.iter().zip(times) {
        let (found, again): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        println!("{what}: found {}, another process {}", spread(found), spread(again));
    }
    let all = lab.incidents();
    let others = |one: &&Value| match one["vm"].as_str() {
        Some("orders") => one["fault"] != "VmCrashed",
        vm => vm.is_some(),
    };
    assert_eq!(all.iter().find(others), None, "a flood is no fault: {}", lab.story());
    assert_eq!(Start::of(&lab, "billing"), floods, "{}", lab.story());
    assert!(lab.remedies().iter().all(|remedy| remedy == "restart-vm"), "{}", lab.story());
    assert!(most - idle < CEILING, "{most} bytes at most, {idle} before");

    let doc = lab.json(&["logs", "sources"]);
    let of = |subject: &str, source: &str| -> Value {
        let mut all = doc["sources"].as_array().unwrap().iter();
        let fits = |one: &&Value| {
            one["subject"].as_str().unwrap().starts_with(subject)
                && one["source"].as_str().unwrap().starts_with(source)
        };
        all.find(fits).cloned().unwrap()
    };
    let count = |one: &Value, what: &str| one[what].as_u64().unwrap();
    let sender = of("guest billing", "syslog");
    assert!(count(&sender, "records") > 0 && count(&sender, "dropped") > 0, "{sender}");
    lab.until(SOON, "the logs can be read", |lab| {
        let output = lab.cli(&["logs", "billing", "--source", "syslog", "--json", "-n", "10"]);
        output.status.success() && !output.stdout.is_empty()
    });
}
