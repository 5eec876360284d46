//! How long a queue is looked at after its last request, instead of waiting to be kicked.
//!
//! A driver that waits for an answer before it asks again pays for each kick: the write leaves the
//! guest, and this process has to be woken. Whoever looks at the ring meanwhile spares it both, and
//! takes a processor for that. So a queue is looked at only when its driver was quick the last time,
//! and for a few times as long as waking somebody takes, on the machine at hand: what waits longer has
//! little to gain.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// How long queues are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Poll {
    /// As long as suits the machine: 32 times what a wake-up takes, 20 to 1000 microseconds. Not at
    /// all with one processor, where the guest cannot ask meanwhile.
    #[default]
    Auto,
    /// So long, on any machine; zero never looks.
    For(Duration),
}

/// How many times what a wake-up takes at least are worth looking. A guest's processor and a thread
/// that slept are part of a real one, so it takes several times that.
const WAKE_UPS: u32 = 32;

const LEAST: Duration = Duration::from_micros(20);
const MOST: Duration = Duration::from_millis(1);

/// Wake-ups that are timed.
const ROUNDS: usize = 8;

impl Poll {
    /// The longest time that a queue is looked at in vain; zero never looks.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::For(limit) => limit,
            Self::Auto if has_one_processor() => Duration::ZERO,
            // Without descriptors there is no service either.
            Self::Auto => wake_up().map_or(LEAST, |wake_up| {
                wake_up.saturating_mul(WAKE_UPS).clamp(LEAST, MOST)
            }),
        }
    }
}

fn has_one_processor() -> bool {
    rustix::thread::sched_getaffinity(None).is_ok_and(|processors| processors.count() == 1)
}

/// What it takes to signal an event, wait for it and take it back, at least.
fn wake_up() -> io::Result<Duration> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let epoll = Epoll::new()?;
    let interest = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        event.write(1)?;
        epoll.wait(-1, &mut [EpollEvent::default()])?;
        event.read()?;
        least = least.min(began.elapsed());
    }
    Ok(least)
}

/// What a queue's requests say about the next one.
#[derive(Debug)]
pub(super) struct Pace {
    /// Within what time the next request has to come; zero never looks.
    limit: Duration,
    /// When the queue was found empty.
    emptied: Option<Instant>,
}

impl Pace {
    /// Of a queue without requests, which is looked at for `limit` at most.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            emptied: None,
        }
    }

    /// The time, where it is of use: not for a queue that is never looked at.
    pub(super) fn begin(&self) -> Option<Instant> {
        (!self.limit.is_zero()).then(Instant::now)
    }

    /// Takes note of requests that were served between two moments, after which the queue was empty.
    /// Returns until when it is worth looking for the next one: not, when these had to be waited for
    /// longer than that.
    pub(super) fn served(&mut self, began: Instant, ended: Instant) -> Option<Instant> {
        let emptied = self.emptied.replace(ended)?;
        let quick = began.saturating_duration_since(emptied) <= self.limit;
        let until = ended.checked_add(self.limit)?;
        (quick && !self.limit.is_zero()).then_some(until)
    }
}
