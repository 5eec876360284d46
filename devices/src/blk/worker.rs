//! The request queue at work: chains in, I/O, statuses out. Plain logic; the thread around it is
//! [`crate::worker::Worker`]'s.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use event_manager::EventSet;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::requests::{Disk, Requests};
use crate::device::{ActiveQueue, Memory};
use crate::disk::{DiskEngine, Look, PreservingEngine};
use crate::fault::QueueFault;
use crate::interrupt::Interrupt;
use crate::worker::{Handler, Source};

/// The driver kicked the queue.
const KICK: u32 = 0;
/// The engine has completions.
const COMPLETIONS: u32 = 1;
/// The image's gate was opened or closed, or something that was held back may go on.
pub(super) const GATE: u32 = 2;

/// Rounds over the avail ring per event. A driver that never lets it run empty must not keep the
/// thread from its stop event.
const ROUNDS_PER_EVENT: u32 = 16;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.2 §2.7.6).
const NO_INTERRUPT: u16 = 1;

/// The queue and everything its requests need; owned by one thread at a time.
pub(super) struct BlkQueue {
    active: ActiveQueue,
    memory: Memory,
    interrupt: Arc<dyn Interrupt>,
    requests: Requests,
    /// The driver broke the protocol: the queue is left alone until it resets the device.
    faulted: bool,
    /// The image's gate was closed when last looked at: nothing is begun.
    standing: bool,
}

impl BlkQueue {
    /// A queue over guest memory. The engine has a tag for each of its heads.
    pub(super) fn new(
        disk: Disk,
        active: ActiveQueue,
        memory: Memory,
        interrupt: Arc<dyn Interrupt>,
        engine: PreservingEngine,
    ) -> Self {
        Self {
            memory,
            requests: Requests::new(disk, engine, &active),
            active,
            interrupt,
            faulted: false,
            standing: false,
        }
    }

    /// The image.
    #[cfg(test)]
    pub(super) fn image(&self) -> Arc<crate::disk::RawDisk> {
        self.requests.engine.image()
    }

    /// Hands the queue back, to be called once drained.
    pub(super) fn into_queue(self) -> ActiveQueue {
        self.active
    }

    /// Serves the avail ring until it is empty, and every completion there is.
    fn process(&mut self) {
        for _ in 0..ROUNDS_PER_EVENT {
            match self.round() {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return self.fault(&fault),
            }
        }
        // More is waiting: come back through the event loop, which looks for a stop in between.
        // The write only fails when the counter is full, and then the event is there already.
        let _ = self.active.kick.write(1);
    }

    /// Takes a batch off the avail ring, starts it, returns what is finished. True when the
    /// driver made more available meanwhile.
    fn round(&mut self) -> Result<bool, QueueFault> {
        if self.faulted || self.standing {
            return Ok(false);
        }
        let Self {
            active,
            memory,
            requests,
            ..
        } = self;
        let index = active.index;
        let ring = |source| QueueFault::Ring {
            queue: index,
            source,
        };
        active.queue.disable_notification(memory).map_err(ring)?;
        for chain in active.queue.iter(&*memory).map_err(ring)? {
            requests.begin(memory, chain)?;
        }
        requests.commit()?;
        self.complete()?;
        self.active
            .queue
            .enable_notification(&self.memory)
            .map_err(ring)
    }

    /// Returns every finished chain, and tells the driver once if it wants to know.
    fn complete(&mut self) -> Result<(), QueueFault> {
        let Self {
            active,
            memory,
            requests,
            ..
        } = self;
        requests.reap(memory)?;
        if requests.finished.is_empty() || self.faulted {
            return Ok(());
        }
        let index = active.index;
        let ring = |source| QueueFault::Ring {
            queue: index,
            source,
        };
        for (head, len) in requests.finished.drain(..) {
            active.queue.add_used(memory, head, len).map_err(ring)?;
        }
        let wanted = active.queue.needs_notification(memory).map_err(ring)?;
        if wanted && !no_interrupt(&active.queue, memory) {
            self.interrupt.signal_queue(index);
        }
        Ok(())
    }

    /// Does what the image's gate asks for: completes everything while it is closed.
    fn look_at_gate(&mut self) {
        match self.requests.engine.gate().look() {
            Look::Open => {
                self.standing = false;
                self.requests.engine.rearm();
            }
            Look::Closed => {
                self.standing = true;
                self.finish_all();
                let engine = &self.requests.engine;
                match engine.in_flight() {
                    0 => engine.gate().stand(),
                    _ => engine.gate().fail(),
                }
            }
        }
    }

    /// Waits until nothing is in flight; every request gets its status.
    fn finish_all(&mut self) {
        while self.requests.engine.in_flight() > 0 {
            if let Err(error) = self.requests.engine.wait() {
                tracing::error!(device = %self.requests.disk.id, %error, "disk engine failed with requests in flight");
                self.faulted = true;
                self.interrupt.needs_reset();
                return;
            }
            if let Err(fault) = self.complete() {
                self.fault(&fault);
            }
        }
    }

    fn fault(&mut self, fault: &QueueFault) {
        tracing::warn!(device = %self.requests.disk.id, error = %fault, cause = ?std::error::Error::source(fault), "driver broke the protocol; device needs a reset");
        self.faulted = true;
        self.interrupt.needs_reset();
    }
}

impl Handler for BlkQueue {
    fn sources(&self) -> Vec<Source> {
        // Edge-triggered, so that no wake-up costs a read of its counter: every further kick is
        // an edge of its own.
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let kick = Source {
            fd: self.active.kick.as_raw_fd(),
            token: KICK,
            events,
        };
        let completions = self.requests.engine.completion_event();
        let completions = completions.map(|event| Source {
            fd: event.as_raw_fd(),
            token: COMPLETIONS,
            events,
        });
        let gate = Source {
            fd: self.requests.engine.gate().event().as_raw_fd(),
            token: GATE,
            events,
        };
        [kick, gate].into_iter().chain(completions).collect()
    }

    fn start(&mut self) {
        self.look_at_gate();
        self.process();
    }

    fn handle(&mut self, token: u32) {
        if token == GATE {
            self.look_at_gate();
        }
        // A completion frees heads that the driver may have made available again, and a kick may
        // come with completions: both look at everything.
        self.process();
    }

    fn drain(&mut self) {
        self.finish_all();
    }
}

/// Whether a driver without EVENT_IDX asked for no interrupts.
fn no_interrupt(queue: &virtio_queue::Queue, memory: &Memory) -> bool {
    if queue.event_idx_enabled() {
        return false;
    }
    let flags = memory.load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed);
    flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT != 0)
}
