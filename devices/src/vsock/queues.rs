//! The three virtqueues (§5.10.2): packets to the guest, packets from it, and events.

use std::io::Read;

use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use virtio_vsock::packet::{self, VsockPacket};
use vm_memory::Bytes as _;

use super::packet::{HEADER_BYTES, Header};
use super::{BURST_PACKETS, MAX_DATA_BYTES, Mux};
use crate::device::{ActiveQueue, Memory};
use crate::fault::QueueFault;

/// The event that tells the driver that all its connections are gone
/// (`VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`, §5.10.6.7).
const TRANSPORT_RESET: u32 = 0;

/// The number of no operation (§5.10.6, `VIRTIO_VSOCK_OP_INVALID`): it ends a connection.
const NO_OPERATION: u16 = 0;

/// What serving a queue came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Whether the driver wants an interrupt for what was used.
    pub(super) interrupt: bool,
    /// Whether there is more to do that nothing will announce.
    pub(super) again: bool,
}

/// One virtqueue and what a fault in it is called.
pub(super) struct Ring {
    pub(super) active: ActiveQueue,
    memory: Memory,
}

impl Ring {
    pub(super) fn new(active: ActiveQueue, memory: Memory) -> Self {
        Self { active, memory }
    }

    fn queue(&mut self) -> &mut Queue {
        &mut self.active.queue
    }

    fn fault(&self, source: Error) -> QueueFault {
        QueueFault::Ring {
            queue: self.active.index,
            source,
        }
    }

    fn malformed(&self, reason: &'static str) -> QueueFault {
        QueueFault::Malformed {
            queue: self.active.index,
            reason,
        }
    }

    fn pop<'a>(
        &mut self,
        memory: &'a Memory,
    ) -> Result<Option<DescriptorChain<&'a Memory>>, QueueFault> {
        let index = self.active.index;
        let popped = self.queue().iter(memory).map(|mut chains| chains.next());
        popped.map_err(|source| QueueFault::Ring {
            queue: index,
            source,
        })
    }

    fn push(&mut self, head: u16, bytes: usize) -> Result<(), QueueFault> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let pushed = self.active.queue.add_used(&self.memory, head, bytes);
        pushed.map_err(|source| self.fault(source))
    }

    /// Asks for kicks again. Returns what the round came to when it was ended by an empty ring.
    fn finish(&mut self, used: usize) -> Result<Served, QueueFault> {
        let again = self.active.queue.enable_notification(&self.memory);
        let again = again.map_err(|source| self.fault(source))?;
        let interrupt = if used > 0 {
            let asked = self.active.queue.needs_notification(&self.memory);
            asked.map_err(|source| self.fault(source))?
        } else {
            false
        };
        Ok(Served { interrupt, again })
    }
}

/// Gives the guest what `mux` has for it, one burst.
pub(super) fn serve_rx(ring: &mut Ring, mux: &mut Mux) -> Result<Served, QueueFault> {
    let memory = ring.memory.clone();
    let mut used = 0;
    while used < BURST_PACKETS && mux.has_packets() {
        let Some(mut chain) = ring.pop(&memory)? else {
            break;
        };
        let head = chain.head_index();
        let mut buffer = rx_buffer(ring, &memory, &mut chain)?;
        let header = buffer.data_slice().and_then(|room| mux.next(room));
        let Some(header) = header else {
            ring.queue().go_to_previous_position();
            break;
        };
        buffer
            .set_header_from_raw(&header.encode())
            .map_err(|_| ring.malformed("a buffer that cannot be written"))?;
        let data = usize::try_from(header.len).unwrap_or(usize::MAX);
        ring.push(head, HEADER_BYTES.saturating_add(data))?;
        used += 1;
    }
    let served = ring.finish(used)?;
    Ok(Served {
        again: mux.has_packets() && (served.again || used == BURST_PACKETS),
        ..served
    })
}

/// Looks at the next buffer of the receive queue, so that a driver that broke it hears of that at
/// its kick rather than at the next packet.
pub(super) fn inspect_rx(ring: &mut Ring) -> Result<(), QueueFault> {
    let memory = ring.memory.clone();
    if let Some(mut chain) = ring.pop(&memory)? {
        rx_buffer(ring, &memory, &mut chain)?;
        ring.queue().go_to_previous_position();
    }
    Ok(())
}

/// Room for a header and at least one byte.
fn rx_buffer<'a>(
    ring: &Ring,
    memory: &'a Memory,
    chain: &mut DescriptorChain<&'a Memory>,
) -> Result<VsockPacket<'a, ()>, QueueFault> {
    let buffer =
        VsockPacket::from_rx_virtq_chain(memory, chain, u32::MAX).map_err(|error| match error {
            packet::Error::InvalidMemoryAccess(source) => QueueFault::Memory {
                queue: ring.active.index,
                source,
            },
            _ => ring.malformed("no writable room for a header and data"),
        })?;
    if buffer.data_slice().is_none() {
        return Err(ring.malformed("no room for data"));
    }
    Ok(buffer)
}

/// Takes packets of the guest, one burst. `data` is scratch space.
pub(super) fn serve_tx(
    ring: &mut Ring,
    mux: &mut Mux,
    data: &mut Vec<u8>,
) -> Result<Served, QueueFault> {
    let memory = ring.memory.clone();
    let mut used = 0;
    while used < BURST_PACKETS && mux.can_receive() {
        let Some(chain) = ring.pop(&memory)? else {
            break;
        };
        let head = chain.head_index();
        let header = tx_packet(ring, chain, data)?;
        mux.receive(&header, data);
        ring.push(head, 0)?;
        used += 1;
    }
    let served = ring.finish(used)?;
    Ok(Served {
        // A full list of resets empties when the guest gives buffers for them.
        again: served.again && mux.can_receive(),
        ..served
    })
}

/// The header of a packet whose data is not in guest memory, made one that ends its connection. It
/// need not be the driver's mistake: a program of the guest may send, without a copy, what it has
/// mapped in the window of a share.
fn unreadable(chain: &DescriptorChain<&Memory>, ring: &Ring) -> Option<Header> {
    let first = chain.clone().readable().next()?;
    let mut bytes = [0; HEADER_BYTES];
    if first.len() as usize != bytes.len() {
        return None;
    }
    ring.memory.read_slice(&mut bytes, first.addr()).ok()?;
    Some(Header {
        op: NO_OPERATION,
        len: 0,
        ..Header::decode(&bytes)
    })
}

/// Copies a packet out of guest memory. Its data may be in any number of buffers: drivers send
/// pages of their programs as they are.
fn tx_packet(
    ring: &Ring,
    chain: DescriptorChain<&Memory>,
    data: &mut Vec<u8>,
) -> Result<Header, QueueFault> {
    data.clear();
    let mut reader = match chain.clone().reader(&ring.memory) {
        Ok(reader) => reader,
        Err(source) => return unreadable(&chain, ring).ok_or_else(|| ring.fault(source)),
    };
    let mut bytes = [0; HEADER_BYTES];
    reader
        .read_exact(&mut bytes)
        .map_err(|_| ring.malformed("a packet shorter than its header"))?;
    let header = Header::decode(&bytes);
    if header.len > MAX_DATA_BYTES {
        return Err(ring.malformed("a packet with more than 64 KiB of data"));
    }
    data.resize(usize::try_from(header.len).unwrap_or_default(), 0);
    reader
        .read_exact(data)
        .map_err(|_| ring.malformed("a packet shorter than its header says"))?;
    Ok(header)
}

/// Tells the driver that its connections are gone. Returns nothing while it has no buffer for
/// that in the ring.
pub(super) fn send_transport_reset(ring: &mut Ring) -> Result<Option<Served>, QueueFault> {
    let memory = ring.memory.clone();
    let Some(chain) = ring.pop(&memory)? else {
        ring.finish(0)?;
        return Ok(None);
    };
    let head = chain.head_index();
    let mut writer = event_writer(ring, &memory, chain)?;
    writer
        .write_obj(TRANSPORT_RESET.to_le())
        .map_err(|_| ring.malformed("an event buffer that cannot be written"))?;
    ring.push(head, size_of::<u32>())?;
    ring.finish(1).map(Some)
}

/// As [`inspect_rx`], for the event queue.
pub(super) fn inspect_events(ring: &mut Ring) -> Result<(), QueueFault> {
    let memory = ring.memory.clone();
    if let Some(chain) = ring.pop(&memory)? {
        event_writer(ring, &memory, chain)?;
        ring.queue().go_to_previous_position();
    }
    ring.finish(0)?;
    Ok(())
}

fn event_writer<'a>(
    ring: &Ring,
    memory: &'a Memory,
    chain: DescriptorChain<&'a Memory>,
) -> Result<virtio_queue::Writer<'a, ()>, QueueFault> {
    let last = chain.clone().last();
    let writer = chain.writer(memory).map_err(|source| ring.fault(source))?;
    if last.is_none_or(|last| last.has_next()) || writer.available_bytes() < size_of::<u32>() {
        return Err(ring.malformed("no room for an event"));
    }
    Ok(writer)
}
