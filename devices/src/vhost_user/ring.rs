//! One ring as a backend is told of it.

use std::sync::atomic::Ordering;

use vhost::VringConfigData;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::VhostUserError;
use crate::device::{ActiveQueue, Memory};

/// Where the rings of `active` are in this process. The protocol wants these addresses; the
/// backend looks them up in the memory table.
pub(crate) fn addresses(
    active: &ActiveQueue,
    memory: &Memory,
) -> Result<VringConfigData, VhostUserError> {
    let queue = &active.queue;
    let entries = usize::from(queue.size());
    // Virtio 1.2 §2.7: table, available ring and used ring, each with its event field.
    let place = |address: u64, bytes: usize| {
        memory
            .get_slice(GuestAddress(address), bytes)
            .map_err(|source| VhostUserError::Ring {
                queue: active.index,
                address,
                source,
            })
            .map(|slice| u64::try_from(slice.ptr_guard().as_ptr().addr()).unwrap_or_default())
    };
    Ok(VringConfigData {
        queue_max_size: queue.max_size(),
        queue_size: queue.size(),
        flags: 0,
        desc_table_addr: place(queue.desc_table(), 16 * entries)?,
        avail_ring_addr: place(queue.avail_ring(), 6 + 2 * entries)?,
        used_ring_addr: place(queue.used_ring(), 6 + 8 * entries)?,
        log_addr: None,
    })
}

/// Sets the positions of a stopped ring: the next chain to take is what the backend said, the next
/// used element what it wrote into the ring.
pub(crate) fn stopped_at(queue: &mut Queue, memory: &Memory, next_avail: u16) {
    queue.set_next_avail(next_avail);
    queue.set_next_used(used(queue, memory));
}

/// Sets the positions of a ring whose backend died: every chain that was not answered is to be
/// taken again. That is exact for a backend that answers a queue in order.
pub(super) fn died_at(queue: &mut Queue, memory: &Memory) {
    let answered = used(queue, memory);
    queue.set_next_avail(answered);
    queue.set_next_used(answered);
}

/// How many chains the backend answered, as far as the driver can see. The ring lies in guest RAM,
/// so a driver may have written there what it likes; whoever serves the ring bounds that.
fn used(queue: &Queue, memory: &Memory) -> u16 {
    // The transport checked that the ring is inside guest RAM.
    queue
        .used_idx(memory, Ordering::Acquire)
        .map_or(0, |index| index.0)
}
