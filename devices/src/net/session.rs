//! What all threads of a card share while a driver has it running.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::warn;

use super::rx::Buffers;
use super::tap::Tap;
use super::vhost::{Lines, VhostNet};
use super::{Lease, NetConfig, NetCounters};
use crate::device::{ActiveQueue, DeviceId, Memory};
use crate::fault::QueueFault;
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;
use crate::rate_limit::{Limits, Pacer, RateLimiter};

/// The two queues of a pair.
pub(super) struct PairQueues {
    pub(super) rx: ActiveQueue,
    pub(super) tx: ActiveQueue,
}

impl PairQueues {
    /// Makes a pair of the queues that the driver enabled of it, in order of index. Nothing when
    /// one is missing.
    pub(super) fn from_enabled(queues: Vec<ActiveQueue>) -> Option<Self> {
        let [rx, tx] = queues.try_into().ok()?;
        Some(Self { rx, tx })
    }

    /// Both queues, in order of index.
    pub(super) fn into_array(self) -> [ActiveQueue; 2] {
        [self.rx, self.tx]
    }
}

/// The host's end of a pair.
#[derive(Clone)]
pub(super) struct End {
    /// A queue of the tap.
    pub(super) tap: Arc<Tap>,
    /// The kernel's vhost-net, when it is to serve the pair.
    pub(super) vhost: Option<Arc<VhostNet>>,
}

/// How fast a card may move frames, over all of its pairs and for its whole life: neither a reset
/// nor another pair gives a guest more.
#[derive(Clone)]
pub(super) struct Limiters {
    rx: Option<Arc<Mutex<RateLimiter>>>,
    tx: Option<Arc<Mutex<RateLimiter>>>,
    started: Instant,
}

impl Limiters {
    pub(super) fn new(config: &NetConfig) -> Self {
        let limiter = |limits: &Limits| {
            let limiter = || Arc::new(Mutex::new(RateLimiter::new(limits)));
            limits.any().then(limiter)
        };
        Self {
            rx: limiter(&config.rx_limits),
            tx: limiter(&config.tx_limits),
            started: Instant::now(),
        }
    }

    /// What limits reception.
    pub(super) fn rx_pacer(&self) -> io::Result<Option<Pacer>> {
        self.pacer(&self.rx)
    }

    /// What limits transmission.
    pub(super) fn tx_pacer(&self) -> io::Result<Option<Pacer>> {
        self.pacer(&self.tx)
    }

    fn pacer(&self, limiter: &Option<Arc<Mutex<RateLimiter>>>) -> io::Result<Option<Pacer>> {
        let pacer = |limiter: &Arc<Mutex<RateLimiter>>| Pacer::new(limiter.clone(), self.started);
        limiter.as_ref().map(pacer).transpose()
    }
}

/// From one activation of the card to its stop.
pub(super) struct Session {
    pub(super) id: DeviceId,
    pub(super) memory: Memory,
    pub(super) interrupt: Arc<dyn Interrupt>,
    /// Features the driver acknowledged.
    pub(super) features: u64,
    /// Where the kernel writes to, when it serves the pairs.
    pub(super) lines: Option<Lines>,
    /// How the driver takes frames.
    pub(super) buffers: Buffers,
    pub(super) counters: Arc<NetCounters>,
    pub(super) limiters: Limiters,
    /// What the guest's DHCP requests are answered with.
    pub(super) lease: Option<Arc<Lease>>,
    pub(super) faults: Arc<LogLimit>,
    /// The driver broke the protocol; its queues are left alone, whichever of them it was.
    pub(super) faulted: AtomicBool,
}

impl Session {
    /// Whether the queues are to be left alone.
    pub(super) fn is_faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire)
    }

    /// Leaves all queues alone from now on, and asks the driver for a reset.
    pub(super) fn fault(&self, fault: &QueueFault) {
        self.faulted.store(true, Ordering::Release);
        self.interrupt.needs_reset();
        if let Some(count) = self.faults.next() {
            let (id, fault) = (&self.id, fault as &dyn std::error::Error);
            warn!(device = %id, fault, count, "Guest broke the virtio protocol; device needs a reset");
        }
    }
}
