//! `[vm.NAME.number.NAME]`: numbers that nobody but a user knows how to measure.

use super::app::{AppConfig, Probe};
use super::problem::Problem;
use super::rules::Claims;
use super::section::Section;
use super::units::{bare, quote};
use super::{Frame, probe, settings, vm};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::Duration;
use std::collections::BTreeMap;

/// So many numbers of one VM at most ...
const MOST: usize = 64;
/// ... and so many of all: each is judged by two hours of its own past, in memory.
const MOST_OF_ALL: usize = 256;
/// The longest unit, in characters.
const LONGEST_UNIT: usize = 16;

/// A number that is asked for again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberConfig {
    /// Who tells it.
    pub from: NumberFrom,
    /// How often it is asked for; 1 s to 1 h.
    pub every: Duration,
    /// An answer later than this is none; 50 ms to 60 s.
    pub timeout: Duration,
    /// In what it is measured, as shown; empty if nobody says.
    pub unit: String,
    /// It only rises, and what matters is how fast.
    pub is_total: bool,
}

/// Who tells a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberFrom {
    /// What a command of this host prints. The program is named by its absolute path.
    Command(Vec<String>),
    /// What a command in the guest prints, run by its agent.
    GuestCommand(Vec<String>),
    /// The first field of the first row that PostgreSQL answers.
    Query {
        /// The application that is asked: one with a probe of PostgreSQL.
        app: AppName,
        /// What it is asked. It is asked to change nothing.
        query: String,
    },
}

impl NumberConfig {
    /// In what the series is measured: of a total, how fast it rises.
    #[must_use]
    pub fn shown_unit(&self) -> String {
        match (self.is_total, self.unit.as_str()) {
            (false, unit) => unit.to_owned(),
            (true, "") => "1/s".into(),
            (true, unit) => format!("{unit}/s"),
        }
    }
}

/// Reads the numbers of one VM. `count` is how many there are of all VMs so far.
pub fn of_vm(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    apps: &BTreeMap<AppName, AppConfig>,
    claims: &mut Claims,
) -> BTreeMap<String, NumberConfig> {
    let title = |name: &str| format!("[vm.{vm}.number.{}]", bare(name));
    let sections = section.sections("number", title, settings::NUMBER);
    let mut numbers = BTreeMap::new();
    let all = claims.numbers + sections.len();
    if sections.len() > MOST || all > MOST_OF_ALL {
        let error = format!("{} numbers are configured for vm `{vm}`", sections.len());
        let cause = format!("at most {MOST} of one VM are followed, and {MOST_OF_ALL} of all, here {all}");
        let hint = "leave out those that nobody would look at";
        section.refuse(Problem::at(section.place("number"), error, cause, hint));
        return numbers;
    }
    claims.numbers = all;
    for (name, section) in sections {
        let Some(name) = vm::name_of::<AppName>(&name, "a number", frame.problems) else { continue };
        if let Some(number) = one(vm, &section, frame, apps, claims) {
            numbers.insert(name.to_string(), number);
        }
    }
    numbers
}

fn one(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    apps: &BTreeMap<AppName, AppConfig>,
    claims: &mut Claims,
) -> Option<NumberConfig> {
    let ways = ["command", "guest_command", "query"];
    let written: Vec<&str> = ways.into_iter().filter(|way| section.has(way)).collect();
    let &[way] = written.as_slice() else {
        let (error, place) = match written.as_slice() {
            [] => (format!("{} does not say who tells it", section.name), section.place("every")),
            [.., last] => (format!("{} is told by two", section.name), section.place(last)),
        };
        let hint = "write one of `command`, `guest_command` and `query`";
        section.refuse(Problem::at(place, error, "a number has exactly one origin", hint));
        return None;
    };
    if way != "query" {
        section.pointless("app", "only a `query` is put to an application", "remove it");
    }
    let from = match way {
        "command" => NumberFrom::Command(probe::program(vm, section, "command", frame, claims)?),
        "guest_command" => NumberFrom::GuestCommand(section.command("guest_command")?),
        _ => NumberFrom::Query { query: section.text("query")?.into_inner(), app: app(vm, section, apps)? },
    };
    Some(NumberConfig {
        from,
        every: section.time("every"),
        timeout: section.time("timeout"),
        unit: unit(section),
        is_total: section.word("kind") == "total",
    })
}

/// The application of PostgreSQL that is asked: the one that is named, or the only one.
fn app(vm: &VmName, section: &Section<'_>, apps: &BTreeMap<AppName, AppConfig>) -> Option<AppName> {
    let asks = |app: &AppConfig| matches!(app.probe, Probe::Postgres { .. });
    let able: Vec<&AppName> = apps.iter().filter(|(_, app)| asks(app)).map(|(name, _)| name).collect();
    let names = able.iter().map(|name| quote(name.as_str())).collect::<Vec<_>>().join(", ");
    let problem = match section.text("app") {
        Some(written) => {
            if let Some(found) = able.iter().find(|app| app.as_str() == written.get_ref().as_str()) {
                return Some((*found).clone());
            }
            let error =
                format!("{} is no application of this VM that answers queries", quote(written.get_ref()));
            (written.span(), error, "a `query` goes to one with a probe `postgres://..`")
        }
        None => match able.as_slice() {
            [only] => return Some((*only).clone()),
            _ => {
                let error = format!("{} does not say which application is asked", section.name);
                let place = section.place("query");
                (place, error, "a `query` goes to an application with a probe `postgres://..`")
            }
        },
    };
    let hint = if names.is_empty() {
        format!("give vm `{vm}` an application with such a probe, or write `command` or `guest_command`")
    } else {
        format!("write `app = ..`, one of {names}")
    };
    let (place, error, cause) = problem;
    section.refuse(Problem::at(place, error, cause, hint));
    None
}

fn unit(section: &Section<'_>) -> String {
    let Some(unit) = section.text("unit") else { return String::new() };
    if unit.get_ref().chars().count() > LONGEST_UNIT || unit.get_ref().contains(['\n', '\t']) {
        let cause = format!("it is longer than {LONGEST_UNIT} characters, or is no single word");
        section.refuse(Problem::at(unit.span(), "`unit` is no unit", cause, "as in `unit = \"rows\"`"));
    }
    unit.into_inner()
}
