//! `holdfast reload`: the daemon reads its configuration again, and says what changed.

use super::{Answer, CliError, Exit, Place, check, paint, wait_for};
use crate::api::shape::{ReloadDoc, ReloadedVmDoc};
use crate::api::{Problems, Words};
use crate::client::{Client, ClientError};
use serde_json::json;

/// Exit code 0 if the file is in force now, 2 if it is wrong and the one before stays.
pub fn reload(place: &Place, as_json: bool) -> Result<Exit, CliError> {
    let colour = paint::on_terminal(&std::io::stderr());
    let client = match place.client() {
        Err(CliError::Config(_)) => {
            // Where the daemon listens stands in that very file; what is wrong with it is all there is to say.
            let mut answer = check::check(place, as_json, colour);
            answer.err.push_str(if as_json { "" } else { STAYS });
            return Ok(answer.say());
        }
        client => client?,
    };
    Ok(wait_for(ask(&client, as_json, colour))?.say())
}

const STAYS: &str = "the daemon goes on with the configuration before\n";

async fn ask(client: &Client, as_json: bool, colour: bool) -> Result<Answer, CliError> {
    let words = Words { by: Some(client.by().to_owned()), colour, ..Words::default() };
    match client.tell_and_hear::<ReloadDoc>("/api/v1/reload", &words).await {
        Ok(doc) if as_json => Ok(Answer { out: format!("{:#}\n", json!(doc)), ..Answer::default() }),
        Ok(doc) => Ok(Answer { out: render(&doc), ..Answer::default() }),
        Err(ClientError::Refused(refusal)) if refusal.problems.is_some() => {
            Ok(refused(refusal.problems.as_deref(), as_json))
        }
        Err(error) => Err(error.into()),
    }
}

/// The same as `check` says.
fn refused(problems: Option<&Problems>, as_json: bool) -> Answer {
    let Some(Problems { file, count, shown, told }) = problems else { return Answer::default() };
    if as_json {
        let shape =
            json!({"v": 1, "file": file, "ok": false, "count": count, "problems": told, "warnings": []});
        return Answer { out: format!("{shape:#}\n"), err: String::new(), code: 2 };
    }
    let what = check::count(*count, "problem");
    Answer { out: String::new(), err: format!("{shown}\n\n{file}: {what}\n{STAYS}"), code: 2 }
}

fn render(doc: &ReloadDoc) -> String {
    let mut lines = Vec::new();
    if !doc.settings.is_empty() {
        lines.push(format!("  changed  {}", doc.settings.join(", ")));
    }
    lines.extend(doc.added.iter().map(|vm| format!("  added    vm {vm}")));
    lines.extend(
        doc.removed.iter().map(|vm| format!("  removed  vm {vm}: left as it is, no longer looked after")),
    );
    lines.extend(doc.changed.iter().map(changed));
    lines.extend(doc.notes.iter().map(|note| format!("  warning  {note}")));
    let warnings = doc.warnings.as_array().map_or(0, Vec::len);
    if warnings > 0 {
        lines.push(format!("  {}: `holdfast check` shows them", check::count(warnings, "warning")));
    }
    let nothing = if lines.is_empty() { "; nothing has changed" } else { "" };
    lines.insert(0, format!("{} is in force{nothing}", doc.file));
    lines.join("\n") + "\n"
}

fn changed(change: &ReloadedVmDoc) -> String {
    let at_once = change.at_once.join(", ");
    let later = change.at_next_start.join(", ");
    let what = match (at_once.is_empty(), later.is_empty()) {
        (_, true) => at_once,
        (true, false) => format!("{later} from its next start on"),
        (false, false) => format!("{at_once}; {later} from its next start on"),
    };
    format!("  changed  vm {}: {what}", change.vm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc() -> ReloadDoc {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let vm = |vm: &str, at_once: &[&str], later: &[&str]| ReloadedVmDoc {
            vm: vm.into(),
            at_once: words(at_once),
            at_next_start: words(later),
        };
        ReloadDoc {
            v: 1,
            file: "/etc/holdfast/holdfast.toml".into(),
            settings: words(&["period"]),
            added: words(&["web"]),
            removed: words(&["old"]),
            changed: vec![
                vm("a", &["recover.tries", "app.redis"], &["memory", "cpus"]),
                vm("b", &["mode"], &[]),
                vm("c", &[], &["disk"]),
            ],
            warnings: json!([{"error": "x"}]),
            notes: words(&["vm a: its disk still comes in"]),
        }
    }

    #[test]
    fn what_changed_is_told_in_words_of_the_file() {
        assert_eq!(
            render(&doc()),
            "/etc/holdfast/holdfast.toml is in force\n  \
             changed  period\n  \
             added    vm web\n  \
             removed  vm old: left as it is, no longer looked after\n  \
             changed  vm a: recover.tries, app.redis; memory, cpus from its next start on\n  \
             changed  vm b: mode\n  \
             changed  vm c: disk from its next start on\n  \
             warning  vm a: its disk still comes in\n  \
             1 warning: `holdfast check` shows them\n"
        );
    }

    #[test]
    fn that_nothing_changed_is_told_too() {
        let nothing =
            ReloadDoc { settings: vec![], added: vec![], removed: vec![], changed: vec![], ..doc() };
        let nothing = ReloadDoc { warnings: json!([]), notes: vec![], ..nothing };
        assert_eq!(render(&nothing), "/etc/holdfast/holdfast.toml is in force; nothing has changed\n");
    }
}
