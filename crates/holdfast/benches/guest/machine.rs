//! Where and when it was measured.

use serde_json::{Value, json};
use std::process::Command;

/// The machine, the build, the versions, the time.
pub fn about() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix(':'));
        line.unwrap_or("unknown").trim().to_owned()
    };
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    json!({
        "date": jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "commit": first_line("git", &["rev-parse", "--short", "HEAD"]),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "model": field(&read("/proc/cpuinfo"), "model name"),
        "memory_gib": memory.map(|kilobytes| (kilobytes / 1024.0 / 1024.0).round()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "qemu": first_line("qemu-system-x86_64", &["--version"]),
        "guest": "the demo guest, 512 MiB, one processor, software emulation",
    })
}

/// The same for people.
pub fn line(about: &Value) -> String {
    let text = |key: &str| about[key].as_str().unwrap_or("unknown").to_owned();
    let build = match text("build").as_str() {
        "debug" => "DEBUG BUILD: memory, processor and speed are not those of a release".to_owned(),
        other => format!("{other} build"),
    };
    format!(
        "{}; {build}, commit {}\n{} x {}, {} GiB, Linux {}\n{}\nguest: {}\n",
        text("date"),
        text("commit"),
        about["processors"],
        text("model"),
        about["memory_gib"],
        text("kernel"),
        text("qemu"),
        text("guest")
    )
}

fn first_line(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(ToOwned::to_owned)
}
