//! What a card has moved and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running counts of one card, since it was built. Read from any thread.
#[derive(Debug, Default)]
pub struct NetCounters {
    rx_frames: AtomicU64,
    rx_dropped: AtomicU64,
    tx_frames: AtomicU64,
    tx_dropped: AtomicU64,
}

/// A copy of the counts at one moment; each is exact, together they may be a few frames apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetCounts {
    /// Frames given to the driver.
    pub rx_frames: u64,
    /// Frames lost because they did not fit the driver's buffers, or could not be read.
    pub rx_dropped: u64,
    /// Frames taken from the driver and given to the tap.
    pub tx_frames: u64,
    /// Frames taken from the driver that the host refused.
    pub tx_dropped: u64,
}

impl NetCounters {
    /// The counts now.
    pub fn read(&self) -> NetCounts {
        NetCounts {
            rx_frames: self.rx_frames.load(Ordering::Relaxed),
            rx_dropped: self.rx_dropped.load(Ordering::Relaxed),
            tx_frames: self.tx_frames.load(Ordering::Relaxed),
            tx_dropped: self.tx_dropped.load(Ordering::Relaxed),
        }
    }

    pub(super) fn received(&self) {
        self.rx_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost_received(&self) {
        self.rx_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) {
        self.tx_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost_sent(&self) {
        self.tx_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
