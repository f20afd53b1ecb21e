//! What the daemon costs while one VM talks and much of it is measured.

use crate::Bench;
use crate::cost::{Asked, watch};
use crate::lab::Lab;
use crate::world::World;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines a second, and in how many pieces they are sent.
const LINES: u32 = 100;
const PIECES: u32 = 10;
/// Numbers that are asked for beside those that are measured anyway: 60 or more in all.
const NUMBERS: usize = 52;

/// `busy-cost`
pub fn measure(bench: &mut Bench) {
    bench.say("busy-cost: a guest boots");
    let (lab, talk) = talking();
    let world = World::of(lab, &["orders"]);
    let what = "daemon with one VM, 100 lines/s, 60 series";
    watch(bench, &world, &Asked { figure: "busy-cost", what, memory: 40.0, share: 1.0 });
    drop(talk);
    tell_how_busy(bench, &world.lab, "busy-cost");
}

/// A laboratory whose VM `orders` is asked for many numbers, and whose program speaks all the time.
pub fn talking() -> (Lab, Talk) {
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let numbers =
        (0..NUMBERS).map(|n| format!("[vm.orders.number.n{n}]\nquery = \"select {n} + random()\"\n"));
    let lab = Lab::new(&format!(
        "[logs.syslog]\nudp = \"127.0.0.1:{port}\"\n[vm.orders.log.sent]\naddress = [\"127.0.0.1\"]\n{}",
        numbers.collect::<String>()
    ));
    (lab, Talk::start(port))
}

/// A program that logs at an even pace until this is dropped.
pub struct Talk {
    enough: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Talk {
    fn start(port: u16) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let of_sender = Arc::clone(&enough);
        Self { enough, sender: Some(std::thread::spawn(move || send(port, &of_sender))) }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        drop(self.sender.take().map(JoinHandle::join)); // it has nothing to tell
    }
}

/// What was really asked of it: a figure of an idle daemon would be none.
pub fn tell_how_busy(bench: &Bench, lab: &Lab, figure: &str) {
    let series = lab.json(&["metrics", "show", "orders"])["series"].as_array().map_or(0, Vec::len);
    let doc = lab.json(&["logs", "sources"]);
    let sent = doc["sources"].as_array().into_iter().flatten().find(|one| one["source"] == "syslog");
    let lines = sent.and_then(|one| one["records"].as_u64()).unwrap_or(0);
    bench.tell(&format!("{figure:<12} {series} series of the VM, {lines} lines taken in"));
}

/// Sends what programs say, at an even pace.
fn send(port: u16, enough: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut number = 0_u32;
    while !enough.load(Ordering::Relaxed) {
        for _ in 0..LINES / PIECES {
            number = number.wrapping_add(1);
            let _refused = socket.send_to(line(number).as_bytes(), ("127.0.0.1", port)); // then nobody counts it
        }
        std::thread::sleep(Duration::from_secs(1) / PIECES);
    }
}

fn line(number: u32) -> String {
    let what = match number % 7 {
        // What goes wrong every day, and is no fault.
        _ if number.is_multiple_of(503) => {
            "ERROR: duplicate key value violates unique constraint \"orders_pkey\"".into()
        }
        _ if number.is_multiple_of(997) => {
            format!("WARN client 10.0.3.{} went away: connection reset by peer", number % 250)
        }
        0 => format!("connection from 10.0.{}.{} accepted", number % 200, number % 250),
        1 => format!("request {number} served in {} ms", number % 97),
        2 => format!("session {number:08x} opened for user u{}", number % 400),
        3 => format!("cache: {} of {number} entries evicted", number % 50),
        4 => format!("GET /orders/{number} 200 {}", number % 9_000),
        5 => format!("checkpoint complete: wrote {} buffers", number % 300),
        _ => format!("worker {} picked up job {number}", number % 16),
    };
    format!("<14>Nov 26 10:00:00 shop app{}[{}]: {what}", number % 5, number % 5 + 100)
}
