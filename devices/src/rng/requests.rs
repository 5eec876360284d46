//! Serving the request queue.

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes};

use crate::device::Memory;
use crate::fault::QueueFault;

/// Most bytes one request gets, whatever room it has: a guest that asks for gigabytes would keep
/// the host's generator busy, and a stop waiting. Drivers take what they get and ask again.
pub const MAX_REQUEST_BYTES: u32 = 64 << 10;

const CHUNK: usize = 4096;

/// What serving the queue came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether the driver wants an interrupt for what was used.
    pub interrupt: bool,
    /// Whether the driver added requests in the meantime, so that another round is due.
    pub again: bool,
}

/// The request queue: plain logic, driven by the device's thread, tests and fuzzers alike.
#[derive(Debug)]
pub struct Requests {
    index: u16,
    queue: Queue,
}

impl Requests {
    /// Serves `queue`, which is number `index` in what faults report.
    pub fn new(index: u16, queue: Queue) -> Self {
        Self { index, queue }
    }

    /// Gives the queue back.
    pub fn into_queue(self) -> Queue {
        self.queue
    }

    /// Fills every buffer that is available now.
    ///
    /// # Errors
    /// When the driver broke the protocol; the queue is not to be touched again then.
    pub fn process(&mut self, memory: &Memory) -> Result<Served, QueueFault> {
        let index = self.index;
        let ring = |source| QueueFault::Ring {
            queue: index,
            source,
        };
        self.queue.disable_notification(memory).map_err(ring)?;
        // The iterator sees what is available now and no more: one round is bounded by the size.
        let chains: Vec<_> = self.queue.iter(memory).map_err(ring)?.collect();
        for chain in chains {
            let head = chain.head_index();
            let written = fill(index, chain, memory)?;
            self.queue.add_used(memory, head, written).map_err(ring)?;
        }
        let again = self.queue.enable_notification(memory).map_err(ring)?;
        let interrupt = self.queue.needs_notification(memory).map_err(ring)?;
        Ok(Served { interrupt, again })
    }
}

/// Fills the buffers of one chain with random bytes. Returns how many.
fn fill(queue: u16, chain: DescriptorChain<&Memory>, memory: &Memory) -> Result<u32, QueueFault> {
    let malformed = |reason| QueueFault::Malformed { queue, reason };
    let mut last: Option<Descriptor> = None;
    let mut written = 0;
    for descriptor in chain {
        if !descriptor.is_write_only() {
            return Err(malformed("a buffer is not writable"));
        }
        let room = descriptor
            .len()
            .min(MAX_REQUEST_BYTES.saturating_sub(written));
        fill_buffer(queue, &descriptor, room, memory)?;
        written = written.saturating_add(room);
        last = Some(descriptor);
    }
    match last {
        // The iterator ends early at a descriptor that does not exist or comes round again.
        Some(descriptor) if descriptor.has_next() => Err(QueueFault::Ring {
            queue,
            source: Error::InvalidChain,
        }),
        Some(_) => Ok(written),
        None => Err(malformed("an empty chain")),
    }
}

fn fill_buffer(
    queue: u16,
    descriptor: &Descriptor,
    room: u32,
    memory: &Memory,
) -> Result<(), QueueFault> {
    let mut chunk = [0; CHUNK];
    let mut done = 0;
    while done < room {
        let left = usize::try_from(room - done).unwrap_or(CHUNK).min(CHUNK);
        let bytes = random(chunk.get_mut(..left).unwrap_or_default());
        let outside = || QueueFault::Malformed {
            queue,
            reason: "a buffer beyond the end of the address space",
        };
        let address = descriptor
            .addr()
            .checked_add(done.into())
            .ok_or_else(outside)?;
        memory
            .write_slice(bytes, address)
            .map_err(|source| QueueFault::Memory { queue, source })?;
        done = done.saturating_add(u32::try_from(left).unwrap_or(room));
    }
    Ok(())
}

/// Fills `bytes` from the host's generator. Returns them.
fn random(bytes: &mut [u8]) -> &[u8] {
    let mut filled = 0;
    // The call fails for a signal, or before the host's generator is seeded at early boot: both
    // pass, so it is asked again.
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled = filled.saturating_add(getrandom(rest, GetRandomFlags::empty()).unwrap_or(0));
    }
    bytes
}
