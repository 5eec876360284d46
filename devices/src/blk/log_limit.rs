//! A brake on log lines that a guest can cause.

use std::time::{Duration, Instant};

/// Lines per [`WINDOW`]: enough to see what is wrong, too few to fill a disk with.
const LINES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Lets a few lines through per minute and counts the others.
#[derive(Debug)]
pub(super) struct LogLimit {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl LogLimit {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            lines: 0,
            dropped: 0,
        }
    }

    /// Whether to log now; then with the number of lines dropped before.
    pub(super) fn allow(&mut self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.lines = self.lines.saturating_add(1);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_cut_and_counted() {
        let mut limit = LogLimit::new();
        let now = limit.since;
        let allowed = (0..100).filter(|_| limit.allow_at(now).is_some()).count();
        assert_eq!(allowed, 5);
        assert_eq!(limit.allow_at(now + WINDOW), Some(95));
    }
}
