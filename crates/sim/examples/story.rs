//! Prints the story of a seed: `story SEED`.

fn main() {
    let seed = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    print!("{}", holdfast_sim::simulate::story(seed));
}
