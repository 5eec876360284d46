//! Guest memory for tests, and activations of devices in it.

use std::sync::Arc;

use vm_memory::GuestAddress;

use super::FakeInterrupt;
use crate::device::{Activation, ActiveQueue, Memory};

/// Size of [`guest_memory`].
pub const GUEST_MEMORY_BYTES: u64 = 32 << 20;

/// Where the first of its two regions ends; a [`QueueDriver`](super::QueueDriver) never puts a
/// buffer across it unless told to.
const BOUNDARY: u64 = 16 << 20;

/// 32 MiB of zeroed guest RAM from address 0, in two adjacent regions: code that believes in a
/// single region fails at the boundary.
pub fn guest_memory() -> Memory {
    let bytes = |count: u64| usize::try_from(count).unwrap();
    Memory::from_ranges(&[
        (GuestAddress(0), bytes(BOUNDARY)),
        (GuestAddress(BOUNDARY), bytes(GUEST_MEMORY_BYTES - BOUNDARY)),
    ])
    .expect("32 MiB of memory")
}

/// What a transport would hand to a device.
pub fn activation(
    memory: &Memory,
    irq: &Arc<FakeInterrupt>,
    features: u64,
    queues: impl IntoIterator<Item = ActiveQueue>,
) -> Activation {
    Activation {
        memory: memory.clone(),
        interrupt: irq.clone(),
        features,
        queues: queues.into_iter().collect(),
    }
}
