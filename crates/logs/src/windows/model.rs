//! What windows are judged by.
//!
//! A window that lacks what almost every window has broke off; such windows may come often, and are still no good
//! ones. Their share tells how far what was learned can be trusted: a vector is established if near it lie at least
//! as many windows as broke off, within [`LEAST_SUPPORT`] and [`MOST_SUPPORT`], and if it did not break off itself.
//! The subspace is made of established vectors, and of what lies within it. A window is unusual if it is near no
//! established vector and out of the subspace too, or has a pattern that none of those windows had.

use super::judgement::{self, Judgement, Reason};
use super::space::{Rows, SPREAD, Space};
use super::steps::Steps;
use super::window::{Counts, Step, Window};
use std::collections::{BTreeMap, BTreeSet};

/// The share of all windows that makes a habit where none broke off.
const LEAST_SUPPORT: f64 = 0.001;

/// The share that always does.
const MOST_SUPPORT: f64 = 0.01;

/// A pattern that so many of all windows have belongs in each.
const ALMOST_EVERY: f64 = 0.97;

/// How far the nearest vector may be, squared. The first line of a pattern that never came before is twice as far.
pub(super) const NEAR: f64 = 3.0;

/// How often the doubtful ones are looked at again.
const MOST_ROUNDS: usize = 6;

/// The least by which a pattern that never came is beyond the limit.
const UNSEEN: f64 = 2.0;

/// A model of usual windows.
#[derive(Clone, Debug)]
pub struct Model {
    /// The patterns that have a column, by number.
    columns: Vec<u32>,
    /// All patterns of the windows that it was made of.
    patterns: BTreeSet<u32>,
    space: Space,
    established: Vec<Established>,
    /// What is usual if nothing is established.
    middle: Vec<f64>,
    steps: Steps,
}

#[derive(Clone, Debug)]
struct Established {
    scaled: Vec<f64>,
    raw: Vec<f64>,
}

impl Model {
    pub(super) fn of(known: &[(&Counts, f64)], most_columns: usize, steps: Steps) -> Option<Self> {
        let total: f64 = known.iter().map(|(_, weight)| weight).sum();
        if known.is_empty() || total <= 0.0 {
            return None;
        }
        let (columns, needed) = columns(known, most_columns, total);
        let rows = Rows {
            width: columns.len(),
            values: known
                .iter()
                .flat_map(|(vector, _)| in_columns(&columns, vector.iter().copied()))
                .collect(),
            weights: known.iter().map(|(_, weight)| *weight).collect(),
        };
        let whole = whole(known, &needed, total);
        let broken = 1.0 - rows.weight(&whole) / total;
        let support = total * broken.clamp(LEAST_SUPPORT, MOST_SUPPORT);
        let (space, chosen, is_established) = settle(&rows, &whole, support);
        let middle: Vec<f64> = (0..rows.width).map(|column| space.mean_of(column)).collect();
        let established = (0..rows.len())
            .filter(|number| is_established[*number])
            .map(|number| {
                let raw = rows.row(number).to_vec();
                Established { scaled: space.scaled(&raw), raw }
            })
            .collect();
        let trusted = known.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
        let patterns = trusted.flat_map(|((vector, _), _)| vector.iter().map(|(id, _)| *id)).collect();
        Some(Self { columns, patterns, space, established, middle, steps })
    }

    /// How unusual a window is, and why.
    #[must_use]
    pub fn judge(&self, window: &Window) -> Judgement {
        let raw = in_columns(&self.columns, window.counts());
        let scaled = self.space.scaled(&raw);
        let unseen: Vec<(u32, u32)> = window.counts().filter(|(id, _)| !self.patterns.contains(id)).collect();
        let is_column = |id: &u32| self.columns.binary_search(id).is_ok();
        let beside: f64 =
            unseen.iter().filter(|(id, _)| !is_column(id)).map(|(_, count)| weight_of_new(*count)).sum();
        let out = self.space.strangeness(&scaled, beside);
        let nearest = self.nearest(&scaled);
        let far = nearest.map_or(f64::INFINITY, |(_, square)| ((square + beside) / NEAR).sqrt());
        let steps = self.steps.unseen(window);
        let mut beyond = far.min(out);
        if !unseen.is_empty() {
            beyond = beyond.max(if far.is_finite() { far } else { out }).max(UNSEEN);
        }
        if !steps.is_empty() {
            let least = if self.steps.is_settled() { UNSEEN } else { judgement::ALMOST };
            beyond = beyond.max(least);
        }
        let usual = nearest.map_or(&self.middle, |(known, _)| &known.raw);
        let is_unusual = beyond > 1.0;
        let reasons = if is_unusual { self.reasons(window, usual, &unseen, &steps) } else { Vec::new() };
        Judgement { score: judgement::score(beyond), is_unusual, reasons }
    }

    /// The nearest established vector, and the squared distance to it.
    fn nearest(&self, scaled: &[f64]) -> Option<(&Established, f64)> {
        let mut best: Option<(&Established, f64)> = None;
        for known in &self.established {
            let most = best.map_or(f64::INFINITY, |(_, square)| square);
            if let Some(square) = closer_than(&known.scaled, scaled, most) {
                best = Some((known, square));
            }
        }
        best
    }

    fn reasons(&self, window: &Window, usual: &[f64], unseen: &[(u32, u32)], steps: &[Step]) -> Vec<Reason> {
        let is_new = |id: u32| unseen.iter().any(|(new, _)| *new == id);
        let new = unseen
            .iter()
            .map(|(id, count)| (weight_of_new(*count), Reason::Unseen { pattern: *id, count: *count }));
        let changed = self.columns.iter().enumerate().filter(|(_, id)| !is_new(**id)).map(|(column, id)| {
            let count = window.count(*id);
            let apart = self.space.apart(column, f64::from(count).ln_1p() - usual[column]);
            let usually = usual[column].exp_m1().round() as u32;
            (apart * apart, Reason::changed(*id, count, usually))
        });
        let parts: Vec<(f64, Reason)> = new.chain(changed).collect();
        let mut reasons = judgement::largest(parts);
        if self.steps.is_settled() || reasons.is_empty() {
            reasons
                .extend(steps.first().map(|(before, after)| Reason::Step { before: *before, after: *after }));
        }
        reasons
    }

    /// How many established vectors it has, and how many directions its subspace.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.established.len(), self.space.directions())
    }
}

/// What a pattern weighs that never came, squared.
fn weight_of_new(count: u32) -> f64 {
    (f64::from(count).ln_1p() / SPREAD).powi(2)
}

/// The patterns of the most windows, and those that almost every window has, the most common first.
fn columns(known: &[(&Counts, f64)], most: usize, total: f64) -> (Vec<u32>, Vec<u32>) {
    let mut shares: BTreeMap<u32, f64> = BTreeMap::new();
    for (vector, weight) in known {
        vector.iter().for_each(|(id, _)| *shares.entry(*id).or_default() += weight / total);
    }
    let mut order: Vec<(u32, f64)> = shares.into_iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let needed = order.iter().take_while(|(_, share)| *share >= ALMOST_EVERY).map(|(id, _)| *id).collect();
    let mut columns: Vec<u32> = order.into_iter().take(most).map(|(id, _)| id).collect();
    columns.sort_unstable();
    (columns, needed)
}

/// Which vectors did not break off. Windows that break off lack much at once; where each lacks something else that
/// is chance, and the rarer patterns are not needed.
fn whole(known: &[(&Counts, f64)], needed: &[u32], total: f64) -> Vec<bool> {
    let mut whole = vec![true; known.len()];
    let mut broken = 0.0;
    for pattern in needed {
        let lacks = |vector: &Counts| vector.binary_search_by_key(pattern, |(id, _)| *id).is_err();
        let new: Vec<usize> = (0..known.len()).filter(|n| whole[*n] && lacks(known[*n].0)).collect();
        let more: f64 = new.iter().map(|number| known[*number].1).sum();
        if (broken + more) / total > 1.0 - ALMOST_EVERY {
            break;
        }
        broken += more;
        new.into_iter().for_each(|number| whole[number] = false);
    }
    whole
}

/// The logarithms of counts, in the order of the columns.
fn in_columns(columns: &[u32], counts: impl Iterator<Item = (u32, u32)>) -> Vec<f64> {
    let mut row = vec![0.0; columns.len()];
    for (id, count) in counts {
        if let Ok(column) = columns.binary_search(&id) {
            row[column] = f64::from(count).ln_1p();
        }
    }
    row
}

/// The squared distance, if it is less than this.
fn closer_than(a: &[f64], b: &[f64], most: f64) -> Option<f64> {
    let mut sum = 0.0;
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        sum += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        if sum >= most {
            return None;
        }
    }
    (sum < most).then_some(sum)
}

/// Begins with what is established, if that is most of it, else with all that did not break off, and takes in what
/// lies in the subspace, until nothing changes any more: the subspace, what it was made of, and what is established.
fn settle(rows: &Rows, whole: &[bool], support: f64) -> (Space, Vec<bool>, Vec<bool>) {
    let established = |space: &Space| -> Vec<bool> {
        let scaled: Vec<Vec<f64>> = (0..rows.len()).map(|number| space.scaled(rows.row(number))).collect();
        (0..rows.len()).map(|number| whole[number] && has_support(rows, &scaled, number, support)).collect()
    };
    let mut chosen = whole.to_vec();
    let mut space = Space::of(rows, &chosen);
    let mut known = established(&space);
    if rows.weight(&known) < rows.weight(whole) / 2.0 {
        return (space, chosen, known);
    }
    chosen.clone_from(&known);
    for _ in 0..MOST_ROUNDS {
        space = Space::of(rows, &chosen);
        known = established(&space);
        let lies_within = |number: usize| space.strangeness(&space.scaled(rows.row(number)), 0.0) <= 1.0;
        let next: Vec<bool> =
            (0..rows.len()).map(|number| known[number] || whole[number] && lies_within(number)).collect();
        if next == chosen || rows.weight(&next) <= 0.0 {
            break;
        }
        chosen = next;
    }
    (space, chosen, known)
}

fn has_support(rows: &Rows, scaled: &[Vec<f64>], of: usize, needed: f64) -> bool {
    let mut sum = rows.weights[of];
    for (other, weight) in
        scaled.iter().zip(&rows.weights).enumerate().filter(|(n, _)| *n != of).map(|(_, x)| x)
    {
        if sum >= needed {
            break;
        }
        if closer_than(&scaled[of], other, NEAR).is_some() {
            sum += weight;
        }
    }
    sum >= needed
}
