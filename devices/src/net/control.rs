//! The control queue: what a driver may ask of the card while it runs (virtio 1.2 §5.1.6.5).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress};

use super::Burst;
use super::ring::{Ring, Used};
use crate::device::{ActiveQueue, Memory};
use crate::fault::QueueFault;

/// Commands carried out before other work gets its turn: some take the host a millisecond.
const BURST_COMMANDS: usize = 4;

/// Most buffers in the chain of a command; drivers use three. Bounds the walk along a chain.
const COMMAND_MAX_BUFFERS: usize = 16;

/// Class, command and the longest argument that any command here has.
const COMMAND_BYTES: usize = 2 + 8;

/// What a driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Serve the first so many pairs of queues.
    SetPairs(u16),
    /// Leave exactly these frames unfinished, by feature bit.
    SetOffloads(u64),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// It was carried out.
    Done,
    /// It is unknown, or asks for what cannot be.
    Refused,
}

/// The control queue: no thread, no epoll, and no descriptor it is not given.
pub(super) struct Control {
    ring: Ring,
}

impl Control {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring }
    }

    pub(super) fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    pub(super) fn queue(&self) -> &ActiveQueue {
        self.ring.active()
    }

    pub(super) fn into_queue(self) -> ActiveQueue {
        self.ring.into_inner()
    }

    /// Has `obey` carry out the driver's commands, up to a burst of them.
    pub(super) fn process(
        &mut self,
        mut obey: impl FnMut(Command) -> Ack,
    ) -> Result<Burst, QueueFault> {
        self.ring.decline_kicks()?;
        for _ in 0..BURST_COMMANDS {
            let queue = self.ring.active().index;
            let memory = self.ring.memory().clone();
            let Some(chain) = self.ring.pop()? else {
                if self.ring.ask_for_kick()? {
                    continue;
                }
                return Ok(Burst::Idle);
            };
            let head = chain.head_index();
            let request = Request::read(chain, &memory, queue)?;
            let ack = parse(request.bytes()).map_or(Ack::Refused, &mut obey);
            let status = match ack {
                Ack::Done => VIRTIO_NET_OK,
                Ack::Refused => VIRTIO_NET_ERR,
            };
            memory
                .write_obj(u8::try_from(status).unwrap_or(u8::MAX), request.status)
                .map_err(|source| QueueFault::Memory { queue, source })?;
            let used = Used { head, bytes: 1 };
            self.ring.publish(std::iter::once(used))?;
        }
        Ok(Burst::More)
    }
}

/// A command as it lies in a chain.
struct Request {
    buffer: [u8; COMMAND_BYTES],
    /// Bytes that the driver sent; more than the buffer holds make no command.
    sent: usize,
    /// Where the outcome goes.
    status: GuestAddress,
}

impl Request {
    fn read(
        chain: DescriptorChain<&Memory>,
        memory: &Memory,
        queue: u16,
    ) -> Result<Self, QueueFault> {
        let malformed = |reason| QueueFault::Malformed { queue, reason };
        let mut buffer = [0; COMMAND_BYTES];
        let mut sent = 0_usize;
        let mut status = None;
        // A chain that ends without saying so loops, leaves its table or holds a broken indirect table.
        let mut unfinished = true;
        for (count, descriptor) in chain.enumerate() {
            if count >= COMMAND_MAX_BUFFERS {
                return Err(malformed("command has too many buffers"));
            }
            unfinished = descriptor.has_next();
            let bytes = usize::try_from(descriptor.len()).unwrap_or(usize::MAX);
            if descriptor.is_write_only() {
                status = status.or((bytes > 0).then_some(descriptor.addr()));
                continue;
            }
            if status.is_some() {
                return Err(malformed("command goes on behind its status"));
            }
            let room = buffer.get_mut(sent..).unwrap_or_default();
            let here = room.len().min(bytes);
            memory
                .read_slice(room.get_mut(..here).unwrap_or_default(), descriptor.addr())
                .map_err(|source| QueueFault::Memory { queue, source })?;
            sent = sent.saturating_add(bytes);
        }
        if unfinished {
            return Err(QueueFault::Ring {
                queue,
                source: virtio_queue::Error::InvalidChain,
            });
        }
        Ok(Self {
            buffer,
            sent,
            status: status.ok_or_else(|| malformed("command has no room for its status"))?,
        })
    }

    /// The command; nothing when it is longer than any that exists.
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.sent).unwrap_or_default()
    }
}

fn parse(request: &[u8]) -> Option<Command> {
    let [class, command, argument @ ..] = request else {
        return None;
    };
    match (u32::from(*class), u32::from(*command)) {
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            let pairs = argument.try_into().ok().map(u16::from_le_bytes)?;
            Some(Command::SetPairs(pairs))
        }
        (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
            let bits = argument.try_into().ok().map(u64::from_le_bytes)?;
            Some(Command::SetOffloads(bits))
        }
        _ => None,
    }
}
