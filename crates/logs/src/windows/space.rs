//! The subspace in which rows of numbers lie, and how far off it one may be.
//!
//! Of logs these are count vectors: counts are taken as `ln(1 + n)`: from one to two is more than from 30 to 31. Each pattern is measured by its own
//! spread, and by no less than [`SPREAD`], so that one that never changes is not infinitely sure.

use super::eigen::Eigen;
use super::limit;

/// The least spread: a fifth more or less of a count says nothing.
pub(super) const SPREAD: f64 = 0.2;

/// The share of all variance that the subspace holds.
const SHARE: f64 = 0.95;

/// The share of windows that are within, of those that it was made of, however they are spread.
const WITHIN: f64 = 0.995;

/// Rows one behind the other, each with its weight.
pub struct Rows {
    /// Numbers of a row.
    pub width: usize,
    /// All numbers.
    pub values: Vec<f64>,
    /// How much each row weighs.
    pub weights: Vec<f64>,
}

impl Rows {
    /// One of them.
    pub(super) fn row(&self, number: usize) -> &[f64] {
        &self.values[number * self.width..(number + 1) * self.width]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

    /// The weight of those that are chosen.
    pub(super) fn weight(&self, chosen: &[bool]) -> f64 {
        self.weights.iter().zip(chosen).filter(|(_, chosen)| **chosen).map(|(weight, _)| weight).sum()
    }
}

/// A mean, a measure for each column, and the directions of most variance.
#[derive(Clone, Debug)]
pub struct Space {
    mean: Vec<f64>,
    spread: Vec<f64>,
    directions: Vec<Vec<f64>>,
    variances: Vec<f64>,
    off: f64,
    out: f64,
}

impl Space {
    /// Of the rows that are chosen; they must weigh something.
    pub fn of(rows: &Rows, chosen: &[bool]) -> Self {
        let (mean, spread) = measure(rows, chosen);
        let mut space =
            Self { mean, spread, directions: Vec::new(), variances: Vec::new(), off: 0.0, out: 0.0 };
        let eigen = Eigen::of(space.correlations(rows, chosen), rows.width);
        let all: f64 = eigen.values.iter().map(|value| value.max(0.0)).sum();
        let mut held = 0.0;
        for (number, value) in eigen.values.iter().enumerate() {
            if *value <= all * 1e-12 || held >= all * SHARE {
                break;
            }
            held += value;
            space.directions.push(eigen.vector(number).to_vec());
            space.variances.push(*value);
        }
        let (off, out) = space.quantiles(rows, chosen);
        let left_out = eigen.values.get(space.directions.len()..).unwrap_or_default();
        // The formulas assume a normal distribution, which counts seldom have.
        let others = of_others(rows.weight(chosen), space.directions.len());
        space.off = limit::residual(left_out).max(off) * others;
        space.out = limit::within(space.directions.len()).max(out) * others;
        space
    }

    /// In measures of each column, from the mean.
    pub fn scaled(&self, row: &[f64]) -> Vec<f64> {
        let measures = self.mean.iter().zip(&self.spread);
        row.iter().zip(measures).map(|(value, (mean, spread))| (value - mean) / spread).collect()
    }

    fn correlations(&self, rows: &Rows, chosen: &[bool]) -> Vec<f64> {
        let width = rows.width;
        let total = rows.weight(chosen);
        let mut matrix = vec![0.0; width * width];
        for number in (0..rows.len()).filter(|number| chosen[*number]) {
            let row = self.scaled(rows.row(number));
            let weight = rows.weights[number] / total;
            for (i, x) in row.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                let heavy = x * weight;
                let line = &mut matrix[i * width..(i + 1) * width];
                line.iter_mut().zip(&row).for_each(|(cell, y)| *cell += heavy * y);
            }
        }
        matrix
    }

    /// What is left of a row beside the subspace, column by column.
    pub fn rest(&self, scaled: &[f64]) -> Vec<f64> {
        self.split(scaled).0
    }

    /// The limit of the squares of what is left, together: the Q-statistic, or what was seen if that is more.
    pub fn limit(&self) -> f64 {
        self.off
    }

    /// The squared distance from the subspace, and the one within it.
    fn distances(&self, scaled: &[f64]) -> (f64, f64) {
        let (rest, within) = self.split(scaled);
        (rest.iter().map(|left| left * left).sum(), within)
    }

    fn split(&self, scaled: &[f64]) -> (Vec<f64>, f64) {
        let mut rest = scaled.to_vec();
        let mut within = 0.0;
        for (direction, variance) in self.directions.iter().zip(&self.variances) {
            let along: f64 = direction.iter().zip(scaled).map(|(a, b)| a * b).sum();
            within += along * along / variance;
            rest.iter_mut().zip(direction).for_each(|(left, part)| *left -= along * part);
        }
        (rest, within)
    }

    fn quantiles(&self, rows: &Rows, chosen: &[bool]) -> (f64, f64) {
        let of = |number: usize| self.distances(&self.scaled(rows.row(number)));
        let known: Vec<((f64, f64), f64)> = (0..rows.len())
            .filter(|number| chosen[*number])
            .map(|number| (of(number), rows.weights[number]))
            .collect();
        let quantile = |pick: fn(&(f64, f64)) -> f64| {
            let mut sorted: Vec<(f64, f64)> =
                known.iter().map(|(found, weight)| (pick(found), *weight)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (total, mut sum) = (rows.weight(chosen), 0.0);
            let reached = |(_, weight): &&(f64, f64)| {
                sum += weight;
                sum >= total * WITHIN
            };
            sorted.iter().find(reached).or(sorted.last()).map_or(0.0, |(found, _)| *found)
        };
        (quantile(|found| found.0), quantile(|found| found.1))
    }

    /// What is usual in a column.
    pub(super) fn mean_of(&self, column: usize) -> f64 {
        self.mean[column]
    }

    /// A difference in the measure of its column.
    pub(super) fn apart(&self, column: usize, difference: f64) -> f64 {
        difference / self.spread[column]
    }

    /// Directions of the subspace.
    pub(super) fn directions(&self) -> usize {
        self.directions.len()
    }

    /// How far out, where 1 is the limit: off the subspace or, if that is more, within it. `beside` is the squared
    /// distance along patterns that have no column.
    pub(super) fn strangeness(&self, scaled: &[f64], beside: f64) -> f64 {
        let (off, within) = self.distances(scaled);
        ratio(off + beside, self.off).max(ratio(within, self.out))
    }
}

/// Distances as multiples of their limit, which have the measure of a length. Without room all is beyond, but for
/// what is nothing but a rounding.
fn ratio(square: f64, limit: f64) -> f64 {
    const ROUNDING: f64 = 1e-9;
    (square / limit.max(ROUNDING)).sqrt()
}

/// How much farther out others lie than the windows that the directions were made of. These fit too well twice: the
/// variances are theirs, and so is what the variances are set against.
fn of_others(windows: f64, directions: usize) -> f64 {
    const LEAST_FREE: f64 = 0.5;
    let free = 1.0 - directions as f64 / windows;
    free.max(LEAST_FREE).powi(-2)
}

fn measure(rows: &Rows, chosen: &[bool]) -> (Vec<f64>, Vec<f64>) {
    let total = rows.weight(chosen);
    let (mut mean, mut spread) = (vec![0.0; rows.width], vec![0.0; rows.width]);
    let of_chosen = || (0..rows.len()).filter(|number| chosen[*number]);
    for number in of_chosen() {
        let weight = rows.weights[number] / total;
        mean.iter_mut().zip(rows.row(number)).for_each(|(sum, value)| *sum += weight * value);
    }
    for number in of_chosen() {
        let weight = rows.weights[number] / total;
        let columns = spread.iter_mut().zip(&mean).zip(rows.row(number));
        columns.for_each(|((sum, mean), value)| *sum += weight * (value - mean).powi(2));
    }
    spread.iter_mut().for_each(|sum: &mut f64| *sum = sum.sqrt().max(SPREAD));
    (mean, spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two columns that rise together, by hand: mean (1, 1), spread 1 each, all variance along (1, 1).
    #[test]
    fn two_columns_that_rise_together_are_one_direction() {
        let rows = Rows { width: 2, values: vec![0.0, 0.0, 2.0, 2.0], weights: vec![1.0, 1.0] };
        let space = Space::of(&rows, &[true, true]);
        assert_eq!((space.mean.as_slice(), space.spread.as_slice()), (&[1.0, 1.0][..], &[1.0, 1.0][..]));
        assert_eq!(space.directions.len(), 1);
        assert!((space.variances[0] - 2.0).abs() < 1e-12);
        // (3, 1) is (2, 0) from the mean: squared, 2 off the line, and 2 / variance 2 = 1 along it.
        let (off, within) = space.distances(&space.scaled(&[3.0, 1.0]));
        assert!((off - 2.0).abs() < 1e-12 && (within - 1.0).abs() < 1e-12, "{off} {within}");
        assert!(space.strangeness(&space.scaled(&[2.5, 2.5]), 0.0) < 1.0);
        assert!(space.strangeness(&space.scaled(&[2.0, 0.0]), 0.0) > 100.0);
    }

    #[test]
    fn a_weight_counts_as_so_many_rows_and_what_is_not_chosen_not_at_all() {
        let heavy = Rows { width: 1, values: vec![0.0, 4.0, 99.0], weights: vec![3.0, 1.0, 50.0] };
        let many = Rows { width: 1, values: vec![0.0, 0.0, 0.0, 4.0], weights: vec![1.0; 4] };
        let (a, b) = (Space::of(&heavy, &[true, true, false]), Space::of(&many, &[true; 4]));
        assert_eq!((&a.mean, &a.spread, &a.variances), (&b.mean, &b.spread, &b.variances));
        assert_eq!(a.mean, [1.0]);
    }
}
