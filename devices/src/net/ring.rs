//! A virtqueue as the card uses it: chains are taken and put back, several used elements become
//! visible at once, and the driver is interrupted once per burst.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::device::{ActiveQueue, Memory};
use crate::fault::QueueFault;

/// A chain that the device has done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    /// Index of its first descriptor.
    pub(super) head: u16,
    /// Bytes the device wrote into it.
    pub(super) bytes: u32,
}

/// A virtqueue in use.
pub(super) struct Ring {
    active: ActiveQueue,
    memory: Memory,
    /// Used index when the driver was last considered for an interrupt.
    considered: Wrapping<u16>,
}

impl Ring {
    pub(super) fn new(active: ActiveQueue, memory: Memory) -> Self {
        let considered = Wrapping(active.queue.next_used());
        Self {
            active,
            memory,
            considered,
        }
    }

    pub(super) fn into_inner(self) -> ActiveQueue {
        self.active
    }

    pub(super) fn active(&self) -> &ActiveQueue {
        &self.active
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes the next chain the driver made available.
    pub(super) fn pop(&mut self) -> Result<Option<DescriptorChain<&Memory>>, QueueFault> {
        let queue = self.active.index;
        self.active
            .queue
            .iter(&self.memory)
            .map(|mut chains| chains.next())
            .map_err(|source| QueueFault::Ring { queue, source })
    }

    /// How many chains the driver has in the ring that it did not get back, taken or not.
    pub(super) fn offered(&self) -> Result<usize, QueueFault> {
        let queue = self.active.index;
        let offered = self
            .active
            .queue
            .avail_idx(&self.memory, Ordering::Relaxed)
            .map_err(|source| QueueFault::Ring { queue, source })?;
        Ok(usize::from(
            (offered - Wrapping(self.active.queue.next_used())).0,
        ))
    }

    /// Puts the `count` chains taken last back, to be taken again in the same order.
    pub(super) fn put_back(&mut self, count: usize) {
        for _ in 0..count {
            self.active.queue.go_to_previous_position();
        }
    }

    /// Hands chains back to the driver. It sees all of them or none: a driver that found only the
    /// first buffers of a frame would take the frame for damaged.
    pub(super) fn publish(&mut self, used: impl Iterator<Item = Used>) -> Result<(), QueueFault> {
        let queue = self.active.index;
        self.write_used(used)
            .map_err(|source| QueueFault::Memory { queue, source })
    }

    fn write_used(&mut self, used: impl Iterator<Item = Used>) -> Result<(), GuestMemoryError> {
        let ring = self.active.queue.used_ring();
        let size = self.active.queue.size().max(1);
        let mut next = Wrapping(self.active.queue.next_used());
        for Used { head, bytes } in used {
            let slot = next.0.checked_rem(size).unwrap_or_default();
            // The element is two little-endian words, the chain's head before its length.
            let element = u64::from(head) | u64::from(bytes) << 32;
            self.memory
                .write_obj(element.to_le(), offset(ring, 4 + 8 * u64::from(slot))?)?;
            next += 1;
        }
        self.active.queue.set_next_used(next.0);
        // Releases the elements, and the data in the buffers, to whoever sees the new index.
        self.memory
            .store(next.0.to_le(), offset(ring, 2)?, Ordering::Release)
    }

    /// Whether the driver wants an interrupt for what was published since this was last asked.
    pub(super) fn take_signal(&mut self) -> Result<bool, QueueFault> {
        let queue = self.active.index;
        let now = Wrapping(self.active.queue.next_used());
        let before = std::mem::replace(&mut self.considered, now);
        if now == before {
            return Ok(false);
        }
        // The driver writes where it wants an interrupt, then looks at the used index once more. The
        // fence orders our two accesses the other way round, so that one of us sees the other.
        fence(Ordering::SeqCst);
        self.wants_signal(before, now)
            .map_err(|source| QueueFault::Memory { queue, source })
    }

    fn wants_signal(
        &self,
        before: Wrapping<u16>,
        now: Wrapping<u16>,
    ) -> Result<bool, GuestMemoryError> {
        let avail = self.active.queue.avail_ring();
        if !self.active.queue.event_idx_enabled() {
            let flags = u16::from_le(self.memory.load(offset(avail, 0)?, Ordering::Relaxed)?);
            return Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        let used_event = offset(avail, 4 + 2 * u64::from(self.active.queue.size()))?;
        let event = Wrapping(u16::from_le(
            self.memory.load(used_event, Ordering::Relaxed)?,
        ));
        // The rule of §2.7.10: the event lies among the indices passed since `before`.
        Ok(now - event - Wrapping(1) < now - before)
    }

    /// Asks the driver to kick for its next chain. Returns whether there is one already, for which
    /// no kick will come.
    pub(super) fn ask_for_kick(&mut self) -> Result<bool, QueueFault> {
        let queue = self.active.index;
        self.active
            .queue
            .enable_notification(&self.memory)
            .map_err(|source| QueueFault::Ring { queue, source })
    }

    /// Tells the driver that kicks are of no use while the ring is being served.
    pub(super) fn decline_kicks(&mut self) -> Result<(), QueueFault> {
        let queue = self.active.index;
        self.active
            .queue
            .disable_notification(&self.memory)
            .map_err(|source| QueueFault::Ring { queue, source })
    }
}

fn offset(base: u64, bytes: u64) -> Result<GuestAddress, GuestMemoryError> {
    base.checked_add(bytes)
        .map(GuestAddress)
        .ok_or(GuestMemoryError::GuestAddressOverflow)
}
