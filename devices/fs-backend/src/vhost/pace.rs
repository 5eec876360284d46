//! How long a queue is looked at after its last request, instead of waiting to be kicked.
//!
//! A driver that waits for an answer before it asks again pays for each kick: the write leaves the
//! guest, and this process has to be woken. Whoever looks at the ring meanwhile spares it both, and
//! takes a processor for that. So a queue is looked at only when its driver was quick the last time,
//! and for a few times as long as serving took: a driver takes about as long for a request as the
//! backend does, whatever the machine.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A driver counts as quick that asks again within so many times what serving one request took.
const QUICK: u32 = 8;

/// Longest time that a queue is looked at in vain, unless told otherwise.
pub const DEFAULT_POLL: Duration = Duration::from_micros(200);

/// What a queue's requests say about the next one.
#[derive(Debug)]
pub(super) struct Pace {
    /// Longest time to look; zero never looks.
    most: Duration,
    /// Within what time the next request has to come.
    limit: Duration,
    /// When the queue was found empty.
    emptied: Option<Instant>,
    /// Whether the last request that was waited for came within the limit.
    quick: bool,
}

impl Pace {
    /// Of a queue without requests, which is looked at for `most` at most.
    pub(super) fn new(most: Duration) -> Self {
        Self {
            most,
            limit: Duration::ZERO,
            emptied: None,
            quick: false,
        }
    }

    /// Takes note of `count` requests that were served between two moments, after which the queue
    /// was empty. Returns until when it is worth looking for the next one.
    pub(super) fn served(
        &mut self,
        count: NonZeroU32,
        began: Instant,
        ended: Instant,
    ) -> Option<Instant> {
        if let Some(emptied) = self.emptied {
            self.quick = began.saturating_duration_since(emptied) <= self.limit;
        }
        let each = ended.saturating_duration_since(began) / count.get();
        self.limit = each.saturating_mul(QUICK).min(self.most);
        self.emptied = Some(ended);
        if !self.quick || self.limit.is_zero() {
            return None;
        }
        ended.checked_add(self.limit)
    }
}
