//! `holdfast explain ID`: what was seen, what was ruled out, what was done, and why.

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, print_json};
use crate::api::around::AroundDoc;
use crate::api::shape::{EvidenceDoc, ExplainDoc, PlanDoc};
use crate::client::Client;

/// Explains one incident.
pub async fn explain(client: &Client, id: u64, json: bool) -> Result<Exit, CliError> {
    let explained: ExplainDoc = client.get(&format!("/api/v1/incidents/{id}")).await?;
    if json {
        print_json(&explained)?;
    } else {
        paint::text(&render(&explained));
    }
    Ok(Exit::Fine)
}

/// The explanation as text.
pub fn render(explained: &ExplainDoc) -> String {
    let incident = &explained.incident;
    let mut text = format!(
        "{} {} {} {}, {} {:.1} %\n",
        tint(Tone::Bold, &format!("#{}", incident.id)),
        incident.subject,
        explained.says,
        tint(Tone::Dim, &format!("({})", incident.fault)),
        incident.certainty.to_lowercase(),
        incident.probability * 100.0,
    );
    text.push_str(&format!(
        "   {}, opened {}, outage {}\n",
        paint::state(incident.resolution.as_deref().unwrap_or(&incident.phase)),
        paint::date(incident.opened),
        crate::api::shape::spoken(incident.outage_s),
    ));
    if let Some(reason) = &incident.reason {
        text.push_str(&format!("   {reason}\n"));
    }
    let counted =
        |sign: fn(f64) -> bool| explained.evidence.iter().filter(move |e| e.counts && sign(e.decibans));
    section(&mut text, "for", counted(|db| db > 0.0));
    section(&mut text, "against", counted(|db| db < 0.0));
    text.push_str(&format!("  prior     {:+6.1} dB  how often this happens at all\n", explained.prior));
    text.push_str(&format!("  grounds   {}\n", explained.grounds));
    for (n, rival) in explained.ruled_out.iter().enumerate() {
        let head = if n == 0 { "ruled out" } else { "" };
        text.push_str(&format!("  {head:9} {:+6.1} dB  {}\n", rival.decibans, rival.fault));
    }
    if let Some(plan) = &explained.plan {
        let why = if plan.why.is_empty() { "the gentlest there is" } else { &plan.why };
        let (remedy, on) = (tint(Tone::Bold, &plan.remedy), on_what(plan));
        text.push_str(&format!("  so        {remedy}: {on}; {why}\n"));
    }
    text.push('\n');
    for line in &explained.timeline {
        let at = tint(Tone::Dim, &format!("{:+9.3}s", line.at - incident.opened));
        text.push_str(&format!("  {at}  {:10}{}\n", line.step, line.text));
    }
    for file in &explained.files {
        text.push_str(&format!("  kept      {file}\n"));
    }
    text
}

/// What it rests on: certainty and a try, or a person's word.
fn on_what(plan: &PlanDoc) -> String {
    if plan.approved_by.is_some() {
        return "a person approved it".into(); // who, is in why
    }
    let needs = plan.needs * 100.0;
    if plan.try_number > plan.tries {
        return format!("needs {needs:.1} %, a try of its own");
    }
    format!("needs {needs:.1} %, try {} of {}", plan.try_number, plan.tries)
}

fn section<'a>(text: &mut String, head: &str, evidence: impl Iterator<Item = &'a EvidenceDoc>) {
    for (n, one) in evidence.enumerate() {
        let head = if n == 0 { head } else { "" };
        text.push_str(&format!(
            "  {head:9} {:+6.1} dB  {}{}\n",
            one.decibans,
            tint(Tone::Dim, &format!("{}: ", one.channel)),
            one.text,
        ));
        if let Some(lines) = &one.lines {
            around(text, lines);
        }
    }
}

/// The lines around the one that proves it, which is marked.
fn around(text: &mut String, lines: &AroundDoc) {
    if let Some(missing) = &lines.missing {
        text.push_str(&format!("                         ({missing})\n"));
    }
    for record in &lines.records {
        let (mark, tone) = if record.proves { (">", Tone::Bold) } else { (" ", Tone::Dim) };
        let mut at = paint::clock(record.time.unwrap_or(record.received));
        for line in record.text.lines() {
            text.push_str(&format!("          {mark} {at:12}  {}\n", tint(tone, line)));
            at.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_approved_is_no_try_and_needs_no_certainty() {
        let plan = |try_number, approved_by: Option<&str>| PlanDoc {
            remedy: "restore".into(),
            needs: 0.9,
            try_number,
            tries: 3,
            why: String::new(),
            approved_by: approved_by.map(ToOwned::to_owned),
        };
        assert_eq!(on_what(&plan(2, None)), "needs 90.0 %, try 2 of 3");
        assert_eq!(on_what(&plan(4, None)), "needs 90.0 %, a try of its own");
        assert_eq!(on_what(&plan(4, Some("ann"))), "a person approved it");
    }
}
