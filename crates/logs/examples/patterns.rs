//! The pattern of each line of a file, as CSV: `cargo run --release -p holdfast-logs --example patterns FILE`.

use holdfast_logs::{Miner, clean};
use std::io::Write;

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("usage: patterns FILE");
    let text = std::fs::read(path)?;
    let mut miner = Miner::default();
    let lines = text.split(|byte| *byte == b'\n');
    let ids: Vec<_> = lines.map(|line| miner.add(&clean(line))).collect();
    let view = miner.view();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    writeln!(out, "line,cluster,template")?;
    for (line, id) in ids.iter().enumerate() {
        let group = view.find(*id).expect("nothing left");
        writeln!(out, "{},{},\"{}\"", line + 1, group.id.0, group.template.to_string().replace('"', "\"\""))?;
    }
    Ok(())
}
