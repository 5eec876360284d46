//! What all threads of a card share while a driver has it running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;

use super::NetCounters;
use super::rx::Buffers;
use crate::device::{ActiveQueue, DeviceId, Memory};
use crate::fault::QueueFault;
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;

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

/// From one activation of the card to its stop.
pub(super) struct Session {
    pub(super) id: DeviceId,
    pub(super) memory: Memory,
    pub(super) interrupt: Arc<dyn Interrupt>,
    /// How the driver takes frames.
    pub(super) buffers: Buffers,
    pub(super) counters: Arc<NetCounters>,
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
