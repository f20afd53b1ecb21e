//! `holdfast incidents` and `holdfast events`: what went wrong, and what was done, line by line.

use super::paint::{self, Tone, tint};
use super::{CliError, Exit, print_json};
use crate::api::shape::{IncidentDoc, spoken};
use crate::client::Client;
use crate::events::Event;
use http_body_util::BodyExt;

/// Lists incidents, newest first.
pub async fn incidents(client: &Client, json: bool, open: bool) -> Result<Exit, CliError> {
    let mut list: Vec<IncidentDoc> = client.get("/api/v1/incidents").await?;
    list.retain(|incident| !open || incident.closed.is_none());
    if json {
        print_json(&list)?;
        return Ok(Exit::Fine);
    }
    if list.is_empty() {
        say!("no incidents");
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["id", "opened", "subject", "fault", "sure", "state", "outage", "remedy"]);
    for (incident, follows) in by_cause(&list) {
        let remedy = incident.remedies.last().map_or("-", |remedy| &remedy.name);
        let lead = if follows { "└ " } else { "" };
        table.add_row([
            format!("{lead}#{}", incident.id),
            paint::date(incident.opened),
            about(incident),
            incident.fault.clone(),
            format!("{:.1} %", incident.probability * 100.0),
            paint::state(incident.resolution.as_deref().unwrap_or(&incident.phase)),
            spoken(incident.outage_s),
            remedy.to_owned(),
        ]);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

/// One trouble is one group: what follows from an incident stands right below it.
fn by_cause(list: &[IncidentDoc]) -> impl Iterator<Item = (&IncidentDoc, bool)> {
    let is_listed = |id: u64| list.iter().any(|incident| incident.id == id);
    let alone = move |incident: &&IncidentDoc| !incident.cause.is_some_and(is_listed);
    let below = |id: u64| list.iter().filter(move |other| other.cause == Some(id)).map(|other| (other, true));
    list.iter()
        .filter(alone)
        .flat_map(move |incident| std::iter::once((incident, false)).chain(below(incident.id)))
}

/// What it is about; of a host's also the VMs that it strikes, and of a VM's what it follows from.
fn about(incident: &IncidentDoc) -> String {
    let subject = &incident.subject;
    match (&incident.strikes[..], incident.cause) {
        ([], None) => subject.clone(),
        ([], Some(cause)) => format!("{subject}, by #{cause}"),
        (vms, _) => format!("{subject}, and by it {}", vms.join(" ")),
    }
}

/// Shows what happened lately, and goes on as it happens if asked to.
pub async fn events(client: &Client, follow: bool, json: bool, lines: usize) -> Result<Exit, CliError> {
    let live = if follow { Some(client.stream().await?) } else { None };
    let past: Vec<Event> = client.get(&format!("/api/v1/events?limit={lines}")).await?;
    let mut last = 0;
    for event in &past {
        last = event.n;
        print_event(event, json)?;
    }
    let Some(mut live) = live else { return Ok(Exit::Fine) };
    let mut pending = Vec::new();
    while let Some(frame) = live.frame().await {
        if paint::is_unread() {
            break;
        }
        let frame = frame.map_err(crate::client::ClientError::Http)?;
        let Ok(bytes) = frame.into_data() else { continue };
        pending.extend_from_slice(&bytes);
        for event in complete::<Event>(&mut pending) {
            if event.n > last {
                print_event(&event, json)?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// Takes the whole `data:` lines out of what has come so far.
pub fn complete<T: serde::de::DeserializeOwned>(pending: &mut Vec<u8>) -> Vec<T> {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = pending.drain(..=end).collect();
    let text = String::from_utf8_lossy(&whole);
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok()).collect()
}

fn print_event(event: &Event, json: bool) -> Result<(), CliError> {
    if json {
        return super::print_json_line(event);
    }
    say!("{}", event_line(event));
    Ok(())
}

/// One event as a line.
pub fn event_line(event: &Event) -> String {
    let tone = match event.step.as_str() {
        "held" => Tone::Bad,
        "diagnosis" => Tone::Warm,
        "closed" => Tone::Good,
        _ => Tone::Plain,
    };
    format!(
        "{}  {:5} {}{}",
        tint(Tone::Dim, &paint::clock(event.at)),
        format!("#{}", event.incident),
        tint(tone, &format!("{:10}", event.step)),
        event.text,
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn incident(id: u64, cause: Option<u64>) -> IncidentDoc {
        let doc = serde_json::json!({
            "v": 1, "id": id, "vm": null, "subject": "vm orders", "fault": "VmPausedIo", "certainty": "Confirmed",
            "probability": 1.0, "phase": "held", "opened": 0.0, "diagnosed": null, "isolated": null,
            "recovered": null, "verified": null, "closed": null, "outage_s": 0.0, "remedies": [],
            "resolution": null, "reason": null, "cause": cause, "strikes": [],
        });
        serde_json::from_value(doc).unwrap()
    }

    #[test]
    fn what_follows_from_an_incident_stands_below_it_and_none_is_lost_or_told_twice() {
        let list = [
            incident(5, None),
            incident(4, Some(2)),
            incident(3, Some(2)),
            incident(2, None),
            incident(1, Some(9)),
        ];
        let shown: Vec<_> = by_cause(&list).map(|(incident, follows)| (incident.id, follows)).collect();
        assert_eq!(shown, [(5, false), (2, false), (4, true), (3, true), (1, false)]);
    }
}
