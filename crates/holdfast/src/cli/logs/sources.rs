//! `holdfast logs sources`: where logs come from, and how each source is.

use crate::api::sources::{SourceDoc, SourcesDoc};
use crate::cli::paint::{self, Tone, tint};
use crate::cli::{CliError, Exit, print_json};
use crate::client::Client;
use crate::config::write_size;
use clap::Args;

/// How they are shown.
#[derive(Args)]
pub struct SourcesArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows all sources. Exit code 3 if one of them fails.
pub async fn sources(client: &Client, args: &SourcesArgs) -> Result<Exit, CliError> {
    let doc: SourcesDoc = client.get("/api/v1/logs/sources").await?;
    if args.json {
        print_json(&doc)?;
    } else if doc.sources.is_empty() {
        say!("no sources");
    } else {
        say!("{}", render(&doc.sources));
    }
    let fails = doc.sources.iter().any(|source| source.state == "failing");
    Ok(if fails { Exit::NotHealthy } else { Exit::Fine })
}

fn render(sources: &[SourceDoc]) -> comfy_table::Table {
    let head = ["subject", "source", "state", "records", "size", "lost", "last", ""];
    let mut table = paint::table(&head);
    for source in sources {
        let tone = match source.state.as_str() {
            "failing" => Tone::Bad,
            "waiting" => Tone::Warm,
            _ => Tone::Good,
        };
        let why = source.why.as_deref().map(|why| holdfast_logs::escape(why, 120)).unwrap_or_default();
        table.add_row([
            source.subject.clone(),
            holdfast_logs::escape(&source.source, 120),
            tint(tone, &source.state),
            source.records.to_string(),
            rounded(source.bytes),
            if source.dropped > 0 { tint(Tone::Bad, &source.dropped.to_string()) } else { "0".into() },
            source.last.map_or_else(|| "-".into(), paint::ago),
            tint(Tone::Dim, &why),
        ]);
    }
    table
}

/// A size in its largest unit, without the rest.
fn rounded(bytes: u64) -> String {
    let unit = [1 << 40, 1 << 30, 1 << 20, 1 << 10].into_iter().find(|unit| bytes >= *unit);
    let Some(unit) = unit else { return format!("{bytes}B") };
    write_size(bytes / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_as_short_as_it_can_be() {
        for (bytes, shown) in [(0, "0B"), (3, "3B"), (1_023, "1023B"), (1_500, "1KiB"), (28 << 20, "28MiB")] {
            assert_eq!(rounded(bytes), shown);
        }
    }

    #[test]
    fn what_a_stranger_named_is_shown_escaped() {
        let source = SourceDoc {
            subject: "guest orders".into(),
            source: "guest file /var/log/a\x1b[2J.log".into(),
            state: "failing".into(),
            why: Some("the guest answers: \x1b]0;x\x07".into()),
            records: 0,
            bytes: 0,
            dropped: 0,
            last: None,
        };
        let shown = render(&[source]).to_string();
        assert!(!shown.contains('\x1b') && shown.contains("\\x1b[2J"), "{shown}");
    }
}
