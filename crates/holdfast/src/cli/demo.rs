//! `holdfast demo`: a real guest with a real PostgreSQL, five real faults, one after the other.
//!
//! Starts its own daemon on a state folder of its own and stops everything it started, also when it is
//! interrupted, unless it is told to keep it.

use super::drill::{complain_of, progress_line, table};
use super::incidents::{complete, event_line};
use super::paint::{Tone, tint};
use super::{CliError, Exit};
use crate::api::shape::StatusDoc;
use crate::client::Client;
use crate::config::socket_in;
use crate::drill::{self, Report, run, wait_until_well};
use clap::Args;
use http_body_util::BodyExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Child;

/// The faults of the demo, gentlest first.
const FAULTS: [&str; 5] = ["app-kill", "app-stop", "disk-error", "guest-panic", "vm-kill"];
/// The guest boots under emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How the demo is run.
#[derive(Args)]
pub struct DemoArgs {
    /// The folder of the guest's image (`vmlinux`, `initrd.gz`, `base.raw`); built if missing.
    #[arg(long, value_name = "DIR", env = "HOLDFAST_IMAGE")]
    image: Option<PathBuf>,
    /// Leave everything running at the end, to play with.
    #[arg(long)]
    keep: bool,
    /// Where the demo keeps its state; a new folder under the temporary folder if none is named.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Force software emulation.
    #[arg(long)]
    tcg: bool,
    /// Run these drills instead.
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    faults: Vec<String>,
}

/// Runs the demo. Exit code 1 if anything did not come back, was named wrongly, or was lost.
pub async fn demo(args: &DemoArgs) -> Result<Exit, CliError> {
    let faults: Vec<String> =
        if args.faults.is_empty() { FAULTS.map(str::to_owned).to_vec() } else { args.faults.clone() };
    let image = super::guest::image(args.image.as_deref())?;
    let stage = Stage::set(&image, args)?;
    say!("state folder {}", stage.folder.display());
    let mut daemon = stage.start_daemon()?;
    let shown = tokio::select! {
        shown = show(&stage, &faults) => shown,
        () = drill::interrupted() => Err(interrupted()),
        status = daemon.wait() => Err(stage.daemon_died(&status)),
    };
    if args.keep && shown.is_ok() {
        stage.say_how_to_play();
        return shown;
    }
    stage.strike(daemon).await;
    shown
}

fn interrupted() -> CliError {
    CliError::Said {
        error: "the demo was interrupted".into(),
        cause: "it was told to end, as by ctrl-c".into(),
        hint: "everything it started was stopped; run it again any time".into(),
    }
}

/// What the demo stands on: a folder with a disk, a configuration and a daemon's state.
struct Stage {
    folder: PathBuf,
    config: PathBuf,
    client: Client,
    ours: bool,
}

impl Stage {
    fn set(image: &Path, args: &DemoArgs) -> Result<Self, CliError> {
        let folder = args
            .folder
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("holdfast-demo-{}", std::process::id())));
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let io = |what: &str| {
            let what = format!("{what} in {}", folder.display());
            move |source| CliError::Io { what, source }
        };
        std::fs::create_dir_all(&folder).map_err(io("make the demo's folder"))?;
        let disk = folder.join("orders.qcow2");
        if !disk.exists() {
            super::guest::overlay(&image.join("base.raw"), &disk)?;
        }
        let config = folder.join("holdfast.toml");
        std::fs::write(&config, configuration(image, args.tcg)).map_err(io("write the configuration"))?;
        let client = Client::new(&socket_in(&folder.join("state")));
        Ok(Self { folder, config, client, ours: args.folder.is_none() })
    }

    fn start_daemon(&self) -> Result<Child, CliError> {
        let io = |source| CliError::Io { what: "start the daemon".into(), source };
        let log = std::fs::File::create(self.folder.join("daemon.log")).map_err(io)?;
        let program = std::env::current_exe().map_err(io)?;
        let mut command = tokio::process::Command::new(program);
        command.arg("run").arg("--config").arg(&self.config);
        command.env_remove("HOLDFAST_STATE").env_remove("HOLDFAST_CONFIG");
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io)?).stderr(log).process_group(0);
        command.spawn().map_err(io)
    }

    fn daemon_died(&self, status: &std::io::Result<std::process::ExitStatus>) -> CliError {
        let log = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
        let from = log.len().saturating_sub(2_000);
        let tail = log.get(from..).unwrap_or(&log).to_owned();
        CliError::Said {
            error: format!("the daemon ended: {status:?}"),
            cause: format!("its log ends with:\n{tail}"),
            hint: "`holdfast doctor` tells what this machine lacks".into(),
        }
    }

    fn say_how_to_play(&self) {
        let state = self.folder.join("state");
        say!("\neverything is left running, to play with:");
        say!("  export HOLDFAST_STATE={}", state.display());
        say!(
            "  holdfast status; holdfast watch; holdfast drill run guest-hang --vm orders; holdfast explain 1"
        );
        say!(
            "and to end it: holdfast vm stop orders --force, then `holdfast run`'s process in {}",
            state.join("lock").display()
        );
    }

    /// Stops what was started: first the VM, then the daemon, then the folder goes.
    async fn strike(&self, mut daemon: Child) {
        say!("\nstopping the VM and the daemon");
        let words = crate::api::Words { grace_s: Some(0.0), by: Some("demo".into()), ..Default::default() };
        let asked = self.client.tell("/api/v1/vms/orders/stop", &words).await;
        let began = Instant::now();
        while asked.is_ok() && began.elapsed() < STOP_LIMIT {
            let status: Result<StatusDoc, _> = self.client.get("/api/v1/status").await;
            if status.is_ok_and(|status| status.vms.iter().all(|vm| vm.state == "stopped")) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Some(pid) = daemon.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_LIMIT, daemon.wait()).await.is_err() {
            let _ = daemon.kill().await;
        }
        if self.ours && asked.is_ok() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn configuration(image: &Path, tcg: bool) -> String {
    let quoted = |name: &str| toml::Value::String(image.join(name).display().to_string()).to_string();
    format!(
        r#"# The demo: one VM with PostgreSQL, protected.
state = "state"

[vm.orders]
driver = "qemu"
disk   = "orders.qcow2"
images = [{images}]
memory = "512MiB"
kernel = {kernel}
initrd = {initrd}
cmdline = "quiet root=/dev/vda rw panic=-1"
accel  = "{accel}"

[vm.orders.app.postgres]
probe   = "postgres://orders@guest/orders"
restart = "service postgresql restart"
"#,
        images = quoted(""),
        kernel = quoted("vmlinux"),
        initrd = quoted("initrd.gz"),
        accel = if tcg { "tcg" } else { "auto" },
    )
}

async fn show(stage: &Stage, faults: &[String]) -> Result<Exit, CliError> {
    let began = Instant::now();
    wait_for_daemon(&stage.client).await?;
    say!("the daemon runs; waiting until PostgreSQL answers in a guest that boots from scratch");
    wait_until_well(&stage.client, "orders", BOOT_LIMIT).await?;
    say!("{} after {:.1} s\n", tint(Tone::Good, "PostgreSQL answers"), began.elapsed().as_secs_f64());
    let live = tokio::spawn(follow(stage.client.clone()));
    let mut reports = Vec::new();
    for (n, fault) in faults.iter().enumerate() {
        let Some(drill) = drill::find(fault) else {
            return Err(CliError::Said {
                error: format!("there is no drill `{fault}`"),
                cause: "the name is not in the list".into(),
                hint: "`holdfast drill list` lists them".into(),
            });
        };
        say!("{}", tint(Tone::Bold, &format!("{} of {}", n + 1, faults.len())));
        let mut tell = |progress: drill::Progress<'_>| say!("{}", progress_line(&progress));
        reports.push(run(&stage.client, "orders", drill, &mut tell).await?);
        tokio::time::sleep(Duration::from_millis(200)).await; // the last lines of the story
        say!();
    }
    live.abort();
    Ok(sum_up(&reports, began.elapsed()))
}

fn sum_up(reports: &[Report], took: Duration) -> Exit {
    say!("{}\n", table(reports));
    reports.iter().for_each(complain_of);
    let well = reports.iter().filter(|report| report.ok).count();
    let rows: u64 = reports.iter().map(|report| report.rows_acked).sum();
    let lost: u64 = reports.iter().map(|report| report.rows_lost).sum();
    let verdict =
        if well == reports.len() { tint(Tone::Good, "all well") } else { tint(Tone::Bad, "not well") };
    say!(
        "{verdict}: {well} of {} faults named and healed, {rows} rows acknowledged, {lost} lost, {:.0} s",
        reports.len(),
        took.as_secs_f64()
    );
    if well == reports.len() { Exit::Fine } else { Exit::Failed }
}

async fn wait_for_daemon(client: &Client) -> Result<(), CliError> {
    let began = Instant::now();
    loop {
        match client.get::<serde_json::Value>("/api/v1/health").await {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > STOP_LIMIT => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Shows live what Holdfast sees, decides and does.
async fn follow(client: Client) {
    let Ok(mut live) = client.stream().await else { return };
    let mut pending = Vec::new();
    while let Some(Ok(frame)) = live.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        pending.extend_from_slice(&bytes);
        for event in complete(&mut pending) {
            say!("  {}", event_line(&event));
        }
    }
}
