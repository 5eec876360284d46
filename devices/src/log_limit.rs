//! Keeps a guest from filling the host's log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts occurrences of something the guest can cause at will, and lets few of them be logged:
/// the 1st, 2nd, 4th, 8th and so on, so that no guest ever gets more than 64 lines out of one.
#[derive(Debug, Default)]
pub struct LogLimit(AtomicU64);

impl LogLimit {
    /// A limit that nothing has used yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one occurrence. Returns the count when this one is to be logged.
    pub fn next(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        count.is_power_of_two().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_occurrences_give_twenty_lines() {
        let limit = LogLimit::new();
        let logged = (0..1_000_000).filter(|_| limit.next().is_some()).count();
        assert_eq!(logged, 20);
    }
}
