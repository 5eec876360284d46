//! Keeps a guest from filling the host's log.

use std::time::{Duration, Instant};

/// Least time between two reports of the same card's faults.
const QUIET: Duration = Duration::from_secs(10);

/// Lets one report through per [`QUIET`] and counts the others.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Whether to report now, and if so how many reports were held back since the last one.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < QUIET)
        {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_report_is_held_back_until_quiet_time_has_passed() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start), None);
        assert_eq!(throttle.admit(start + QUIET), Some(1));
    }
}
