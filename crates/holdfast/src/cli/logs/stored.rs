//! `holdfast logs VM` and `holdfast logs patterns VM`: what was said and is kept, and which kinds of lines there are.
//! Without a VM, it is this host's.

use super::super::paint::{self, Tone, tint};
use super::super::vm::duration;
use super::super::{CliError, Exit};
use crate::api::logs::{AskedFor, LogsDoc, PatternDoc, RecordDoc};
use crate::client::{Client, ClientError};
use clap::Args;
use http_body_util::BodyExt;
use jiff::civil;
use jiff::tz::TimeZone;

/// Which records, and how they are shown.
#[derive(Args)]
pub struct ShowArgs {
    /// The VM; this host if none is named.
    vm: Option<String>,
    /// Received within this time, as in `10m`, or since then, as in `19:30` or `2026-11-26 19:30`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<f64>,
    /// Received until then, or longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<f64>,
    /// So bad or worse: debug, info, notice, warning, error, critical, alert or emergency.
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
    /// Of this pattern, by its number in `holdfast logs patterns`.
    #[arg(long, value_name = "ID")]
    pattern: Option<u64>,
    /// With text that this regular expression matches.
    #[arg(long, value_name = "EXPRESSION")]
    grep: Option<String>,
    /// From this source, as in `console`.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// So many at most, the newest.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 200)]
    limit: usize,
    /// Go on as it happens.
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON document a line.
    #[arg(long)]
    json: bool,
}

/// Whose patterns, and how they are shown.
#[derive(Args)]
pub struct PatternsArgs {
    /// The VM; this host if none is named.
    vm: Option<String>,
    /// Print one JSON document a line.
    #[arg(long)]
    json: bool,
}

/// A time as people write it, in seconds since the epoch: so long ago, today, or then.
pub fn moment(text: &str) -> Result<f64, String> {
    let now = jiff::Timestamp::now();
    let seconds = |at: jiff::Timestamp| at.as_microsecond() as f64 / 1e6;
    if let Ok(ago) = duration(text) {
        return Ok(seconds(now) - ago.as_secs_f64());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(seconds(at));
    }
    let here = |at: civil::DateTime| at.to_zoned(TimeZone::system()).map(|at| seconds(at.timestamp()));
    let today = now.to_zoned(TimeZone::system()).date();
    let time =
        || text.parse::<civil::Time>().ok().filter(|_| text.contains(':')).map(|at| today.to_datetime(at));
    let day = || text.parse::<civil::Date>().ok().map(|date| date.to_datetime(civil::Time::midnight()));
    let civil = text.parse::<civil::DateTime>().ok().or_else(time).or_else(day);
    let wrong = || "write a time, as in `10m`, `19:30`, `2026-11-26` or `2026-11-26 19:30`".to_owned();
    civil.and_then(|at| here(at).ok()).ok_or_else(wrong)
}

impl ShowArgs {
    /// What is asked for, as the query of an address.
    fn query(&self, after: Option<u64>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let AskedFor { since, until, severity, pattern, grep, source, after, limit } = AskedFor {
            since: self.since,
            until: self.until,
            severity: self.severity.clone(),
            pattern: self.pattern,
            grep: self.grep.clone(),
            source: self.source.clone(),
            after,
            limit: after.is_none().then_some(self.limit),
        };
        let numbers = [since, until].map(|at| at.map(|at| at.to_string()));
        let [since, until] = numbers;
        for (name, value) in [
            ("since", since),
            ("until", until),
            ("severity", severity),
            ("pattern", pattern.map(|id| id.to_string())),
            ("grep", grep),
            ("source", source),
            ("after", after.map(|number| number.to_string())),
            ("limit", limit.map(|limit| limit.to_string())),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.finish()
    }
}

/// The place of an owner's logs; a name that is none is refused here, so that it cannot become another place.
fn place(vm: Option<&str>) -> Result<String, CliError> {
    let Some(vm) = vm else { return Ok("/api/v1/logs".into()) };
    let name: holdfast_core::subject::VmName =
        vm.parse().map_err(|cause: holdfast_core::subject::NameError| CliError::Usage {
            error: format!("there is no vm {}", crate::config::quote(vm)),
            cause: cause.to_string(),
            hint: "`holdfast vm list` lists them; `holdfast logs --help` tells what else can be done".into(),
        })?;
    Ok(format!("/api/v1/vms/{name}/logs"))
}

/// Shows records, and goes on as they come if asked to.
pub async fn show(client: &Client, args: &ShowArgs) -> Result<Exit, CliError> {
    let place = place(args.vm.as_deref())?;
    let doc: LogsDoc = client.get(&format!("{place}?{}", args.query(None))).await?;
    for record in &doc.records {
        print(record, args.json)?;
    }
    if doc.damaged > 0 {
        paint::aside(&format!("{} blocks are damaged and were left out\n", doc.damaged));
    }
    if !doc.complete && doc.records.len() < args.limit {
        paint::aside("there may be more: name a shorter time, or fewer with `--limit`\n");
    }
    if !args.follow {
        if doc.records.is_empty() && !args.json {
            paint::aside("nothing was found\n");
        }
        return Ok(Exit::Fine);
    }
    let after = doc.records.last().map_or(doc.through, |last| last.number.max(doc.through));
    let mut live = client.live(&format!("{place}/stream?{}", args.query(Some(after)))).await?;
    let mut pending = Vec::new();
    while let Some(frame) = live.frame().await {
        let frame = frame.map_err(ClientError::Http)?;
        let Ok(bytes) = frame.into_data() else { continue };
        pending.extend_from_slice(&bytes);
        for record in super::super::incidents::complete(&mut pending) {
            print(&record, args.json)?;
        }
        if paint::is_unread() {
            break;
        }
    }
    Ok(Exit::Fine)
}

fn as_line<T: serde::Serialize>(document: &T) -> Result<String, CliError> {
    let line = serde_json::to_string(document).map_err(std::io::Error::from);
    line.map_err(|source| CliError::Io { what: "print JSON".into(), source })
}

fn print(record: &RecordDoc, json: bool) -> Result<(), CliError> {
    if json {
        say!("{}", as_line(record)?);
    } else {
        say!("{}", line(record));
    }
    Ok(())
}

/// A record as people read it; further lines of it are set in.
fn line(record: &RecordDoc) -> String {
    let severity = record.severity.as_deref().unwrap_or("-");
    let tone = match severity {
        "error" | "critical" | "alert" | "emergency" => Tone::Bad,
        "warning" => Tone::Warm,
        "debug" => Tone::Dim,
        _ => Tone::Plain,
    };
    let when = paint::date(record.time.unwrap_or(record.received));
    let program = record.program.as_ref().map(|program| format!("{program}: ")).unwrap_or_default();
    format!(
        "{}  {}  {}  {program}{}",
        tint(Tone::Dim, &when),
        tint(Tone::Dim, &format!("{:8}", record.source)),
        tint(tone, &format!("{severity:8}")),
        tint(tone, &record.text.replace('\n', "\n    ")),
    )
}

/// Shows patterns, those of the most records first.
pub async fn patterns(client: &Client, args: &PatternsArgs) -> Result<Exit, CliError> {
    let place = place(args.vm.as_deref())?;
    let known: Vec<PatternDoc> = client.get(&format!("{place}/patterns")).await?;
    if args.json {
        for pattern in &known {
            say!("{}", as_line(pattern)?);
        }
        return Ok(Exit::Fine);
    }
    if known.is_empty() {
        say!("no patterns");
        return Ok(Exit::Fine);
    }
    let mut table = paint::table(&["id", "count", "first", "last", "severities", "pattern"]);
    for pattern in &known {
        let mix: Vec<String> =
            pattern.severities.iter().map(|(name, count)| format!("{name} {count}")).collect();
        table.add_row([
            pattern.id.to_string(),
            pattern.count.to_string(),
            paint::date(pattern.first),
            paint::date(pattern.last),
            mix.join(", "),
            match pattern.of {
                Some(of) => {
                    format!("{} {}", pattern.template, paint::tint(paint::Tone::Dim, &format!("(of {of})")))
                }
                None => pattern.template.clone(),
            },
        ]);
    }
    say!("{table}");
    Ok(Exit::Fine)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn record(severity: Option<&str>, text: &str) -> RecordDoc {
        RecordDoc {
            v: 1,
            number: 1,
            time: None,
            received: 0.0,
            subject: "guest orders".into(),
            source: "console".into(),
            severity: severity.map(str::to_owned),
            pattern: 7,
            rule: None,
            program: Some("kernel".into()),
            text: text.into(),
            fields: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_a_line_and_what_follows_is_set_in() {
        let shown = line(&record(Some("error"), "Oops\nCall trace"));
        assert!(shown.ends_with("  console   error     kernel: Oops\n    Call trace"), "{shown:?}");
    }

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let now = jiff::Timestamp::now().as_microsecond() as f64 / 1e6;
        assert!((moment("10m").unwrap() - (now - 600.0)).abs() < 5.0);
        assert_eq!(moment("2026-11-26T19:30:00Z").unwrap(), 1_795_721_400.0);
        for text in ["19:30", "2026-11-26", "2026-11-26 19:30", "2026-11-26T19:30:01.5"] {
            assert!(moment(text).unwrap() > 1e9, "{text}");
        }
        for text in ["", "yesterday", "10", "-5m", "25:00", "99999999999999999999d"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_cannot_become_another_place() {
        assert_eq!(place(Some("orders")).unwrap(), "/api/v1/vms/orders/logs");
        for name in ["../../status", "a/b", "a?b=c", "", "a b"] {
            assert!(place(Some(name)).is_err(), "{name}");
        }
    }
}
