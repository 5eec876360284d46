//! An interrupt line that remembers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::wake::{Wake, wait_for};
use crate::interrupt::Interrupt;

/// Counts interrupts, and wakes whoever waits on its descriptor.
#[derive(Debug)]
pub struct FakeInterrupt {
    fired: EventFd,
    queue: AtomicU32,
    config: AtomicU32,
    needs_reset: AtomicBool,
}

impl FakeInterrupt {
    /// A line that has not fired.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            fired: EventFd::new(EFD_NONBLOCK).unwrap(),
            queue: AtomicU32::new(0),
            config: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
        })
    }

    /// Number of queue interrupts so far.
    pub fn queue_interrupts(&self) -> u32 {
        self.queue.load(Ordering::SeqCst)
    }

    /// Number of configuration interrupts so far.
    pub fn config_interrupts(&self) -> u32 {
        self.config.load(Ordering::SeqCst)
    }

    /// Whether the device asked for a reset.
    pub fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// Waits until the device asks for a reset. Returns false when it did not within ten seconds.
    pub fn wait_needs_reset(&self) -> bool {
        wait_for(self, || self.is_reset_needed().then_some(())).is_some()
    }

    fn fire(&self) {
        self.fired.write(1).unwrap();
    }
}

impl Wake for FakeInterrupt {
    fn event(&self) -> &EventFd {
        &self.fired
    }
}

impl Interrupt for FakeInterrupt {
    fn signal_queue(&self, _queue: u16) {
        self.queue.fetch_add(1, Ordering::SeqCst);
        self.fire();
    }

    fn signal_config(&self, _space: &[u8]) {
        self.config.fetch_add(1, Ordering::SeqCst);
        self.fire();
    }

    fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.fire();
    }

    fn external(&self) -> io::Result<EventFd> {
        self.fired.try_clone()
    }
}
