//! A set of clusters, one bit each.

use std::ops::Range;

/// Some of the clusters of an image. A cluster beyond its end counts as a member.
#[derive(Debug)]
pub(super) struct Clusters {
    words: Vec<u64>,
    len: u64,
    members: u64,
}

impl Clusters {
    /// None of `len` clusters.
    pub(super) fn new(len: u64) -> Self {
        let words = usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            len,
            members: 0,
        }
    }

    /// Number of members.
    pub(super) fn count(&self) -> u64 {
        self.members
    }

    /// Whether all of `range` are members.
    pub(super) fn has(&self, range: Range<u64>) -> bool {
        self.next_missing(range).is_none()
    }

    /// Makes all of `range` members.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        for cluster in range.start..range.end.min(self.len) {
            if let Some((word, bit)) = position(cluster)
                && let Some(word) = self.words.get_mut(word)
                && *word & bit == 0
            {
                *word |= bit;
                self.members = self.members.saturating_add(1);
            }
        }
    }

    /// The first of `range` that is no member.
    pub(super) fn next_missing(&self, range: Range<u64>) -> Option<u64> {
        let (mut cluster, end) = (range.start, range.end.min(self.len));
        while cluster < end {
            let (word, bit) = position(cluster)?;
            let rest = !self.words.get(word)? & !(bit.wrapping_sub(1));
            if rest != 0 {
                let found = (cluster & !63).saturating_add(u64::from(rest.trailing_zeros()));
                return (found < end).then_some(found);
            }
            cluster = (cluster | 63).saturating_add(1);
        }
        None
    }

    /// How many from `first` on are no members, at most up to `end`.
    pub(super) fn missing_run(&self, first: u64, end: u64) -> Range<u64> {
        let mut last = first;
        while last < end.min(self.len) && !self.has(last..last.saturating_add(1)) {
            last = last.saturating_add(1);
        }
        first..last
    }
}

fn position(cluster: u64) -> Option<(usize, u64)> {
    let word = usize::try_from(cluster / 64).ok()?;
    Some((word, 1 << (cluster % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_missing_is_found_across_words() {
        let mut clusters = Clusters::new(200);
        assert_eq!(clusters.next_missing(0..200), Some(0));
        clusters.insert(0..130);
        clusters.insert(131..300);
        assert_eq!(clusters.next_missing(0..200), Some(130));
        assert_eq!(clusters.next_missing(131..200), None);
        assert_eq!(clusters.missing_run(130, 200), 130..131);
        assert!(clusters.has(190..250), "what is not there needs nothing");
        assert_eq!(clusters.count(), 199);
    }
}
