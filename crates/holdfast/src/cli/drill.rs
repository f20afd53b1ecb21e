//! `holdfast drill ...`: one real fault, on purpose, measured.

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, Place, print_json};
use crate::drill::{ALL, Drill, Progress, Report, find, run};
use clap::Subcommand;

/// What can be done with drills.
#[derive(Subcommand)]
pub enum DrillCommand {
    /// List the faults that can be injected.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Inject one into a VM, watch, measure, count its rows. The VM is disturbed for real.
    Run {
        /// The fault.
        fault: String,
        /// The VM.
        #[arg(long)]
        vm: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Carries out one of them.
pub async fn drill(place: &Place, command: DrillCommand) -> Result<Exit, CliError> {
    match command {
        DrillCommand::List { json } => list(json),
        DrillCommand::Run { fault, vm, json, yes } => {
            let drill = find(&fault).ok_or_else(|| unknown(&fault))?;
            super::vm::checked(&vm)?;
            if !yes && !json && !agreed(drill, &vm)? {
                return Ok(Exit::Failed);
            }
            let mut tell = |progress: Progress<'_>| {
                if !json {
                    eprintln!("{}", progress_line(&progress));
                }
            };
            let report = run(&place.client()?, &vm, drill, &mut tell).await?;
            if json {
                print_json(&report)?;
            } else {
                say!("{}", table(std::slice::from_ref(&report)));
                complain_of(&report);
            }
            Ok(if report.ok { Exit::Fine } else { Exit::NotHealthy })
        }
    }
}

fn unknown(fault: &str) -> CliError {
    let names: Vec<&str> = ALL.iter().map(|drill| drill.name).collect();
    CliError::Usage {
        error: format!("there is no drill {}", crate::config::quote(fault)),
        cause: format!("there are: {}", names.join(", ")),
        hint: "`holdfast drill list` tells what each does".into(),
    }
}

/// A real fault needs a person's yes.
fn agreed(drill: &Drill, vm: &str) -> Result<bool, CliError> {
    eprint!("This disturbs vm {vm} for real: {}. Go on? [y/N] ", drill.does);
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|source| CliError::Io { what: "read your answer".into(), source })?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn list(json: bool) -> Result<Exit, CliError> {
    if json {
        let list: Vec<_> = ALL
            .iter()
            .map(|drill| serde_json::json!({ "v": 1, "fault": drill.name, "does": drill.does, "expected": drill.expected }))
            .collect();
        print_json(&list)?;
        return Ok(Exit::Fine);
    }
    let mut rows = paint::table(&["fault", "should be named", "what it does"]);
    for drill in ALL {
        rows.add_row([tint(Tone::Bold, drill.name), drill.expected.join(" or "), drill.does.to_owned()]);
    }
    say!("{rows}");
    Ok(Exit::Fine)
}

/// A line about how a drill goes on.
pub fn progress_line(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Injecting(drill) => format!("  drill {}: {}", tint(Tone::Bold, drill.name), drill.does),
        Progress::Injected => tint(Tone::Dim, "  the fault is in"),
        Progress::Undone => tint(Tone::Dim, "  the fault was taken back"),
    }
}

/// What was not as it should be, if anything.
pub fn complain_of(report: &Report) {
    if let Some(why) = &report.why {
        say!("{} {}: {why}", tint(Tone::Bad, "not ok"), report.fault);
    }
}

/// The results as a table.
pub fn table(reports: &[Report]) -> comfy_table::Table {
    let mut rows = paint::table(&[
        "fault",
        "named cause",
        "detected",
        "confirmed",
        "outage",
        "remedy",
        "rows acked",
        "rows lost",
        "",
    ]);
    for report in reports {
        let verdict = if report.ok { tint(Tone::Good, "ok") } else { tint(Tone::Bad, "not ok") };
        rows.add_row([
            tint(Tone::Bold, &report.fault),
            report.named.clone(),
            paint::seconds(report.detected_s),
            paint::seconds(report.diagnosed_s),
            format!("{:.2} s", report.outage_s),
            report.remedy.clone(),
            report.rows_acked.to_string(),
            report.rows_lost.to_string(),
            verdict,
        ]);
    }
    rows
}
