//! Serving the two queues of the port (virtio 1.2 §5.3.6).

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes};

use super::{Input, Output};
use crate::device::Memory;
use crate::fault::QueueFault;

/// Most bytes of one buffer that are shown; Linux writes 16 at a time.
pub const MAX_WRITE_BYTES: usize = 64 << 10;

/// Most bytes that one buffer of the guest is filled with.
const MAX_READ_BYTES: usize = 4 << 10;

/// What serving a queue came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether the driver wants an interrupt for what was used.
    pub interrupt: bool,
    /// Whether the driver added buffers in the meantime, so that another round is due.
    pub again: bool,
}

/// The transmit queue, from guest to host.
#[derive(Debug)]
pub struct Transmit {
    pub(super) index: u16,
    pub(super) queue: Queue,
    /// Output of a buffer that was given back already, for which there is no room yet.
    pub(super) pending: Vec<u8>,
}

impl Transmit {
    /// Serves `queue`, which is number `index` in what faults report.
    pub fn new(index: u16, queue: Queue, pending: Vec<u8>) -> Self {
        Self {
            index,
            queue,
            pending,
        }
    }

    /// Shows what is available now, as far as `output` has room.
    ///
    /// # Errors
    /// When the driver broke the protocol; the queue is not to be touched again then.
    pub fn process(
        &mut self,
        memory: &Memory,
        output: &mut dyn Output,
    ) -> Result<Served, QueueFault> {
        let index = self.index;
        let ring = |source| QueueFault::Ring {
            queue: index,
            source,
        };
        self.queue.disable_notification(memory).map_err(ring)?;
        self.flush(output);
        // One round is bounded by the size of the queue.
        for _ in 0..self.queue.size() {
            if !self.pending.is_empty() {
                break;
            }
            let Some(chain) = next(index, &mut self.queue, memory)? else {
                break;
            };
            let head = chain.head_index();
            self.pending = read(index, chain, memory)?;
            // Before the driver knows: a guest's last words come before it powers off.
            self.flush(output);
            self.queue.add_used(memory, head, 0).map_err(ring)?;
        }
        let more = self.queue.enable_notification(memory).map_err(ring)?;
        let interrupt = self.queue.needs_notification(memory).map_err(ring)?;
        Ok(Served {
            interrupt,
            again: more && self.pending.is_empty(),
        })
    }

    fn flush(&mut self, output: &mut dyn Output) {
        let taken = output.offer(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
    }
}

/// The receive queue, from host to guest.
#[derive(Debug)]
pub struct Receive {
    pub(super) index: u16,
    pub(super) queue: Queue,
}

impl Receive {
    /// Serves `queue`, which is number `index` in what faults report.
    pub fn new(index: u16, queue: Queue) -> Self {
        Self { index, queue }
    }

    /// Fills buffers with the input there is; it waits where there is no buffer.
    ///
    /// # Errors
    /// When the driver broke the protocol; the queue is not to be touched again then.
    pub fn process(&mut self, memory: &Memory, input: &Input) -> Result<Served, QueueFault> {
        let index = self.index;
        let ring = |source| QueueFault::Ring {
            queue: index,
            source,
        };
        self.queue.disable_notification(memory).map_err(ring)?;
        for _ in 0..self.queue.size() {
            if input.is_empty() {
                break;
            }
            let Some(chain) = next(index, &mut self.queue, memory)? else {
                break;
            };
            let head = chain.head_index();
            let written = write(index, chain, memory, input)?;
            self.queue.add_used(memory, head, written).map_err(ring)?;
        }
        let more = self.queue.enable_notification(memory).map_err(ring)?;
        let interrupt = self.queue.needs_notification(memory).map_err(ring)?;
        Ok(Served {
            interrupt,
            again: more && !input.is_empty(),
        })
    }
}

fn next<'m>(
    queue: u16,
    rings: &mut Queue,
    memory: &'m Memory,
) -> Result<Option<DescriptorChain<&'m Memory>>, QueueFault> {
    let ring = |source| QueueFault::Ring { queue, source };
    Ok(rings.iter(memory).map_err(ring)?.next())
}

/// The bytes of one chain, up to the limit.
fn read(
    queue: u16,
    chain: DescriptorChain<&Memory>,
    memory: &Memory,
) -> Result<Vec<u8>, QueueFault> {
    let mut bytes = Vec::new();
    each(queue, chain, |descriptor| {
        if descriptor.is_write_only() {
            return Err(malformed(queue, "a buffer to be written to among output"));
        }
        let start = bytes.len();
        let room = MAX_WRITE_BYTES.saturating_sub(start);
        let count = usize::try_from(descriptor.len()).unwrap_or(room).min(room);
        bytes.resize(start.saturating_add(count), 0);
        let target = bytes.get_mut(start..).unwrap_or_default();
        memory
            .read_slice(target, descriptor.addr())
            .map_err(|source| QueueFault::Memory { queue, source })
    })?;
    Ok(bytes)
}

/// Moves input into one chain. Returns how many bytes.
fn write(
    queue: u16,
    chain: DescriptorChain<&Memory>,
    memory: &Memory,
    input: &Input,
) -> Result<u32, QueueFault> {
    let mut chunk = [0; MAX_READ_BYTES];
    let mut written = 0;
    each(queue, chain, |descriptor| {
        if !descriptor.is_write_only() {
            return Err(malformed(queue, "a buffer that is not writable for input"));
        }
        let room = MAX_READ_BYTES.saturating_sub(written);
        let room = usize::try_from(descriptor.len()).unwrap_or(room).min(room);
        // Looked at before any byte is taken: input is not lost to a bad address.
        let last = u64::try_from(room).unwrap_or(u64::MAX);
        let end = descriptor.addr().checked_add(last);
        end.ok_or_else(|| malformed(queue, "a buffer beyond the end of the address space"))?;
        let taken = input.take(chunk.get_mut(..room).unwrap_or_default());
        written = written.saturating_add(taken);
        memory
            .write_slice(chunk.get(..taken).unwrap_or_default(), descriptor.addr())
            .map_err(|source| QueueFault::Memory { queue, source })
    })?;
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}

/// Visits every descriptor of a chain.
fn each(
    queue: u16,
    chain: DescriptorChain<&Memory>,
    mut visit: impl FnMut(&Descriptor) -> Result<(), QueueFault>,
) -> Result<(), QueueFault> {
    let mut last: Option<Descriptor> = None;
    for descriptor in chain {
        visit(&descriptor)?;
        last = Some(descriptor);
    }
    match last {
        // The iterator ends early at a descriptor that does not exist or comes round again.
        Some(descriptor) if descriptor.has_next() => Err(QueueFault::Ring {
            queue,
            source: Error::InvalidChain,
        }),
        Some(_) => Ok(()),
        None => Err(malformed(queue, "an empty chain")),
    }
}

fn malformed(queue: u16, reason: &'static str) -> QueueFault {
    QueueFault::Malformed { queue, reason }
}
