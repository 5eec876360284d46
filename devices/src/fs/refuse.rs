//! Answering requests that nobody serves any more. Without an answer, a process in the guest would
//! wait for ever, and so would its shutdown.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Error, QueueOwnedT, QueueT};

use crate::device::{ActiveQueue, Memory};
use crate::fault::QueueFault;

/// `fuse_in_header` up to and with the request's number: length, operation, number.
const IN_HEADER_START: usize = 16;

/// Where the request's number is in it.
const UNIQUE: usize = 8;

/// `fuse_out_header`: length, error, number.
const OUT_HEADER: u8 = 16;

/// What a FUSE file system says whose server is gone.
const GONE: i32 = -libc::ENOTCONN;

/// What a round of refusals came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Whether the driver wants an interrupt for it.
    pub interrupt: bool,
    /// Whether the driver added requests in the meantime, so that another round is due.
    pub again: bool,
}

/// Answers every request that waits in `active` with an error.
///
/// # Errors
/// When the driver broke the protocol; the queue is not to be touched again then.
pub fn refuse_all(active: &mut ActiveQueue, memory: &Memory) -> Result<Refused, QueueFault> {
    let index = active.index;
    let ring = |source| QueueFault::Ring {
        queue: index,
        source,
    };
    let queue = &mut active.queue;
    queue.disable_notification(memory).map_err(ring)?;
    // The iterator sees what is available now and no more: one round is bounded by the size.
    let chains: Vec<_> = queue.iter(memory).map_err(ring)?.collect();
    for chain in chains {
        let head = chain.head_index();
        let written = refuse(index, chain, memory)?;
        queue.add_used(memory, head, written).map_err(ring)?;
    }
    let again = queue.enable_notification(memory).map_err(ring)?;
    let interrupt = queue.needs_notification(memory).map_err(ring)?;
    Ok(Refused { interrupt, again })
}

/// Answers one request. Returns the length of the answer.
fn refuse(queue: u16, chain: DescriptorChain<&Memory>, memory: &Memory) -> Result<u32, QueueFault> {
    let ring = |source| QueueFault::Ring { queue, source };
    let mut header = [0; IN_HEADER_START];
    let mut reader = chain.clone().reader(memory).map_err(ring)?;
    reader
        .read_exact(&mut header)
        .map_err(|_| QueueFault::Malformed {
            queue,
            reason: "a request without a header",
        })?;
    let mut writer = chain.writer(memory).map_err(ring)?;
    // Requests that want no answer, such as FUSE_FORGET, have no room for one.
    if writer.available_bytes() < usize::from(OUT_HEADER) {
        return Ok(0);
    }
    let mut answer = u32::from(OUT_HEADER).to_le_bytes().to_vec();
    answer.extend(GONE.to_le_bytes());
    answer.extend(header.iter().skip(UNIQUE));
    writer
        .write_all(&answer)
        .map_err(|_| ring(Error::InvalidChain))?;
    Ok(OUT_HEADER.into())
}
