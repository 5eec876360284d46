//! One queue of a transport: what the driver wrote into its registers, and whether rings can be
//! made of it.

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::mmio::TransportError;
use super::state::QueueRegisters;
use crate::device::{ActiveQueue, Memory};

/// Largest queue that split rings can have (virtio 1.2 §2.7).
const MAX_QUEUE_SIZE: u16 = 32768;

/// One queue as the transport sees it.
pub(super) struct QueueSlot {
    pub(super) max_size: u16,
    pub(super) registers: QueueRegisters,
    pub(super) kick: EventFd,
    pub(super) bell: Bell,
}

/// How the driver's kicks of a queue arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bell {
    /// Through the notify register. Whether there is a shorter way has not been asked.
    Register,
    /// As [`Doorbells`](super::Doorbells) brings them.
    Asked,
}

impl QueueSlot {
    pub(super) fn new(queue: u16, max_size: u16) -> Result<Self, TransportError> {
        if !max_size.is_power_of_two() || max_size > MAX_QUEUE_SIZE {
            return Err(TransportError::QueueSize {
                queue,
                size: max_size,
            });
        }
        let kick =
            EventFd::new(EFD_NONBLOCK).map_err(|source| TransportError::Kick { queue, source })?;
        Ok(Self {
            max_size,
            registers: QueueRegisters::default(),
            kick,
            bell: Bell::Register,
        })
    }

    pub(super) fn kick(&self) {
        // The write only fails when the counter is full, and then the device is awake already.
        let _ = self.kick.write(1);
    }

    pub(super) fn build(
        &self,
        index: u16,
        registers: &QueueRegisters,
        memory: &Memory,
        features: u64,
    ) -> Result<ActiveQueue, QueueConfigError> {
        let mut queue = rings(index, self.max_size, registers, memory)?;
        queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        let kick = self
            .kick
            .try_clone()
            .map_err(|source| QueueConfigError::Kick {
                queue: index,
                source,
            })?;
        Ok(ActiveQueue { index, queue, kick })
    }
}

/// Why the driver's configuration makes no queue.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueConfigError {
    #[error("Queue {queue}: size {size} is not a power of two from 1 to {max}")]
    Size { queue: u16, size: u32, max: u16 },
    #[error("Queue {queue}: {part} at {address:#x} is not set, misaligned or outside guest RAM")]
    Address {
        queue: u16,
        part: &'static str,
        address: u64,
    },
    #[error("Queue {queue}: failed to duplicate its eventfd")]
    Kick {
        queue: u16,
        #[source]
        source: std::io::Error,
    },
}

/// Makes the rings of queue number `queue`, which can hold `max` descriptors at most. They lie
/// wholly inside guest RAM.
fn rings(
    queue: u16,
    max: u16,
    registers: &QueueRegisters,
    memory: &Memory,
) -> Result<Queue, QueueConfigError> {
    let bad_size = || QueueConfigError::Size {
        queue,
        size: registers.size,
        max,
    };
    let size = u16::try_from(registers.size).map_err(|_| bad_size())?;
    let mut rings = Queue::new(max).map_err(|_| bad_size())?;
    rings.try_set_size(size).map_err(|_| bad_size())?;

    // Virtio 1.2 §2.7: table, available ring and used ring, each with its event field.
    let entries = usize::from(size);
    let parts = [
        ("descriptor table", registers.descriptors, 16 * entries),
        ("available ring", registers.available, 6 + 2 * entries),
        ("used ring", registers.used, 6 + 8 * entries),
    ];
    for (part, address, length) in parts {
        let fits = address != 0 && memory.check_range(GuestAddress(address), length);
        if !fits {
            return Err(QueueConfigError::Address {
                queue,
                part,
                address,
            });
        }
    }
    let misaligned = |part, address| QueueConfigError::Address {
        queue,
        part,
        address,
    };
    rings
        .try_set_desc_table_address(GuestAddress(registers.descriptors))
        .map_err(|_| misaligned("descriptor table", registers.descriptors))?;
    rings
        .try_set_avail_ring_address(GuestAddress(registers.available))
        .map_err(|_| misaligned("available ring", registers.available))?;
    rings
        .try_set_used_ring_address(GuestAddress(registers.used))
        .map_err(|_| misaligned("used ring", registers.used))?;
    rings.set_ready(true);
    Ok(rings)
}
