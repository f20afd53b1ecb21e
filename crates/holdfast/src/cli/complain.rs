//! What went wrong, told: for people in a few lines, and as one line of JSON where the command was asked for JSON.

use super::check::count;
use super::{CliError, paint::aside};
use crate::act::chain;
use crate::config::tame;
use crate::drill::DrillError;
use serde::Serialize;
use serde_json::Value;

/// What a program reads of an error, with the fields of a refusal of the API.
#[derive(Debug, Serialize)]
struct ErrorDoc {
    v: u32,
    error: String,
    cause: Option<String>,
    hint: Option<String>,
    /// What the command exits with.
    exit: u8,
    /// What is wrong with a configuration, as `check` tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Value>,
}

impl ErrorDoc {
    fn new(exit: u8, error: impl Into<String>, cause: Option<String>, hint: Option<String>) -> Self {
        Self { v: 1, error: error.into(), cause, hint, exit, problems: None }
    }

    fn of(error: &CliError) -> Self {
        let exit = error.code();
        match error {
            CliError::Config(errors) => {
                let (file, wrong) = (errors.0.origin(), count(errors.0.count(), "problem"));
                let doc = Self::new(exit, format!("{file}: {wrong}"), None, None);
                Self { problems: Some(errors.0.to_json()), ..doc }
            }
            CliError::Said { error, cause, hint } | CliError::Usage { error, cause, hint } => {
                Self::new(exit, error, Some(cause.clone()), Some(hint.clone()))
            }
            CliError::Client(client)
            | CliError::Drill(DrillError::Client(client) | DrillError::Injection(client)) => {
                let (cause, hint) = client.advice();
                Self::new(exit, client.to_string(), cause, Some(hint.to_owned()))
            }
            CliError::Daemon(daemon) => Self::new(exit, chain(daemon), None, Some(daemon.hint())),
            CliError::Drill(DrillError::Password(_)) => {
                let hint =
                    "hold the drill as the daemon's own user or as root; a variable must be set for it, too";
                Self::new(exit, chain(error), None, Some(hint.into()))
            }
            CliError::Io { .. } | CliError::Drill(_) => Self::new(exit, chain(error), None, None),
        }
    }

    /// Up to three lines.
    fn for_people(&self) -> String {
        let Self { error, cause, hint, .. } = self;
        let mut text = format!("error: {error}\n");
        text.extend(cause.iter().map(|cause| format!("cause: {cause}\n")));
        text.extend(hint.iter().map(|hint| format!("hint:  {hint}\n")));
        tame(&text)
    }

    /// One line.
    fn for_programs(mut self) -> String {
        for text in [Some(&mut self.error), self.cause.as_mut(), self.hint.as_mut()].into_iter().flatten() {
            *text = tame(text);
        }
        serde_json::to_string(&self).map(|line| line + "\n").unwrap_or_default()
    }

    fn tell(self) {
        aside(&if asked_for_json() { self.for_programs() } else { self.for_people() });
    }
}

/// Whether this command was asked for JSON: by `--json`, which means the same to all of them.
fn asked_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// Tells an error, its cause and the way out.
pub fn complain(error: &CliError) {
    if let (CliError::Config(errors), false) = (error, asked_for_json()) {
        return aside(&format!("{errors}\n")); // tamed where it was made, maybe coloured
    }
    ErrorDoc::of(error).tell();
}

/// Tells that what was said on standard output is lost.
pub fn cannot_print(cause: &std::io::Error) {
    ErrorDoc::new(1, "cannot print", Some(cause.to_string()), None).tell();
}

/// Tells that the words of the command are wrong, and exits; the help and the version are no error.
pub fn refuse(words: &clap::Error) -> ! {
    if !words.use_stderr() || !asked_for_json() {
        words.exit();
    }
    let said = words.render().to_string();
    let (error, usage) = said.split_once("\n\n").unwrap_or((&said, ""));
    let error = error.trim().trim_start_matches("error: ");
    let usage = usage.lines().find(|line| line.starts_with("Usage: "));
    let hint = usage.unwrap_or("`holdfast help` tells the commands").to_owned();
    ErrorDoc::new(2, error, None, Some(hint)).tell();
    std::process::exit(2)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn programs_read_in_one_line_what_people_read_in_three() {
        let (error, cause, hint) = ("it is\n\u{1b}[31mgone".into(), "\u{202e}why".into(), "look".into());
        let doc = || ErrorDoc::of(&CliError::Said { error: "a".into(), cause: "b".into(), hint: "c".into() });
        assert_eq!(doc().for_people(), "error: a\ncause: b\nhint:  c\n");
        let told = r#"{"v":1,"error":"a","cause":"b","hint":"c","exit":1}"#;
        assert_eq!(doc().for_programs(), format!("{told}\n"));
        let line = ErrorDoc::of(&CliError::Usage { error, cause, hint }).for_programs();
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        let doc: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(doc["error"], "it is\n\\u{1b}[31mgone", "nothing moves the cursor of who prints it (A40)");
        assert_eq!((&doc["cause"], &doc["exit"]), (&"\\u{202e}why".into(), &2.into()));
    }
}
