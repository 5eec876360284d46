//! What a handful of measured values says: pure functions of numbers.
//!
//! Times of boots are skewed and have outliers, so everything here goes by rank: medians, their
//! confidence intervals by resampling (Efron's percentile bootstrap), and the Mann-Whitney U test with
//! its probability by permutation, which holds for few values and for ties alike.

use serde::Serialize;

/// How often samples are drawn anew for a confidence interval, or dealt anew for a test.
const RESAMPLES: u32 = 4000;

/// Seed of the draws: the same values always have the same interval.
const SEED: u64 = 0x5107_b007;

/// Below this probability a difference is called one.
pub const SIGNIFICANCE: f64 = 0.05;

/// An interval that holds the true value 95 times out of 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Values of one measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// The least.
    pub min: f64,
    /// The one in the middle; the mean of the two in the middle of an even number.
    pub median: f64,
    /// Nearest rank at 99 %: the largest of fewer than a hundred values.
    pub p99: f64,
    /// 95 % confidence interval of the median.
    pub interval: Interval,
}

impl Summary {
    /// Sums up `values`; nothing when there are none, or one is no number.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values)?;
        let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        let mut draw = Draw::new();
        let medians = draw.resample(|draw| draw.median(&sorted));
        Some(Self {
            count: sorted.len(),
            min: *sorted.first()?,
            median: middle(&sorted)?,
            p99: *sorted.get(rank)?,
            interval: interval(medians)?,
        })
    }
}

/// How one set of values compares to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the one divided by the median of the other.
    pub ratio: f64,
    /// 95 % confidence interval of it.
    pub interval: Interval,
    /// Probability of a difference like this between values of the same origin: two-sided
    /// Mann-Whitney U test. Four thousand permutations tell nothing below 0.00025.
    pub p: f64,
}

impl Ratio {
    /// Compares `ours` to `theirs`; nothing when either is empty or holds something else than
    /// positive numbers.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let (ours, theirs) = (sorted(ours)?, sorted(theirs)?);
        let ratio = quotient(middle(&ours)?, middle(&theirs)?)?;
        let mut draw = Draw::new();
        let ratios = draw.resample(|draw| quotient(draw.median(&ours)?, draw.median(&theirs)?));
        Some(Self {
            ratio,
            interval: interval(ratios)?,
            p: draw.chance_of_difference(&ours, &theirs),
        })
    }

    /// Whether the difference is more than chance.
    pub fn is_significant(&self) -> bool {
        self.p < SIGNIFICANCE
    }
}

/// Draws values with replacement.
struct Draw(fastrand::Rng);

impl Draw {
    fn new() -> Self {
        Self(fastrand::Rng::with_seed(SEED))
    }

    /// The median of as many values as there are, drawn from them.
    fn median(&mut self, values: &[f64]) -> Option<f64> {
        let mut drawn: Vec<f64> = (0..values.len())
            .filter_map(|_| values.get(self.0.usize(..values.len())).copied())
            .collect();
        drawn.sort_by(f64::total_cmp);
        middle(&drawn)
    }

    /// How likely the ranks of two sets lie as far apart as these when all values are of one origin.
    fn chance_of_difference(&mut self, one: &[f64], other: &[f64]) -> f64 {
        let mut ranks = ranks(one, other);
        let sum = |ranks: &[f64]| ranks.iter().take(one.len()).sum::<f64>();
        let expected = ranks.iter().sum::<f64>() * one.len() as f64 / ranks.len() as f64;
        let seen = (sum(&ranks) - expected).abs();
        let mut extreme = 1_u32;
        for _ in 0..RESAMPLES {
            self.0.shuffle(&mut ranks);
            // Sums of halves are exact.
            let is_extreme = (sum(&ranks) - expected).abs() >= seen;
            extreme = extreme.saturating_add(u32::from(is_extreme));
        }
        f64::from(extreme) / f64::from(RESAMPLES.saturating_add(1))
    }

    fn resample(&mut self, mut one: impl FnMut(&mut Self) -> Option<f64>) -> Vec<f64> {
        (0..RESAMPLES).filter_map(|_| one(self)).collect()
    }
}

/// The ranks of `one`, then of `other`, among all values; equal values share the mean of theirs.
fn ranks(one: &[f64], other: &[f64]) -> Vec<f64> {
    let mut all = [one, other].concat();
    all.sort_by(f64::total_cmp);
    let rank = |value: &f64| {
        let below = all.partition_point(|other| other < value);
        let with_equal = all.partition_point(|other| other <= value);
        f64::midpoint(below as f64, with_equal as f64)
    };
    one.iter().chain(other).map(rank).collect()
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(sorted)
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(half.checked_sub(1)?)?, upper))
}

fn quotient(one: f64, other: f64) -> Option<f64> {
    (other > 0.0).then(|| one / other)
}

/// The middle 95 % of resampled values.
fn interval(mut values: Vec<f64>) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 40;
    Some(Interval {
        low: *values.get(cut)?,
        high: *values.get(values.len().checked_sub(cut.saturating_add(1))?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn summary_has_least_middle_and_largest() {
        let summary = Summary::of(&[3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!((summary.count, summary.min), (4, 1.0));
        assert_eq!(summary.median, 2.5);
        assert_eq!(summary.p99, 10.0);
    }

    #[test]
    fn p99_of_many_values_leaves_out_the_worst_of_a_hundred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(Summary::of(&values).unwrap().p99, 198.0);
    }

    #[test]
    fn nothing_and_what_is_no_number_have_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(Ratio::of(&[1.0], &[]), None);
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
    }

    #[test]
    fn clear_difference_is_significant_and_noise_is_not() {
        let fast: Vec<f64> = (0..12).map(|i| 100.0 + f64::from(i % 5)).collect();
        let slow: Vec<f64> = fast.iter().map(|value| value * 2.0).collect();
        let ratio = Ratio::of(&fast, &slow).unwrap();
        assert!(ratio.is_significant(), "{ratio:?}");
        assert_eq!(ratio.ratio, 0.5);
        assert!(ratio.interval.low > 0.45 && ratio.interval.high < 0.55);
        let same = Ratio::of(&fast, &fast).unwrap();
        assert!(!same.is_significant() && same.ratio == 1.0, "{same:?}");
    }

    #[test]
    fn equal_values_without_any_spread_are_no_difference() {
        let ratio = Ratio::of(&[4.0; 6], &[4.0; 6]).unwrap();
        assert_eq!((ratio.ratio, ratio.p), (1.0, 1.0));
    }

    #[test]
    fn u_test_agrees_with_counting_all_ways_to_split() {
        // Two sets of four without overlap: of the 70 ways to split them, two are as extreme.
        let ratio = Ratio::of(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]).unwrap();
        assert!((ratio.p - 2.0 / 70.0).abs() < 0.01, "{}", ratio.p);
    }

    proptest! {
        // Each draws thousands of times.
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn order_within_a_summary_holds(values in prop::collection::vec(0.001..1e6, 1..40)) {
            let summary = Summary::of(&values).unwrap();
            prop_assert!(summary.min <= summary.median && summary.median <= summary.p99);
            prop_assert!(summary.interval.low <= summary.median);
            prop_assert!(summary.median <= summary.interval.high);
            prop_assert_eq!(Summary::of(&values), Some(summary));
        }
    }
}
