//! From a descriptor chain to the guest memory it names, with everything checked that a driver can
//! get wrong (virtio 1.2 §2.7.5).

use virtio_queue::DescriptorChain;

use super::CHAIN_MAX_BUFFERS;
use super::sys::GuestPieces;
use crate::device::Memory;
use crate::fault::QueueFault;

/// Which way the data of a queue flows; all buffers of its chains must be marked so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The device reads the buffers.
    FromDriver,
    /// The device writes the buffers.
    ToDriver,
}

/// What a queue accepts of its driver.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChainRules {
    /// Index of the queue, for the report of a fault.
    pub(super) queue: u16,
    /// Which way the data flows.
    pub(super) flow: Flow,
    /// Most bytes that are of use in one chain.
    pub(super) max_bytes: usize,
}

/// Appends the buffers of `chain` to `pieces` and returns how many bytes they have together, at
/// least `HEADER_BYTES`.
pub(super) fn gather(
    chain: DescriptorChain<&Memory>,
    rules: ChainRules,
    pieces: &mut GuestPieces,
) -> Result<usize, QueueFault> {
    let queue = rules.queue;
    let first_piece = pieces.len();
    let mut bytes = 0_usize;
    // A chain that ends without saying so loops, leaves its table or holds a broken indirect table.
    let mut unfinished = true;
    for descriptor in chain {
        if descriptor.is_write_only() != (rules.flow == Flow::ToDriver) {
            return Err(malformed(queue, "buffer has the wrong direction"));
        }
        unfinished = descriptor.has_next();
        bytes = usize::try_from(descriptor.len())
            .ok()
            .and_then(|len| bytes.checked_add(len))
            .filter(|total| rules.flow == Flow::ToDriver || *total <= rules.max_bytes)
            .ok_or_else(|| malformed(queue, "chain is longer than the largest frame"))?;
        pieces
            .push(descriptor.addr(), descriptor.len() as usize)
            .map_err(|source| QueueFault::Memory { queue, source })?;
        if pieces.len().saturating_sub(first_piece) > CHAIN_MAX_BUFFERS {
            return Err(malformed(
                queue,
                "chain has more buffers than the queue has entries",
            ));
        }
    }
    if unfinished {
        return Err(QueueFault::Ring {
            queue,
            source: virtio_queue::Error::InvalidChain,
        });
    }
    if bytes < super::HEADER_BYTES {
        return Err(malformed(queue, "chain is shorter than the frame header"));
    }
    Ok(bytes)
}

fn malformed(queue: u16, reason: &'static str) -> QueueFault {
    QueueFault::Malformed { queue, reason }
}
