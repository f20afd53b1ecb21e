//! From surprises to one probability.
//!
//! Views of one series are combined by the truncated product of their p-values (Zaykin et al., "Truncated product method
//! for combining P-values", 2002): only views that are surprised at all count, so many calm views do not drown one that
//! is not. What comes out is no p-value: the views see the same noise, and a history is short. What it is worth was
//! therefore learned, from made series of which it is known what is wrong in them (Platt, "Probabilistic outputs for
//! support vector machines", 1999: a logistic map of two constants; none of it is from real data).
//!
//! Silence keeps its promise by itself: it is only looked at if it is three times the longest before. Its chance is
//! compared with what is wrong as often as that (the tail-area false discovery rate, Efron & Tibshirani, "Empirical
//! Bayes methods and false discovery rates for microarrays", 2002).

use crate::evidence::exact;

/// A view counts from this surprise on: e^3 of the some hundred blocks may reach so far.
const COUNTS_FROM: f64 = -3.0;
/// The share of blocks in which a calm view counts: e^3 of a hundred.
const CALM: f64 = 0.2;
/// No single view weighs more.
const HEAVIEST: f64 = 12.0;
/// In so many blocks of a history something is wrong, before anything is seen: one in a hundred.
const PRIOR: f64 = 0.01;
/// The odds that something is wrong are one over this and over the fourth root of the chance. Learned from what was told of
/// the 2,160 series of nine kinds that `examples/series_reliability` makes of seeds 100 to 179: e^2.73 and 0.2497.
const AGAINST: f64 = 15.0;

/// The natural logarithm of a positive, normal number, the same on every machine.
pub(super) fn ln(value: f64) -> f64 {
    exact::log2(value) * std::f64::consts::LN_2
}

/// The exponential, the same on every machine.
pub(super) fn exp(power: f64) -> f64 {
    exact::exp2(power * std::f64::consts::LOG2_E)
}

/// What one view adds to the weight of all.
pub(super) fn weight(surprise: Option<f64>) -> f64 {
    surprise.map_or(0.0, |surprise| (surprise - COUNTS_FROM).clamp(0.0, HEAVIEST))
}

/// How likely it is that so many calm and independent views together weigh so much in a block:
/// the sum over j of P(j views count) times the Erlang tail of j.
pub(super) fn by_chance(total: f64, views: u32) -> f64 {
    if total <= 0.0 {
        return 1.0;
    }
    let mut chance = 0.0;
    let mut choose = 1.0; // of all views, j
    let (mut term, mut erlang) = (1.0, 0.0); // total^(j-1)/(j-1)!, and the sum of such
    for j in 1..=views {
        let (j, views) = (f64::from(j), f64::from(views));
        choose *= (views - j + 1.0) / j;
        erlang += term;
        term *= total / j;
        chance += choose * power(CALM, j) * power(1.0 - CALM, views - j) * erlang;
    }
    (chance * exp(-total)).clamp(f64::MIN_POSITIVE, 1.0)
}

fn power(base: f64, times: f64) -> f64 {
    exact::pow(base, times)
}

/// The probability that something is wrong, where views together look as they should by chance so seldom.
pub(super) fn wrong(chance: f64) -> f64 {
    1.0 / (1.0 + AGAINST * chance.sqrt().sqrt())
}

/// The same where nothing comes.
pub(super) fn wrong_silence(chance: f64) -> f64 {
    PRIOR / (PRIOR + chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_view_is_its_own_p_value() {
        for total in [0.5, 2.0, 7.0] {
            assert!((by_chance(total, 1) - CALM * (-total).exp()).abs() < 1e-9);
        }
    }

    #[test]
    fn chance_falls_with_the_weight_and_grows_with_the_views() {
        let mut last = 1.0;
        for total in 1..90 {
            let now = by_chance(f64::from(total), 7);
            assert!(now < last && now > by_chance(f64::from(total), 6));
            last = now;
        }
        assert!(wrong(by_chance(84.0, 7)) > 0.999_999 && wrong(1.0) < 0.07);
        assert!(wrong_silence(1e-4) > 0.98 && wrong_silence(1.0) < 0.01);
    }
}
