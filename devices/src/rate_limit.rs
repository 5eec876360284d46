//! How fast a device may serve its guest: token buckets, and a timer that says when there are
//! tokens again.
//!
//! A bucket fills with the rate and holds no more than the burst. Whatever comes next may pass
//! while there is anything in the bucket, however large it is, and takes the bucket into debt when
//! it is larger than what was there: a receiver learns the size of a frame by taking it, and a
//! request above the burst would never pass otherwise. Over any time `t` no more passes than
//! `burst + rate * t` and one item.

use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

#[cfg(test)]
mod tests;

/// A bucket is full of `burst` units, and counts them in parts of a nanosecond's worth.
const NANOS: i128 = 1_000_000_000;

/// How much of a saturated bucket's rate is gathered before the timer fires: with fewer tokens each
/// frame would have a timer of its own.
const GATHER: Duration = Duration::from_millis(1);

/// A rate with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units per second.
    pub per_second: NonZeroU64,
    /// Units that may pass at once after a pause.
    pub burst: NonZeroU64,
}

/// Limits of one direction of a device; what is not set is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes: of frames without the virtio header, or of data.
    pub bytes: Option<Rate>,
    /// Operations: frames or requests.
    pub operations: Option<Rate>,
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }
}

/// A token bucket on a clock that its caller reads.
#[derive(Debug)]
struct Bucket {
    /// Units per second, which are parts per nanosecond.
    rate: i128,
    /// Parts of a full bucket.
    full: i128,
    /// Parts in it; negative when in debt.
    level: i128,
    /// Time on the caller's clock of `level`.
    at: Duration,
}

impl Bucket {
    /// A full bucket.
    fn new(rate: Rate) -> Self {
        let full = i128::from(rate.burst.get()) * NANOS;
        Self {
            rate: i128::from(rate.per_second.get()),
            full,
            level: full,
            at: Duration::ZERO,
        }
    }

    /// How long there will be nothing in the bucket, or nothing when there is something at `now`.
    fn wait(&mut self, now: Duration) -> Option<Duration> {
        let passed = nanos(now.saturating_sub(self.at));
        self.at = self.at.max(now);
        // Rates and times are below 2^64 each, so that their product fits.
        self.level = passed
            .saturating_mul(self.rate)
            .saturating_add(self.level)
            .min(self.full);
        if self.level > 0 {
            return None;
        }
        let enough = self.rate.saturating_mul(nanos(GATHER)).min(self.full);
        let missing = enough.saturating_sub(self.level).max(1);
        // The first nanosecond at which that much is there. The rate is not zero.
        let wait = missing.saturating_add(self.rate - 1) / self.rate;
        Some(Duration::from_nanos(
            u64::try_from(wait).unwrap_or(u64::MAX),
        ))
    }

    fn spend(&mut self, units: u64) {
        self.level = self.level.saturating_sub(i128::from(units) * NANOS);
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

/// The buckets of one direction of a device, shared by the threads that serve it.
#[derive(Debug)]
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl RateLimiter {
    /// Full buckets for `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            bytes: limits.bytes.map(Bucket::new),
            operations: limits.operations.map(Bucket::new),
        }
    }

    /// How long nothing may pass, or nothing when something may at `now`, a time on any clock that
    /// never goes back.
    pub fn wait(&mut self, now: Duration) -> Option<Duration> {
        let waits = [&mut self.bytes, &mut self.operations].map(|bucket| {
            let bucket = bucket.as_mut()?;
            bucket.wait(now)
        });
        waits.into_iter().flatten().max()
    }

    /// Counts an operation of `bytes` bytes.
    pub fn spend(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(bytes);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.spend(1);
        }
    }
}

/// One thread's use of a [`RateLimiter`], with a timer to wait on while nothing may pass.
#[derive(Debug)]
pub struct Pacer {
    limiter: Arc<Mutex<RateLimiter>>,
    started: Instant,
    timer: OwnedFd,
}

impl Pacer {
    /// Uses `limiter`, whose users all give the same time of `started`.
    ///
    /// # Errors
    /// When the host refuses a timer.
    pub fn new(limiter: Arc<Mutex<RateLimiter>>, started: Instant) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            limiter,
            started,
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        })
    }

    /// Whether something may pass now. If not, the timer fires when it is worth asking again; wait
    /// for its edge, there is nothing to read.
    pub fn admits(&self) -> bool {
        let now = self.started.elapsed();
        let wait = self.lock().wait(now);
        let Some(wait) = wait else {
            return true;
        };
        // The one error that a valid timer has is a time out of range, and this one is far below.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once(wait));
        false
    }

    /// Counts what has passed.
    pub fn spend(&self, bytes: usize) {
        self.lock().spend(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RateLimiter> {
        // Counters are as good as before when another thread panicked.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fires once after `wait`, at most a day and never at once: a zero would switch the timer off.
fn once(wait: Duration) -> Itimerspec {
    let wait = wait.clamp(Duration::from_nanos(1), Duration::from_secs(24 * 3600));
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Itimerspec {
        it_interval: zero,
        it_value: Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        },
    }
}

impl AsRawFd for Pacer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
