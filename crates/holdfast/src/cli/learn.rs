//! `holdfast learn`: what closed incidents and drills have taught.

use super::paint;
use super::{CliError, Exit, print_json};
use crate::api::lessons::{LessonDoc, LessonsDoc};
use crate::client::Client;

/// A likelihood that moved by less than this is not worth a row.
const MOVED: f64 = 0.01;

/// Shows what was learned, and what that changes.
pub async fn learn(client: &Client, json: bool) -> Result<Exit, CliError> {
    let lessons: LessonsDoc = client.get("/api/v1/lessons").await?;
    if json {
        print_json(&lessons)?;
        return Ok(Exit::Fine);
    }
    if lessons.faults.is_empty() {
        say!(
            "nothing yet: Holdfast learns from incidents that it ended, and from drills (`holdfast drill run`)"
        );
        return Ok(Exit::Fine);
    }
    for lesson in &lessons.faults {
        show(lesson);
    }
    if lessons.used {
        say!("used: yes, likelihoods and orders are as learned");
    } else {
        say!("used: no, it is only counted; `learn = \"use\"` in the configuration has it used");
    }
    Ok(Exit::Fine)
}

fn show(lesson: &LessonDoc) {
    say!("{}, ended by a remedy {} times", lesson.fault, lesson.times);
    let mut table = paint::table(&["remedy", "helped", "mean"]);
    for tried in &lesson.remedies {
        let helped = format!("{} of {}", tried.helped, tried.tries);
        table.add_row([tried.name.clone(), helped, format!("{:.1}s", tried.mean_s)]);
    }
    say!("{table}");
    if let Some(order) = &lesson.order {
        say!("  order: {} ({})", order.join(", "), lesson.why.as_deref().unwrap_or_default());
    }
    let mut moved: Vec<_> = lesson.evidence.iter().collect();
    moved.retain(|seen| (seen.learned - seen.listed).abs() >= MOVED);
    if !moved.is_empty() {
        let mut table = paint::table(&["evidence", "seen", "catalogue", "learned"]);
        for seen in moved {
            table.add_row([
                seen.kind.clone(),
                format!("{} of {}", seen.seen, lesson.times),
                format!("{:.4}", seen.listed),
                format!("{:.4}", seen.learned),
            ]);
        }
        say!("{table}");
    }
    say!("");
}
