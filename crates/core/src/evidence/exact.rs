//! Powers and logarithms by exactly rounded operations only: the same bits on every machine, unlike those of `libm`, so
//! that a replay elsewhere decides the same.

/// The logarithm of a positive, normal number, to about twelve digits, by exactly rounded operations only.
pub(super) fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let mut exponent = f64::from((bits >> 52) as i32 - 1_023);
    let mut mantissa = f64::from_bits(bits & 0x000F_FFFF_FFFF_FFFF | 0x3FF0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let q = s * s;
    let series =
        1.0 + q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
    exponent + s * series * (2.0 * std::f64::consts::LOG2_E)
}

/// One over 1, 2 .. 9: a division costs several products.
const INVERSE: [f64; 9] =
    [1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0, 1.0 / 6.0, 1.0 / 7.0, 1.0 / 8.0, 1.0 / 9.0];

/// Two to this power, within the range of normal numbers, to about ten digits.
pub(super) fn exp2(power: f64) -> f64 {
    let power = power.clamp(-1_000.0, 1_000.0);
    let floor = power.floor();
    let x = (power - floor - 0.5) * std::f64::consts::LN_2;
    let series = INVERSE.iter().rev().fold(1.0, |sum, inverse| 1.0 + x * inverse * sum);
    f64::from_bits(((floor as i64 + 1_023) as u64) << 52) * series * std::f64::consts::SQRT_2
}

/// A power of a number that is not negative.
pub(super) fn pow(value: f64, power: f64) -> f64 {
    if value < f64::MIN_POSITIVE { 0.0 } else { exp2(log2(value) * power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_logarithms_are_right() {
        for n in 1..2_000 {
            let x = f64::from(n) * 0.37;
            assert!((log2(x) - x.log2()).abs() < 1e-10);
            assert!((exp2(x / 20.0 - 18.0) / (x / 20.0 - 18.0).exp2() - 1.0).abs() < 1e-8);
        }
    }
}
