//! Guest memory for tests, and activations of devices in it.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{FileOffset, GuestAddress};

use super::FakeInterrupt;
use crate::device::{Activation, ActiveQueue, Memory};

/// Size of [`guest_memory`].
pub const GUEST_MEMORY_BYTES: u64 = 32 << 20;

/// Where the first of its two regions ends; a [`QueueDriver`](super::QueueDriver) never puts a
/// buffer across it unless told to.
const BOUNDARY: u64 = 16 << 20;

/// 32 MiB of zeroed guest RAM from address 0, in two adjacent regions: code that believes in a
/// single region fails at the boundary. Shared, so that a backend can map it as well.
pub fn guest_memory() -> Memory {
    let bytes = |count: u64| usize::try_from(count).unwrap();
    let file = Arc::new(File::from(
        memfd_create("guest", MemfdFlags::CLOEXEC).unwrap(),
    ));
    file.set_len(GUEST_MEMORY_BYTES).unwrap();
    let at = |start| Some(FileOffset::from_arc(file.clone(), start));
    Memory::from_ranges_with_files([
        (GuestAddress(0), bytes(BOUNDARY), at(0)),
        (
            GuestAddress(BOUNDARY),
            bytes(GUEST_MEMORY_BYTES - BOUNDARY),
            at(BOUNDARY),
        ),
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
