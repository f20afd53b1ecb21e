//! `holdfast metrics show VM [SERIES]`: what is measured, and how it was. Without a VM, it is this host's.

use super::super::paint::{self, Tone, tint};
use super::super::{CliError, Exit, print_json};
use crate::api::numbers::{AskedFor, NumbersDoc, RowDoc, RowsDoc, SeriesDoc};
use crate::client::Client;
use clap::Args;
use std::fmt::Write as _;

/// Columns of a drawn line.
const COLUMNS: usize = 60;
/// From nothing to much.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What to show.
#[derive(Args)]
pub struct ShowArgs {
    /// The VM; `-` is this host, as it is where nothing is named.
    vm: Option<String>,
    /// One series of it, by its name in the list, as in `latency:postgres`.
    series: Option<String>,
    /// From so long ago on, as in `1h`, or since then, as in `19:30` or `2026-11-26 19:30`.
    #[arg(long, value_name = "TIME", value_parser = super::super::logs::moment, requires = "series")]
    since: Option<f64>,
    /// Until then, or longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = super::super::logs::moment, requires = "series")]
    until: Option<f64>,
    /// So long a row, as in `5m`; by default as it fits.
    #[arg(long, value_name = "TIME", value_parser = super::super::vm::duration, requires = "series")]
    step: Option<std::time::Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print CSV: `timestamp,value`, which `holdfast metrics analyze` reads, with the least and the greatest behind.
    #[arg(long, conflicts_with = "json", requires = "series")]
    csv: bool,
}

/// Shows it.
pub async fn show(client: &Client, args: &ShowArgs) -> Result<Exit, CliError> {
    let place = place(args.vm.as_deref())?;
    let Some(series) = &args.series else {
        let doc: NumbersDoc = client.get(&place).await?;
        if args.json {
            print_json(&doc)?
        } else {
            list(&doc)
        }
        return Ok(Exit::Fine);
    };
    let segment: String = url::form_urlencoded::byte_serialize(series.as_bytes()).collect();
    let segment = segment.replace('+', "%20");
    let asked =
        AskedFor { since: args.since, until: args.until, step: args.step.map(|step| step.as_secs_f64()) };
    let doc: RowsDoc = client.get(&format!("{place}/{segment}?{}", query(asked))).await?;
    if args.json {
        print_json(&doc)?;
    } else if args.csv {
        let mut out = String::from("timestamp,value,min,max\n");
        for row in &doc.rows {
            let written = writeln!(out, "{},{},{},{}", row.at, row.mean, row.min, row.max);
            debug_assert!(written.is_ok(), "a String takes all");
        }
        paint::text(&out);
    } else {
        draw(&doc);
    }
    Ok(Exit::Fine)
}

/// The place of an owner's numbers; a name that is none is refused here, so that it cannot become another place.
fn place(vm: Option<&str>) -> Result<String, CliError> {
    let Some(vm) = vm.filter(|vm| *vm != "-") else { return Ok("/api/v1/numbers".into()) };
    let name: holdfast_core::subject::VmName =
        vm.parse().map_err(|cause: holdfast_core::subject::NameError| CliError::Usage {
            error: format!("there is no vm {}", crate::config::quote(vm)),
            cause: cause.to_string(),
            hint: "`holdfast vm list` lists them".into(),
        })?;
    Ok(format!("/api/v1/vms/{name}/numbers"))
}

fn query(asked: AskedFor) -> String {
    let AskedFor { since, until, step } = asked;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in [("since", since), ("until", until), ("step", step)] {
        if let Some(value) = value {
            query.append_pair(name, &value.to_string());
        }
    }
    query.finish()
}

fn list(doc: &NumbersDoc) {
    if doc.series.is_empty() {
        say!("nothing was measured yet");
        return;
    }
    let mut table = paint::table(&["series", "last", "least in 24h", "mean", "greatest", "now"]);
    for series in &doc.series {
        let SeriesDoc { unit, last, day, unusual, trouble, .. } = series;
        let of = |value: fn(&crate::api::numbers::DayDoc) -> f64| {
            day.as_ref().map_or_else(String::new, |day| amount(value(day), unit))
        };
        let now = match (trouble, unusual) {
            (Some(why), _) => tint(Tone::Bad, &format!("cannot be had: {}", crate::config::tame(why))),
            (None, Some(said)) => tint(Tone::Warm, &crate::config::tame(said)),
            (None, None) => String::new(),
        };
        let last = last.map_or_else(|| "-".into(), |last| amount(last, unit));
        let name = crate::config::tame(&series.series);
        table.add_row([name, last, of(|day| day.min), of(|day| day.mean), of(|day| day.max), now]);
    }
    say!("{table}");
}

fn draw(doc: &RowsDoc) {
    let (Some(first), Some(last)) = (doc.rows.first(), doc.rows.last()) else {
        say!("nothing is kept of that time");
        return;
    };
    let min = doc.rows.iter().map(|row| row.min).fold(f64::INFINITY, f64::min);
    let max = doc.rows.iter().map(|row| row.max).fold(f64::NEG_INFINITY, f64::max);
    let of = |value: f64| amount(value, &doc.unit);
    say!("{}", tint(Tone::Bold, &crate::config::tame(&doc.says)));
    say!("{}  {}", sparkline(&doc.rows, doc.step_s), of(last.mean));
    let lasts = std::time::Duration::from_secs_f64((last.at - first.at + doc.step_s).max(0.0));
    let mean = doc.rows.iter().map(|row| row.mean).sum::<f64>() / doc.rows.len() as f64;
    let span = format!(
        "{} to {}, {}",
        paint::date(first.at),
        paint::date(last.at),
        holdfast_core::time::show(lasts)
    );
    say!(
        "{}",
        tint(Tone::Dim, &format!("{span}: least {}, mean {}, greatest {}", of(min), of(mean), of(max)))
    );
}

/// A line of bars between the least and the greatest mean; a blank where nothing was measured.
fn sparkline(rows: &[RowDoc], step: f64) -> String {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return String::new() };
    let all = (last.at - first.at + step).max(step);
    let columns = ((all / step).round() as usize).clamp(1, COLUMNS);
    let mut sums = vec![(0.0, 0.0); columns];
    for row in rows {
        let column = ((row.at - first.at) / all * columns as f64) as usize;
        let (sum, count) = &mut sums[column.min(columns - 1)];
        (*sum, *count) = (*sum + row.mean, *count + 1.0);
    }
    let means: Vec<Option<f64>> =
        sums.into_iter().map(|(sum, count)| (count > 0.0).then(|| sum / count)).collect();
    let known = || means.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    let bar = |value: f64| {
        let part = if high > low { (value - low) / (high - low) } else { 0.0 };
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    means.into_iter().map(|mean| mean.map_or(' ', bar)).collect()
}

/// A value as people read it.
fn amount(value: f64, unit: &str) -> String {
    match unit {
        "s" if value.abs() < 1e-3 => format!("{:.0} µs", value * 1e6),
        "s" if value.abs() < 1.0 => format!("{:.1} ms", value * 1e3),
        "s" => format!("{value:.2} s"),
        "B" if value.abs() < 10.0 * 1024.0 => format!("{value:.0} B"),
        "B" if value.abs() < 10.0 * (1 << 20) as f64 => format!("{:.0} KiB", value / 1024.0),
        "B" if value.abs() < 10.0 * (1_u64 << 30) as f64 => format!("{:.0} MiB", value / (1 << 20) as f64),
        "B" => format!("{:.1} GiB", value / (1_u64 << 30) as f64),
        "share" => format!("{:.1} %", value * 100.0),
        "1/s" => format!("{value:.1}/s"),
        "" => significant(value),
        unit => format!("{} {}", significant(value), crate::config::tame(unit)),
    }
}

/// Six digits of a value, or all of a whole one.
fn significant(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return format!("{value}");
    }
    let before = value.abs().log10().floor();
    if !(-5.0..15.0).contains(&before) {
        return format!("{value:.5e}");
    }
    let text = format!("{value:.*}", (5.0 - before).max(0.0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_people_read_it() {
        let shown = [
            (0.000_25, "s"),
            (0.0041, "s"),
            (2.5, "s"),
            (5.0, "B"),
            (3.5e8, "B"),
            (5e10, "B"),
            (0.125, "share"),
            (7.0, "1/s"),
            (42.0, "rows"),
            (0.123_456_78, ""),
            (1_234_567.25, "m/s"),
            (2.5e-9, ""),
        ];
        let shown: Vec<String> = shown.iter().map(|(value, unit)| amount(*value, unit)).collect();
        let of_ours = ["250 µs", "4.1 ms", "2.50 s", "5 B", "334 MiB", "46.6 GiB", "12.5 %", "7.0/s"];
        assert_eq!(shown[..8], of_ours);
        assert_eq!(shown[8..], ["42 rows", "0.123457", "1234567 m/s", "2.50000e-9"]);
    }

    #[test]
    fn a_line_is_drawn_with_a_gap_where_nothing_was_measured() {
        let row = |at: f64, mean: f64| RowDoc { at, min: mean, mean, max: mean };
        let rows = [row(0.0, 1.0), row(10.0, 4.5), row(20.0, 8.0), row(40.0, 1.0)];
        assert_eq!(sparkline(&rows, 10.0), "▁▅█ ▁");
        assert_eq!(sparkline(&rows[..1], 10.0), "▁");
        assert_eq!(sparkline(&[], 10.0), "");
    }
}
