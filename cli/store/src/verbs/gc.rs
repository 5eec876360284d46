//! `gc`: removes snapshots that nobody wants any more.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::delete::delete_snapshot;
use crate::error::StoreError;
use crate::name::Name;
use crate::store::Store;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// 1970-01-01 was a Thursday: weeks begin four days later.
const WEEK_OFFSET: u64 = 3 * DAY;

/// How long a period of a rule is; of each period that has snapshots the newest one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    /// No period: every snapshot counts.
    Each,
    /// An hour of UTC.
    Hourly,
    /// A day of UTC.
    Daily,
    /// A week of UTC, from Monday.
    Weekly,
}

impl Period {
    const NAMED: [(&'static str, Self); 3] = [
        ("hourly", Self::Hourly),
        ("daily", Self::Daily),
        ("weekly", Self::Weekly),
    ];

    /// The number of the period that a time is in; nothing if each time counts for itself.
    fn of(self, created: u64) -> Option<u64> {
        match self {
            Self::Each => None,
            Self::Hourly => Some(created / HOUR),
            Self::Daily => Some(created / DAY),
            Self::Weekly => Some(created.saturating_add(WEEK_OFFSET) / (7 * DAY)),
        }
    }
}

/// Which snapshots are kept: those that any of the rules keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    rules: Vec<(Period, u32)>,
}

impl Retention {
    /// Keeps the newest `count`.
    pub fn newest(count: u32) -> Self {
        Self {
            rules: vec![(Period::Each, count)],
        }
    }

    /// Which of the snapshots with these times, the newest first, are kept.
    fn keeps(&self, created: &[u64]) -> Vec<bool> {
        let mut kept = vec![false; created.len()];
        for (period, count) in &self.rules {
            let mut seen = BTreeSet::new();
            let mut left = *count;
            for (time, kept) in created.iter().zip(&mut kept) {
                let is_first = period.of(*time).is_none_or(|number| seen.insert(number));
                if is_first && left > 0 {
                    left = left.saturating_sub(1);
                    *kept = true;
                }
            }
        }
        kept
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = |(period, count): &(Period, u32)| {
            let named = Period::NAMED.iter().find(|(_, named)| named == period);
            named.map_or_else(|| count.to_string(), |(name, _)| format!("{name}:{count}"))
        };
        let rules: Vec<String> = self.rules.iter().map(rule).collect();
        f.write_str(&rules.join(","))
    }
}

/// Why a text does not say what is kept.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{text}\" does not say which snapshots are kept: expected a number such as 10, or rules such \
     as hourly:24,daily:7,weekly:4"
)]
pub struct RetentionError {
    text: String,
}

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let rule = |rule: &str| {
            let Some((name, count)) = rule.split_once(':') else {
                return rule.parse().ok().map(|count| (Period::Each, count));
            };
            let (_, period) = Period::NAMED.iter().find(|(named, _)| *named == name)?;
            count.parse().ok().map(|count| (*period, count))
        };
        let rules: Option<Vec<_>> = text.split(',').map(str::trim).map(rule).collect();
        rules
            .map(|rules| Self { rules })
            .ok_or_else(|| RetentionError {
                text: text.to_owned(),
            })
    }
}

impl Store {
    /// The snapshots of `state` that `retention` does not keep, the oldest first. One whose
    /// manifest cannot be read is always kept: its age is not known.
    ///
    /// # Errors
    /// When there is no such state or it cannot be read.
    pub fn expired(&self, state: &Name, retention: &Retention) -> Result<Vec<Name>, StoreError> {
        if !self.layout().state(state).is_dir() {
            let state = state.clone();
            return Err(StoreError::NoState { state });
        }
        let mut snapshots = self.snapshots(state)?;
        snapshots.retain(|snapshot| snapshot.manifest.is_some());
        let newest_first: Vec<u64> = snapshots.iter().rev().map(|it| it.created).collect();
        let kept = retention.keeps(&newest_first);
        let oldest_first = snapshots.into_iter().zip(kept.into_iter().rev());
        let expired = oldest_first.filter(|(_, kept)| !kept);
        Ok(expired.map(|(snapshot, _)| snapshot.snapshot).collect())
    }

    /// Removes the snapshots that `retention` does not keep, and says which.
    ///
    /// # Errors
    /// When a snapshot is in use, or the host refuses; those before it are removed then.
    pub fn gc(&self, state: &Name, retention: &Retention) -> Result<Vec<Name>, StoreError> {
        let locked = self.lock()?;
        let expired = self.expired(state, retention)?;
        for snapshot in &expired {
            delete_snapshot(&locked, state, snapshot)?;
        }
        Ok(expired)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(rules: &str, mut times: Vec<u64>) -> Vec<u64> {
        times.sort_by(|a, b| b.cmp(a));
        let keeps = rules.parse::<Retention>().unwrap().keeps(&times);
        let pairs = times.into_iter().zip(keeps);
        pairs
            .filter(|(_, keep)| *keep)
            .map(|(time, _)| time)
            .collect()
    }

    #[test]
    fn newest_of_each_period_is_kept() {
        let times = vec![0, 10, HOUR, HOUR + 10, DAY, DAY + 10, 4 * DAY, 4 * DAY + 10];
        assert_eq!(kept("2", times.clone()), [4 * DAY + 10, 4 * DAY]);
        assert_eq!(kept("daily:2", times.clone()), [4 * DAY + 10, DAY + 10]);
        assert_eq!(
            kept("hourly:4", times.clone()),
            [4 * DAY + 10, DAY + 10, HOUR + 10, 10]
        );
        assert_eq!(kept("weekly:9", times.clone()), [4 * DAY + 10, DAY + 10]);
        assert_eq!(kept("1,daily:1,weekly:2", times), [4 * DAY + 10, DAY + 10]);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for text in ["", "x", "-1", "daily", "daily:", "monthly:2", "daily:2,,"] {
            assert!(text.parse::<Retention>().is_err(), "{text:?}");
        }
        let text = "3,hourly:24,daily:7,weekly:4";
        assert_eq!(text.parse::<Retention>().unwrap().to_string(), text);
    }

    proptest! {
        #[test]
        fn newest_is_kept_and_more_rules_keep_more(
            times in prop::collection::vec(0..60 * DAY, 1..40),
            count in 1..20_u32,
        ) {
            let newest = times.iter().max().copied();
            let one = kept(&format!("daily:{count}"), times.clone());
            prop_assert_eq!(one.first().copied(), newest);
            prop_assert!(one.len() <= count as usize);
            let days: BTreeSet<u64> = one.iter().map(|time| time / DAY).collect();
            prop_assert_eq!(days.len(), one.len());
            let more = kept(&format!("daily:{count},hourly:{count}"), times);
            prop_assert!(one.iter().all(|time| more.contains(time)));
        }
    }
}
