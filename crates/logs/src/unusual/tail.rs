//! How likely is so much, so little, or so long a wait? Chances as decibans of surprise.

/// No statement is surer than this: the models are models.
pub const MOST_DECIBANS: f64 = 40.0;

/// Terms of a sum, at most: beyond, each is a fraction of the one before.
const MOST_TERMS: usize = 4_096;

/// Ten times the logarithm of one over a chance.
pub fn decibans(chance: f64) -> f64 {
    -10.0 * chance.max(1e-300).log10()
}

/// The chance of so many or more, where `mean` is usual and the variance is `spread` times that: negative binomial,
/// and Poisson where the spread is one.
pub fn at_least(count: f64, mean: f64, spread: f64) -> f64 {
    if count <= mean {
        return 1.0;
    }
    let next = |k: f64| match size(mean, spread) {
        Some(size) => (k + size) / (k + 1.0) * (mean / (mean + size)),
        None => mean / (k + 1.0),
    };
    sum(count, mean, spread, |k| (next(k), k + 1.0))
}

/// The chance of so few or fewer.
pub fn at_most(count: f64, mean: f64, spread: f64) -> f64 {
    if count >= mean {
        return 1.0;
    }
    let before = |k: f64| match size(mean, spread) {
        _ if k <= 0.0 => 0.0,
        Some(size) => k / ((k - 1.0 + size) * (mean / (mean + size))),
        None => k / mean,
    };
    sum(count, mean, spread, |k| (before(k), k - 1.0))
}

/// The sum of chances from `count` on, each `step` away from the one before.
fn sum(count: f64, mean: f64, spread: f64, step: impl Fn(f64) -> (f64, f64)) -> f64 {
    let first = log_chance(count, mean, spread).exp();
    let (mut term, mut sum, mut k) = (1.0, 1.0, count);
    for _ in 0..MOST_TERMS {
        let (ratio, next) = step(k);
        term *= ratio;
        sum += term;
        k = next;
        if term < 1e-9 * sum {
            break;
        }
    }
    (first * sum).clamp(0.0, 1.0)
}

/// The size of a negative binomial; none where it is as good as a Poisson.
fn size(mean: f64, spread: f64) -> Option<f64> {
    (spread > 1.0 + 1e-6).then(|| mean / (spread - 1.0))
}

fn log_chance(k: f64, mean: f64, spread: f64) -> f64 {
    let mean = mean.max(1e-12);
    match size(mean, spread) {
        Some(size) => {
            let (p, q) = (size / (mean + size), mean / (mean + size));
            log_gamma(k + size) - log_gamma(size) - log_gamma(k + 1.0) + size * p.ln() + k * q.ln()
        }
        None => k * mean.ln() - mean - log_gamma(k + 1.0),
    }
}

/// The logarithm of the gamma function of a positive number: Stirling's series, behind a shift to where it is exact
/// to ten digits.
fn log_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x.max(1e-12), 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let series = inverse / 12.0 - inverse.powi(3) / 360.0 + inverse.powi(5) / 1_260.0;
    shift + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

/// The chance of waiting longer than `wait`, where waits have this mean and this deviation: a gamma distribution, its
/// tail by Wilson and Hilferty's cube root.
pub fn waits(wait: f64, mean: f64, deviation: f64) -> f64 {
    if mean <= 0.0 || wait <= mean {
        return 1.0;
    }
    let shape = (mean / deviation.max(1e-9)).powi(2);
    let part = 1.0 / (9.0 * shape);
    let z = ((wait / mean).cbrt() - (1.0 - part)) / part.sqrt();
    normal_tail(z)
}

/// The chance that a normal value is more than so many deviations above its mean: a continued fraction.
fn normal_tail(z: f64) -> f64 {
    if z < 1.0 {
        return 1.0; // nobody asks: it is no surprise
    }
    let mut fraction = z;
    for k in (1..=24).rev() {
        fraction = z + f64::from(k) / fraction;
    }
    (-z * z / 2.0).exp() / (fraction * std::f64::consts::TAU.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, table: f64) {
        assert!((found / table - 1.0).abs() < 1e-3, "{found} is not {table}");
    }

    #[test]
    fn chances_are_those_of_the_tables() {
        close(at_least(10.0, 3.0, 1.0), 1.102_488e-3); // Poisson
        close(at_least(1.0, 0.01, 1.0), 9.950_166e-3);
        close(at_most(2.0, 10.0, 1.0), 2.769_396e-3);
        close(at_most(0.0, 40.0, 1.0), (-40.0_f64).exp());
        // With spread 2 and mean 3 it is the number of failures before the third success, one half each.
        let table: f64 = (12..200).map(|k| f64::from((k + 2) * (k + 1)) / 2.0 * 0.5_f64.powi(k + 3)).sum();
        close(at_least(12.0, 3.0, 2.0), table);
        close(normal_tail(3.090_232), 1e-3);
        close(normal_tail(4.753_424), 1e-6);
        assert_eq!((at_least(2.0, 3.0, 1.0), at_most(4.0, 3.0, 1.0), waits(1.0, 2.0, 1.0)), (1.0, 1.0, 1.0));
    }

    #[test]
    fn what_cannot_be_is_as_surprising_as_can_be_and_no_more() {
        assert!(decibans(at_least(1e6, 1.0, 1.0)) > 1_000.0);
        assert!(at_least(1e9, 1e3, 1e6).is_finite() && at_most(0.0, 1e9, 1.0) >= 0.0);
        // Waits of one second each: the exponential's tail, within what the cube root can.
        assert!((waits(9.2, 1.0, 1.0).log10() + 4.0).abs() < 0.3);
        assert!(waits(30.0, 10.0, 1.0) < 1e-20);
    }
}
