//! One drill from the announcement to the verdict.

use super::crowd::Crowd;
use super::faults::Client as By;
use super::{Drill, Reach, Writer};
use crate::api::shape::{IncidentDoc, StatusDoc, VmDoc};
use crate::client::{Client, ClientError};
use crate::config::{Secret, SecretError};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::signal::unix::SignalKind;

/// The longest a VM may take to be well before a drill begins, and to come back in it.
const WELL_LIMIT: Duration = Duration::from_secs(120);
const BACK_LIMIT: Duration = Duration::from_secs(180);
/// A fault that is not named within this is taken back.
const NAMED_LIMIT: Duration = Duration::from_secs(75);
/// A fault that need not be named is watched for so long, and so long after it was taken back.
const WATCH_BEARABLE: Duration = Duration::from_secs(25);
const WATCH_AFTER: Duration = Duration::from_secs(10);
/// What is still held so long after it was taken back waits for a person: whoever holds the drill is one.
const RELEASE_AFTER: Duration = Duration::from_secs(12);
/// Rows that must have been acknowledged before the fault, and after it.
const ROWS_BEFORE: u64 = 10;
const LOOK: Duration = Duration::from_millis(50);

/// The result of one drill, as in `drill run --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this shape.
    pub v: u32,
    /// The drill.
    pub fault: String,
    /// The VM.
    pub vm: String,
    /// The faults it may rightly be named.
    pub expected: Vec<String>,
    /// The fault that was named; `none` if nothing was.
    pub named: String,
    /// When it was injected, in seconds since the epoch.
    pub injected: f64,
    /// Seconds from there to the first evidence.
    pub detected_s: Option<f64>,
    /// To the confirmed diagnosis.
    pub diagnosed_s: Option<f64>,
    /// To the end of all harm.
    pub isolated_s: Option<f64>,
    /// The longest time without an acknowledged row.
    pub outage_s: f64,
    /// The remedy that helped, or `none`.
    pub remedy: String,
    /// The incident.
    pub incident: Option<u64>,
    /// Rows acknowledged in all.
    pub rows_acked: u64,
    /// Of those, how many are missing.
    pub rows_lost: u64,
    /// Named rightly, back in service, nothing lost.
    pub ok: bool,
    /// What was not as it should be.
    pub why: Option<String>,
}

/// Why a drill could not be held.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The daemon refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The fault could not be injected.
    #[error(transparent)]
    Injection(ClientError),
    /// It was broken off.
    #[error("the drill was interrupted: {0}")]
    Interrupted(String),
    /// The VM is not well to begin with.
    #[error("vm `{0}` is not well, so a drill would prove nothing: {1}")]
    NotWell(String, String),
    /// The password of the application cannot be had.
    #[error("the drill's client has no password")]
    Password(#[from] SecretError),
    /// There is nothing that a client could write to.
    #[error("vm `{0}` has no PostgreSQL application that a drill's client could write to")]
    NoClient(String),
}

/// What a drill tells while it goes on.
pub enum Progress<'a> {
    /// The client writes; the fault follows now.
    Injecting(&'a Drill),
    /// The fault is in.
    Injected,
    /// It was taken back.
    Undone,
}

/// Holds one drill. `tell` is called as it goes on.
pub async fn run(
    client: &Client,
    vm: &str,
    drill: &Drill,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, DrillError> {
    let reach: Vec<Reach> = client.get(&format!("/api/v1/vms/{vm}/client")).await?;
    let reach = reach.into_iter().find(|reach| reach.kind == "postgres");
    let reach = reach.ok_or_else(|| DrillError::NoClient(vm.to_owned()))?;
    wait_until_well(client, vm, WELL_LIMIT).await?;
    let password = reach.password.as_ref().map(Secret::read).transpose()?;
    let writer = Writer::start(reach, password);
    let written = wait_for_rows(&writer, ROWS_BEFORE, Duration::from_secs(30)).await;
    if !written {
        let why = writer.seen().trouble.unwrap_or_else(|| "it is slow".into());
        return Err(DrillError::NotWell(vm.to_owned(), format!("the drill's client gets no row in: {why}")));
    }
    client.command(vm, "drill-on", Some(BACK_LIMIT + WATCH_BEARABLE)).await?;
    tell(Progress::Injecting(drill));
    writer.mark();
    let injected = jiff::Timestamp::now().as_microsecond() as f64 / 1e6;
    let result = tokio::select! {
        result = inject_and_watch(client, vm, drill, &writer, injected, tell) => result,
        () = interrupted() => Err(DrillError::Interrupted("its fault was taken back".into())),
    };
    let left = take_back(client, vm, drill).await;
    let _ = client.command(vm, "drill-off", None).await; // it may have run out by itself
    if let (Err(DrillError::Interrupted(_)), Some(left)) = (&result, &left) {
        return Err(DrillError::Interrupted(left.clone()));
    }
    let (incident, mut why) = result?;
    if let Some(left) = left {
        why.get_or_insert(left);
    }
    let gap = writer.seen().longest_gap.as_secs_f64();
    let (rows_acked, rows_lost) = match writer.finish().await {
        Ok(counted) => counted,
        Err(cause) => {
            why.get_or_insert(crate::act::chain(&cause));
            (0, 0)
        }
    };
    Ok(report(drill, vm, injected, incident, gap, (rows_acked, rows_lost), why))
}

/// Takes the fault back once more, whatever happened: the VM is left as it was. What cannot be taken back.
async fn take_back(client: &Client, vm: &str, drill: &Drill) -> Option<String> {
    let undone = client.post(&format!("/api/v1/vms/{vm}/drills/{}/undo", drill.name)).await;
    let error = undone.err()?;
    let (cause, _) = error.advice();
    Some(format!("the fault may still be there: {}", cause.unwrap_or_else(|| error.to_string())))
}

/// Somebody wants it to end: ctrl-c, SIGTERM, or the end of its terminal.
pub async fn interrupted() {
    let heard = |kind| tokio::signal::unix::signal(kind);
    let (Ok(mut asked), Ok(mut gone)) = (heard(SignalKind::terminate()), heard(SignalKind::hangup())) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = asked.recv() => {}
        _ = gone.recv() => {}
    }
}

async fn inject_and_watch(
    client: &Client,
    vm: &str,
    drill: &Drill,
    writer: &Writer,
    injected: f64,
    tell: &mut dyn FnMut(Progress<'_>),
) -> Result<(Option<IncidentDoc>, Option<String>), DrillError> {
    let path = |step: &str| format!("/api/v1/vms/{vm}/drills/{}/{step}", drill.name);
    client.post(&path("inject")).await.map_err(DrillError::Injection)?;
    tell(Progress::Injected);
    let began = Instant::now();
    let mut crowd = (drill.client == By::Crowds).then(|| Crowd::gather(writer.login()));
    let mut undo_at = drill.undone_after.filter(|_| drill.is_bearable()).map(|after| began + after);
    let mut undone = drill.undone_after.is_none().then_some(began);
    let mut released = Vec::new();
    let mut well_since = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let since = since(client, vm, injected).await?;
        let incident = since.first().cloned();
        let named = incident.as_ref().is_some_and(|incident| incident.diagnosed.is_some());
        if let Some(after) = drill.undone_after.filter(|_| named && undo_at.is_none()) {
            undo_at = Some(Instant::now() + after);
        }
        let overdue = began.elapsed() > NAMED_LIMIT;
        if undone.is_none() && (overdue || undo_at.is_some_and(|at| at <= Instant::now())) {
            drop(crowd.take());
            client.post(&path("undo")).await?;
            tell(Progress::Undone);
            undone = Some(Instant::now());
        }
        let ours = |held: &IncidentDoc| held.phase == "held" && drill.expected.contains(&held.fault.as_str());
        let repaired = drill.undone_after.is_some() && undone.is_some_and(|at| at.elapsed() > RELEASE_AFTER);
        let held = since.iter().find(|held| ours(held) && !released.contains(&held.id));
        if let Some(held) = held.filter(|_| repaired) {
            client.command(vm, "release", None).await?;
            released.push(held.id);
        }
        let watched =
            began.elapsed() >= WATCH_BEARABLE && undone.is_some_and(|at| at.elapsed() >= WATCH_AFTER);
        let passed = drill.is_bearable() && watched;
        let over = incident.as_ref().map_or(passed, |incident| incident.closed.is_some());
        let well = over && undone.is_some() && is_well(client, vm).await?.is_none() && writes_again(writer);
        well_since = if well { well_since.or_else(|| Some(Instant::now())) } else { None };
        if well_since.is_some_and(|at| at.elapsed() >= drill.quiet_after()) {
            return Ok((incident, None));
        }
        if began.elapsed() > BACK_LIMIT {
            let state = is_well(client, vm).await?.unwrap_or_else(|| "nothing was named".into());
            return Ok((incident, Some(format!("not back within {} s: {state}", BACK_LIMIT.as_secs()))));
        }
    }
}

fn writes_again(writer: &Writer) -> bool {
    writer.seen().last.is_some_and(|last| last.elapsed() < Duration::from_secs(1))
}

/// The incidents since then that no wider one has absorbed: those that are confirmed before those that are suspected, the
/// first of them before the others.
async fn since(client: &Client, vm: &str, injected: f64) -> Result<Vec<IncidentDoc>, ClientError> {
    let mut all: Vec<IncidentDoc> = client.get("/api/v1/incidents").await?;
    all.retain(|incident| {
        incident.vm.as_deref() == Some(vm)
            && incident.opened >= injected - 0.05
            && incident.resolution.as_deref() != Some("absorbed")
    });
    all.sort_by_key(|incident| (incident.diagnosed.is_none(), incident.id));
    Ok(all)
}

fn report(
    drill: &Drill,
    vm: &str,
    injected: f64,
    incident: Option<IncidentDoc>,
    outage_s: f64,
    (rows_acked, rows_lost): (u64, u64),
    why: Option<String>,
) -> Report {
    let after = |at: Option<f64>| at.map(|at| ((at - injected) * 1_000.0).round() / 1_000.0);
    let confirmed = incident.as_ref().filter(|incident| incident.diagnosed.is_some());
    let named = confirmed.map_or("none".to_owned(), |incident| incident.fault.clone());
    let remedy = incident.as_ref().and_then(|i| i.remedies.last()).map_or("none".into(), |r| r.name.clone());
    let rightly = drill.expected.contains(&named.as_str());
    let why = why
        .or_else(|| (!rightly).then(|| format!("named {named}")))
        .or_else(|| (rows_lost > 0).then(|| format!("{rows_lost} acknowledged rows are missing")));
    Report {
        v: 1,
        fault: drill.name.into(),
        vm: vm.into(),
        expected: drill.expected.iter().map(|fault| (*fault).to_owned()).collect(),
        named,
        injected,
        detected_s: incident.as_ref().and_then(|incident| after(Some(incident.opened))),
        diagnosed_s: incident.as_ref().and_then(|incident| after(incident.diagnosed)),
        isolated_s: incident.as_ref().and_then(|incident| after(incident.isolated)),
        outage_s: (outage_s * 1_000.0).round() / 1_000.0,
        remedy,
        incident: incident.map(|incident| incident.id),
        rows_acked,
        rows_lost,
        ok: why.is_none(),
        why,
    }
}

async fn wait_for_rows(writer: &Writer, rows: u64, limit: Duration) -> bool {
    let began = Instant::now();
    while writer.seen().acked < rows {
        if began.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Waits until a VM runs, all its applications answer and no incident is open.
pub async fn wait_until_well(client: &Client, vm: &str, limit: Duration) -> Result<(), DrillError> {
    let began = Instant::now();
    loop {
        let Some(why) = is_well(client, vm).await? else { return Ok(()) };
        if began.elapsed() > limit {
            return Err(DrillError::NotWell(vm.to_owned(), why));
        }
        tokio::time::sleep(LOOK * 2).await;
    }
}

/// What is not well about a VM, if anything.
async fn is_well(client: &Client, vm: &str) -> Result<Option<String>, ClientError> {
    let status: StatusDoc = client.get("/api/v1/status").await?;
    let Some(vm) = status.vms.iter().find(|known| known.name == vm) else {
        return Ok(Some("there is no such vm".into()));
    };
    Ok(unwell(vm))
}

fn unwell(vm: &VmDoc) -> Option<String> {
    if vm.state != "running" {
        return Some(format!("it is {}", vm.state));
    }
    if let Some(app) = vm.apps.iter().find(|app| app.state != "ok") {
        return Some(format!("{} is {}", app.name, app.state));
    }
    vm.incident.map(|id| format!("incident #{id} is open"))
}
