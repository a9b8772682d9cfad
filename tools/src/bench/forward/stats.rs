//! Medians, and how sure they are.

/// The middle value, or the mean of the two in the middle; zero of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        None => 0.0,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => (upper + sorted.get(middle.wrapping_sub(1)).unwrap_or(upper)) / 2.0,
    }
}

/// Between which values the median of all that could have been measured lies, with a certainty of
/// 95%: the order statistics whose ranks are 0.98 times the root of the number from the middle
/// (the binomial interval, by its normal approximation). Zeroes of none.
pub(super) fn interval(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    let count = sorted.len() as f64;
    let reach = 0.98 * count.sqrt();
    let low = (count / 2.0 - reach).floor().max(0.0) as usize;
    let high = (count / 2.0 + reach).ceil().min(count - 1.0).max(0.0) as usize;
    let at = |rank: usize| sorted.get(rank).copied().unwrap_or_default();
    (at(low), at(high))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn the_interval_of_few_values_is_all_of_them() {
        assert_eq!(interval(&[]), (0.0, 0.0));
        assert_eq!(interval(&[7.0]), (7.0, 7.0));
        assert_eq!(interval(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }

    #[test]
    fn the_interval_of_many_values_is_narrow() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        // Ranks 41 and 61 of 1 to 100 would be exact.
        assert_eq!(interval(&values), (40.0, 60.0));
    }
}
