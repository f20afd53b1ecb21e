//! Limits of what is usual: how far a window may be off the subspace, and how far out within it.

/// One window in a thousand of a source as it is assumed to be is beyond: the normal quantile of 0.999.
const QUANTILE: f64 = 3.090_232_306_167_813;

/// The least exponent: below it the formula has no meaning.
const LEAST_EXPONENT: f64 = 1e-3;

/// The limit of the squared distance from the subspace (Jackson and Mudholkar, Technometrics 21, 1979), of the
/// eigenvalues that were left out of it.
pub(super) fn residual(left_out: &[f64]) -> f64 {
    let sum = |power: i32| left_out.iter().map(|value| value.max(0.0).powi(power)).sum::<f64>();
    let (first, second, third) = (sum(1), sum(2), sum(3));
    if first <= 0.0 || second <= 0.0 {
        return 0.0;
    }
    let h = (1.0 - 2.0 * first * third / (3.0 * second * second)).max(LEAST_EXPONENT);
    let root =
        QUANTILE * (2.0 * second * h * h).sqrt() / first + 1.0 + second * h * (h - 1.0) / (first * first);
    first * root.max(0.0).powf(1.0 / h)
}

/// The limit of the squared distance within it, each direction in its own measure: chi squared with as many degrees
/// of freedom (Wilson and Hilferty, 1931).
pub(super) fn within(directions: usize) -> f64 {
    if directions == 0 {
        return 0.0;
    }
    let k = directions as f64;
    let part = 2.0 / (9.0 * k);
    k * (1.0 - part + QUANTILE * part.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With equal values that are left out the distance is chi squared, whose quantiles stand in every table.
    #[test]
    fn the_limits_are_those_of_chi_squared_where_it_is_known() {
        for (degrees, table) in [(2, 13.816), (5, 20.515), (10, 29.588), (30, 59.703), (100, 149.449)] {
            let q = residual(&vec![1.0; degrees]);
            assert!((q / table - 1.0).abs() < 0.025, "{degrees}: {q} is not {table}");
            let t = within(degrees);
            assert!((t / table - 1.0).abs() < 0.025, "{degrees}: {t} is not {table}");
            let scaled = residual(&vec![2.5; degrees]);
            assert!((scaled / q - 2.5).abs() < 1e-9);
        }
    }

    /// A sum of squares with unequal weights, drawn with a small generator of its own.
    #[test]
    fn one_in_a_thousand_is_beyond_also_when_the_values_differ() {
        let values = [1.0, 0.6, 0.3, 0.3, 0.1];
        let limit = residual(&values);
        let mut state = 7_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let beyond = (0..200_000)
            .filter(|_| values.iter().map(|value| value * normal().powi(2)).sum::<f64>() > limit)
            .count();
        assert!((120..=300).contains(&beyond), "{beyond} of 200,000");
    }

    #[test]
    fn nothing_left_out_leaves_no_room() {
        assert_eq!((residual(&[]), residual(&[0.0, -1e-18]), within(0)), (0.0, 0.0, 0.0));
    }
}
