//! One alarm for one trouble: after an alarm a series is quiet for a while, unless something much stronger comes.

/// The quiet lasts for this part of the rows seen so far, and for so many rows at least and at most.
const PART: f64 = 0.03;
const LEAST: u64 = 5;
const MOST: u64 = 400;
/// Within the quiet an alarm has to be less likely by chance by this factor, as a logarithm: twelve times.
const STRONGER: f64 = 2.5;

/// What was told last, and until when that is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hush {
    told: f64,
    until: u64,
}

impl Hush {
    /// Whether what weighs this much (minus the logarithm of its chance) is told on this row.
    pub(super) fn lets(&mut self, row: u64, weight: f64) -> bool {
        if row < self.until && weight <= self.told + STRONGER {
            return false;
        }
        if weight > 0.0 {
            self.told = weight;
            self.until = row + ((row as f64 * PART) as u64).clamp(LEAST, MOST);
        }
        weight > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_once_unless_it_grows() {
        let mut hush = Hush::default();
        let told: Vec<u64> =
            (1_000..1_040).filter(|&row| hush.lets(row, if row == 1_010 { 9.0 } else { 6.0 })).collect();
        assert_eq!(told, [1_000, 1_010]);
        assert!(hush.lets(1_041, 6.0), "and when it is over, again");
    }
}
