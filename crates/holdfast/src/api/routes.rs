//! What can be asked and told, under `/api/v1`.

use super::lessons::LessonsDoc;
use super::shape::{ExplainDoc, IncidentDoc, ReloadDoc, StatusDoc, V, Wall};
use super::{again, named};
use crate::config::{AppConfig, Config, Kind, VmConfig};
use crate::decide::{Desk, Inbox};
use crate::drill;
use crate::events::Event;
use crate::protect::Protector;
use crate::reload::{ReloadError, Reloads};
use crate::sense::logs::health::Registry;
use crate::standing::Standing;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use holdfast_core::action::{Wish, Work};
use holdfast_core::incident::IncidentId;
use holdfast_core::subject::{AppName, Subject, VmName};
use holdfast_core::time::Duration;
use holdfast_drivers::{Driver, Places};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, watch};

/// The largest body anybody may send (I18).
const BODY_MOST: usize = 64 * 1024;
/// How long announced work lasts where nobody says.
const WORK_LASTS: Duration = Duration::from_secs(300);
/// The most lines one answer holds.
const LINES_MOST: usize = 2_000;

/// What the API stands on.
#[derive(Clone)]
pub struct Api {
    /// The loop.
    pub inbox: Inbox,
    /// The hypervisor, to say where things are and to inject drills.
    pub driver: Arc<dyn Driver>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where a new configuration is asked for.
    pub reloads: Reloads,
    /// Who is told what a drill puts in and takes back.
    pub keeper: mpsc::Sender<(VmName, drill::Told)>,
    /// What was logged.
    pub logs: super::logs::Logs,
    /// What was measured.
    pub numbers: super::numbers::Numbers,
    /// How the sources of logs are.
    pub sources: Registry,
    /// Since when channels stand as they do.
    pub standing: Standing,
    /// Backups of VMs.
    pub backups: crate::backups::Backups,
    /// Backups that take the place of disks.
    pub restorer: crate::backups::Restorer,
    /// Proofs that restore points work.
    pub proofs: crate::proofs::Proofs,
    /// Restore points.
    pub protector: Protector,
}

impl Api {
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }
}

/// A refusal: what, why, the way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The version of this shape.
    pub v: u32,
    /// What failed.
    pub error: String,
    /// Why.
    pub cause: String,
    /// The way out.
    pub hint: String,
    /// What is wrong with a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<Box<Problems>>,
}

/// What is wrong with a configuration, as `check` tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problems {
    /// The file.
    pub file: String,
    /// How many there are.
    pub count: usize,
    /// For people.
    pub shown: String,
    /// For programs.
    pub told: serde_json::Value,
}

/// A refusal with its HTTP status.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String, pub(super) String, pub(super) String);

/// A refusal of a configuration.
struct RefusedConfig(Box<Refusal>);

impl IntoResponse for RefusedConfig {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(*self.0)).into_response()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, error, cause, hint) = self;
        (status, Json(Refusal { v: V, error, cause, hint, problems: None })).into_response()
    }
}

impl From<crate::decide::Stopping> for Refused {
    fn from(stopping: crate::decide::Stopping) -> Self {
        let hint = "wait for it to start again".to_owned();
        Self(StatusCode::SERVICE_UNAVAILABLE, "cannot answer".into(), stopping.to_string(), hint)
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/api/v1/health", get(health))
        .route("/api/v1/status", get(status))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/lessons", get(lessons))
        .route("/api/v1/incidents/{id}", get(explain))
        .route("/api/v1/events", get(events))
        .route("/api/v1/events/stream", get(stream))
        .route("/api/v1/logs/sources", get(super::sources::sources))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/vms/{vm}/client", get(client))
        .route("/api/v1/vms/{vm}/drills/{fault}/{step}", post(inject))
        .route("/api/v1/vms/{vm}/{wish}", post(command))
        .merge(super::logs::routes())
        .merge(super::backups::routes())
        .merge(super::numbers::routes())
        .merge(super::snapshots::routes())
        .merge(super::points::routes())
        .merge(super::proofs::routes())
        .layer(DefaultBodyLimit::max(BODY_MOST))
        .layer(axum::middleware::map_response(refuse_in_our_words))
        .with_state(api)
}

/// So much of what axum says about a body is read (bytes).
const SAID_MOST: usize = 4 << 10;

/// What was refused before any of us saw it, as a body that is no JSON, is refused in the same shape.
async fn refuse_in_our_words(response: Response) -> Response {
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let said = axum::body::to_bytes(response.into_body(), SAID_MOST).await.unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(SAID_MOST / 4).collect();
    let cause = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY if !said.is_empty() => {
            let why = said.split_once(": ").map_or(&said[..], |(_what, why)| why); // which type of ours it is, is no matter
            format!("what is asked is not understood: {}", crate::config::tame(&why.replace('\n', " ")))
        }
        _ => status.canonical_reason().unwrap_or("it is refused").to_lowercase(),
    };
    let hint = "docs/json.md tells what can be asked, and how".to_owned();
    Refused(status, "cannot answer".into(), cause, hint).into_response()
}

async fn health(State(api): State<Api>) -> Result<Json<serde_json::Value>, Refused> {
    let vms = api.inbox.look(|desk| desk.engine.vms().count()).await?;
    Ok(Json(serde_json::json!({ "v": V, "ok": true, "vms": vms, "version": env!("CARGO_PKG_VERSION") })))
}

async fn status(State(api): State<Api>) -> Result<Json<StatusDoc>, Refused> {
    let config = api.config();
    let places: BTreeMap<VmName, Places> =
        config.vms.keys().map(|vm| (vm.clone(), api.driver.places(vm))).collect();
    let standing = api.standing;
    let mut doc = api.inbox.look(move |desk| status_doc(desk, &config, places, &standing)).await?;
    for (name, what) in api.restorer.lacking() {
        let vm = doc.vms.iter_mut().find(|vm| vm.name == name.as_str());
        vm.into_iter().for_each(|vm| vm.note = vm.note.take().or_else(|| Some(what.clone())));
    }
    Ok(Json(doc))
}

fn status_doc(
    desk: &Desk,
    config: &Config,
    mut places: BTreeMap<VmName, Places>,
    standing: &Standing,
) -> StatusDoc {
    let wall = Wall(desk);
    let now = desk.clock.now();
    let vms = desk.engine.vms().filter_map(|(name, _)| desk.engine.status(name, now)).map(|mut vm| {
        standing.complete(&mut vm);
        let mut place = places.remove(&vm.name).unwrap_or_default();
        let way_out = |why| format!("{why}; `holdfast vm restart {}` gives it a new one", vm.name);
        vm.note = vm.note.or(place.cut_off.take().map(way_out));
        let addresses = config.vms.get(&vm.name).map(|vm| addresses(vm, &place)).unwrap_or_default();
        wall.vm(vm, place, addresses)
    });
    let note = note(desk);
    let of_host = |subject: &Subject| matches!(subject, Subject::Host(_));
    let open = desk.engine.incidents().filter(|i| !i.is_closed() && of_host(&i.subject));
    StatusDoc {
        v: V,
        host: config.host.to_string(),
        mode: if note.is_some() { "observe".into() } else { "armed".into() },
        note,
        vms: vms.collect(),
        host_incidents: open.map(|incident| wall.incident(incident)).collect(),
    }
}

/// Why nothing is done, if that is so.
fn note(desk: &Desk) -> Option<String> {
    let mute = desk.mute.as_ref().map(|why| format!("the journal cannot be written: {why}"));
    let broken = desk.promises.broken();
    broken
        .map(|why| format!("a promise would have been broken ({why}); restart the daemon to act again"))
        .or(mute)
}

/// Where each application is reached from this host, as host:port.
fn addresses(vm: &VmConfig, places: &Places) -> BTreeMap<String, String> {
    let address = |(name, app): (&AppName, &AppConfig)| {
        let (host, port) = crate::sense::resolve(app.probe.target()?, places)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Some((name.to_string(), format!("{host}:{port}")))
    };
    vm.apps.iter().filter_map(address).collect()
}

/// What a drill is aimed at: the first application with a port.
fn aim(vm: &VmConfig) -> drill::Aim {
    let aimed = |app: &AppConfig| {
        Some(drill::Aim { port: Some(app.probe.target()?.port()), user: app.probe.login().0 })
    };
    vm.apps.values().find_map(aimed).unwrap_or_default()
}

async fn incidents(State(api): State<Api>) -> Result<Json<Vec<IncidentDoc>>, Refused> {
    let list = |desk: &Desk| {
        let wall = Wall(desk);
        desk.engine.incidents().rev().map(|incident| wall.incident(incident)).collect()
    };
    Ok(Json(api.inbox.look(list).await?))
}

async fn lessons(State(api): State<Api>) -> Result<Json<LessonsDoc>, Refused> {
    Ok(Json(api.inbox.look(|desk| LessonsDoc::of(&desk.engine)).await?))
}

async fn explain(State(api): State<Api>, Path(id): Path<u64>) -> Result<Json<ExplainDoc>, Refused> {
    let one = move |desk: &Desk| {
        let incident = desk.engine.incident(IncidentId(id))?;
        let now = desk.clock.wall(desk.clock.now());
        Some((Wall(desk).explain(incident), super::around::quotes(&desk.engine, incident), now))
    };
    let (mut doc, quotes, now) = api.inbox.look(one).await?.ok_or_else(|| {
        let (error, cause) =
            (format!("cannot explain incident #{id}"), "there is no such incident (any more)".into());
        Refused(StatusCode::NOT_FOUND, error, cause, "`holdfast incidents` lists them".into())
    })?;
    super::around::show_lines(&api.logs, &mut doc, quotes, now).await;
    Ok(Json(doc))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn events(State(api): State<Api>, Query(since): Query<Since>) -> Result<Json<Vec<Event>>, Refused> {
    let most = since.limit.unwrap_or(200).min(LINES_MOST);
    Ok(Json(api.inbox.look(move |desk| desk.events.since(since.after, most)).await?))
}

/// Live lines. A listener that does not read is cut off, not buffered for (A44).
async fn stream(State(api): State<Api>) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let lines = futures_util::stream::unfold(api.inbox.listen(), |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => {
                    let line = sse::Event::default().json_data(&event).unwrap_or_default();
                    return Some((Ok(line), live));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(lines).keep_alive(sse::KeepAlive::default())
}

/// What a command may say besides its name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// How long the guest may take to power down, in seconds.
    pub grace_s: Option<f64>,
    /// When announced work or maintenance ends by itself, in seconds from now.
    pub for_s: Option<f64>,
    /// The incarnation that the person saw; refused if another one runs by now.
    pub incarnation: Option<u64>,
    /// Who asks.
    pub by: Option<String>,
    /// Show what is wrong in colours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub colour: bool,
}

impl Words {
    /// Who asks, fit for log and record.
    pub(super) fn by(&self) -> String {
        self.by.as_deref().unwrap_or("api").chars().filter(|c| !c.is_control()).take(64).collect()
    }
}

/// Reads the configuration again. What is wrong with it is told as `check` tells it.
async fn reload(State(api): State<Api>, words: Option<Json<Words>>) -> Response {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let error = match api.reloads.ask(&words.by()).await {
        Ok(doc) => return Json::<ReloadDoc>(doc).into_response(),
        Err(error) => error,
    };
    let (said, why) = (error.to_string(), crate::act::cause(&error));
    match error {
        ReloadError::Config(errors) => {
            let problems = Problems {
                file: errors.0.origin().to_owned(),
                count: errors.0.count(),
                shown: errors.0.render(Kind::Error, words.colour),
                told: errors.0.to_json(),
            };
            let cause = format!("{} of its settings are wrong", problems.count);
            let hint = "`holdfast check` shows them".to_owned();
            let problems = Some(Box::new(problems));
            RefusedConfig(Box::new(Refusal { v: V, error: said, cause, hint, problems })).into_response()
        }
        ReloadError::Driver(_) => {
            let hint = "`holdfast doctor` tells what is missing".to_owned();
            Refused(StatusCode::CONFLICT, said, why, hint).into_response()
        }
        ReloadError::Stopping(stopping) => Refused::from(stopping).into_response(),
    }
}

async fn command(
    State(api): State<Api>,
    Path((vm, wish)): Path<(String, String)>,
    words: Option<Json<Words>>,
) -> Result<Json<serde_json::Value>, Refused> {
    let words = words.map(|Json(words)| words).unwrap_or_default();
    let error = format!("cannot {wish} vm `{}`", vm.escape_debug());
    let vm = named::vm(&vm, || error.clone())?;
    refuse_stale(&api, &vm, &words, &error).await?;
    let now = api.inbox.look(|desk| desk.clock.now()).await?;
    let until = words.for_s.map(|seconds| now + seconds_of(seconds));
    let grace = words.grace_s.map_or(Duration::from_secs(60), seconds_of);
    let wish = match wish.as_str() {
        "start" => Wish::Start,
        "stop" => Wish::Stop { grace },
        "restart" => Wish::Restart { grace },
        "pause" => Wish::Pause,
        "resume" => Wish::Resume,
        "maintenance-on" => Wish::MaintenanceOn { until },
        "maintenance-off" => Wish::MaintenanceOff,
        "release" => Wish::Release,
        other => match work(other) {
            Some((work, true)) => Wish::Announce { work, until: until.unwrap_or(now + WORK_LASTS) },
            Some((work, false)) => Wish::WorkDone(work),
            None => {
                let hint = "start stop restart pause resume release maintenance-on maintenance-off, and -on and \
                            -off of backup freeze migration reboot drill";
                let cause = "there is no such command".to_owned();
                return Err(Refused(StatusCode::NOT_FOUND, error, cause, hint.into()));
            }
        },
    };
    if matches!(wish, Wish::Restart { .. }) {
        again::refuse_restart(&api, &vm, &error).await?;
    }
    match api.inbox.command(&words.by(), vm, wish).await?.refused {
        None => Ok(Json(serde_json::json!({ "v": V, "ok": true }))),
        Some(cause) => {
            let hint = "`holdfast vm show` tells how it stands".to_owned();
            Err(Refused(StatusCode::CONFLICT, error, cause, hint))
        }
    }
}

/// `WORK-on` announces work, `WORK-off` ends it.
fn work(wish: &str) -> Option<(Work, bool)> {
    let (work, switch) = wish.rsplit_once('-')?;
    let work = serde_json::from_value(work.into()).ok()?;
    matches!(switch, "on" | "off").then_some((work, switch == "on"))
}

async fn refuse_stale(api: &Api, vm: &VmName, words: &Words, error: &str) -> Result<(), Refused> {
    let Some(seen) = words.incarnation else { return Ok(()) };
    let name = vm.clone();
    let running =
        api.inbox.look(move |desk| desk.engine.vm(&name).and_then(|vm| vm.current_incarnation())).await?;
    if running.map(|incarnation| incarnation.0) == Some(seen) {
        return Ok(());
    }
    let cause = format!("you saw incarnation #{seen}, but another one runs by now");
    Err(Refused(StatusCode::CONFLICT, error.to_owned(), cause, "look again, then decide".into()))
}

fn seconds_of(seconds: f64) -> Duration {
    if seconds.is_finite() { Duration::from_secs_f64(seconds.clamp(0.0, 1e7)) } else { Duration::ZERO }
}

/// How a drill's own client reaches the applications of a VM.
async fn client(State(api): State<Api>, Path(vm): Path<String>) -> Result<Json<Vec<drill::Reach>>, Refused> {
    let config = api.config();
    let found = vm.parse::<VmName>().ok().and_then(|name| config.vms.get(&name).map(|vm| (name, vm)));
    let Some((name, vm)) = found else {
        let error = format!("cannot reach vm `{}`", vm.escape_debug());
        let hint = "`holdfast vm list` lists them".to_owned();
        return Err(Refused(StatusCode::NOT_FOUND, error, "there is no such vm".into(), hint));
    };
    Ok(Json(drill::reach(vm, &api.driver.places(&name))))
}

/// Injects a named fault, or takes it back. Only while a drill is announced, so that it is never a surprise.
async fn inject(
    State(api): State<Api>,
    Path((vm, fault, step)): Path<(String, String, String)>,
) -> Result<Json<serde_json::Value>, Refused> {
    let error = format!("cannot drill `{}`", fault.escape_debug());
    let refuse = |status, cause: String, hint: &str| Refused(status, error.clone(), cause, hint.into());
    let name = named::vm(&vm, || error.clone())?;
    let Some(drill) = drill::find(&fault) else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "there is no such drill".into(),
            "see `holdfast drill list`",
        ));
    };
    let announced = drill::is_announced(&api.inbox, &name).await?;
    if !announced {
        let hint = "`holdfast drill run` announces it";
        return Err(refuse(StatusCode::CONFLICT, "no drill is announced for this vm".into(), hint));
    }
    let aim = api.config().vms.get(&name).map(aim).unwrap_or_default();
    let (injections, nothing) = if step == "undo" {
        (Some(drill.undo(&aim)), "it was not taken back")
    } else {
        (drill.inject(&aim), "nothing was injected")
    };
    let Some(injections) = injections else {
        let cause = format!("{nothing}: the vm has no application with a port");
        return Err(refuse(StatusCode::CONFLICT, cause, "configure one with a `probe`"));
    };
    if step != "undo" {
        again::refuse_drill(&api, &name, &error).await?;
        let _ = api.keeper.send((name.clone(), drill::Told::In(*drill, aim))).await; // it stops with us
    }
    for injection in injections {
        if let Err(error) = api.driver.inject(&name, &injection).await {
            let nothing = if error.is_unknown() { "nobody knows whether it was done" } else { nothing };
            let cause = format!("{nothing}: {}", crate::act::chain(&error));
            return Err(refuse(StatusCode::BAD_GATEWAY, cause, "`holdfast doctor` tells what is missing"));
        }
    }
    if step == "undo" {
        let _ = api.keeper.send((name, drill::Told::Out(*drill))).await;
    }
    Ok(Json(serde_json::json!({ "v": V, "ok": true })))
}
