//! `holdfast prove VM`: a restore point is booted in a sandbox, and its applications are asked.

use super::{CliError, Exit, print_json};
use crate::api::Words;
use crate::api::proofs::ProofWords;
use crate::client::{Client, ClientError, Method};
use crate::proofs::{ProofDoc, ProofState};
use clap::Args;
use holdfast_core::point::Grade;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often it is asked how it goes.
const LOOK: Duration = Duration::from_millis(200);

/// Points are listed before one is chosen, which may take so long.
const PATIENCE: Duration = Duration::from_secs(140);

/// What is proved.
#[derive(Args)]
pub struct ProveArgs {
    /// The VM.
    vm: String,
    /// The restore point, as `holdfast points` names it; the newest, if none is named.
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Has it tried, and waits until that is over. Ctrl-C ends the trial.
pub async fn prove(client: &Client, args: &ProveArgs) -> Result<Exit, CliError> {
    let vm = super::vm::checked(&args.vm)?;
    if let Some(point) = &args.point {
        must_be_point(point)?;
    }
    let place = format!("/api/v1/vms/{vm}/proof");
    let words = ProofWords { point: args.point.clone(), by: client.by().to_owned() };
    let begun: ProofDoc = client.order(Method::POST, &place, &words, PATIENCE).await?;
    let ended = wait(client, &place, begun, args.json).await?;
    if args.json {
        print_json(&ended)?;
    } else {
        tell(&ended);
    }
    let is_proved = ended.state == ProofState::Done && ended.grade > Some(Grade::Taken);
    Ok(if is_proved { Exit::Fine } else { Exit::Failed })
}

/// A point as `holdfast points` names it, which need not be there.
fn must_be_point(point: &str) -> Result<(), CliError> {
    let number = point.rsplit_once('/').and_then(|(_, number)| number.parse::<u64>().ok());
    number.map(drop).ok_or_else(|| CliError::Usage {
        error: format!("{} is no restore point", crate::config::quote(point)),
        cause: "it is not written as `snapshot/NUMBER` or `NAME/NUMBER`".into(),
        hint: "`holdfast points VM` lists them".into(),
    })
}

async fn wait(client: &Client, place: &str, begun: ProofDoc, is_quiet: bool) -> Result<ProofDoc, CliError> {
    let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(format!("{}: {} boots in a sandbox", begun.vm, begun.point));
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let (mut doc, mut is_cancelled) = (begun, false);
    while doc.state == ProofState::Runs {
        tokio::select! {
            _ = &mut interrupted, if !is_cancelled => {
                is_cancelled = true;
                let words = Words { by: Some(client.by().to_owned()), ..Words::default() };
                match client.tell(&format!("{place}/cancel"), &words).await {
                    Ok(()) | Err(ClientError::Refused(_)) => {} // it is over already
                    Err(error) => return Err(error.into()),
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        doc = client.get(place).await?;
    }
    bar.finish_and_clear();
    Ok(doc)
}

/// Says how it ended.
fn tell(doc: &ProofDoc) {
    let (vm, point) = (&doc.vm, &doc.point);
    let words = doc.words.as_deref().unwrap_or_default();
    let took = doc.seconds.unwrap_or_default();
    match (doc.state, doc.grade) {
        (ProofState::Done, Some(Grade::Taken) | None) => say!("{vm}: {point} is NOT proved: {words}"),
        (ProofState::Done, Some(grade)) => {
            let wait =
                doc.boot_s.map_or_else(String::new, |boot| format!("; users would have waited {boot:.1} s"));
            say!("{vm}: {point} is proved, {grade}, in {took:.0} s{wait}");
            words.split("; ").for_each(|line| say!("  {line}"));
        }
        (ProofState::Cancelled, _) => say!("{vm}: the trial of {point} was ended; nothing is proved"),
        (ProofState::Failed | ProofState::Runs, _) => say!("{vm}: {point} could not be tried: {words}"),
    }
}
