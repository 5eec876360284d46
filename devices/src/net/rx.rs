//! From the tap to the driver.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::chain::{ChainRules, Flow, gather};
use super::ring::{Ring, Used};
use super::sys::{GuestPieces, IOVEC_MAX};
use super::{
    BURST_FRAMES, Burst, CHAIN_MAX_BUFFERS, HEADER_BYTES, LARGEST_FRAME_BYTES, NUM_BUFFERS_OFFSET,
    NetCounters,
};
use crate::device::ActiveQueue;
use crate::fault::QueueFault;

/// How the driver takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffers {
    /// A frame spreads over as many chains as it needs (`VIRTIO_NET_F_MRG_RXBUF`).
    Merged,
    /// A frame lies in one chain.
    Single,
}

/// A chain that waits for a frame.
struct Reserved {
    head: u16,
    bytes: usize,
    pieces: usize,
}

/// The receive queue: no thread, no epoll, and no descriptor it is not given.
pub(super) struct Rx {
    ring: Ring,
    buffers: Buffers,
    /// Room that the longest frame needs, given what the driver lets the tap leave unfinished.
    frame_bytes: usize,
    /// Chains taken from the ring, oldest first; `pieces` holds their memory.
    reserved: VecDeque<Reserved>,
    reserved_bytes: usize,
    pieces: GuestPieces,
    /// Most chains that were ever reserved together.
    most_reserved: usize,
    counters: Arc<NetCounters>,
}

impl Rx {
    /// `frame_bytes` is the longest frame to expect, header included.
    pub(super) fn new(
        ring: Ring,
        buffers: Buffers,
        frame_bytes: usize,
        counters: Arc<NetCounters>,
    ) -> Self {
        Self {
            buffers,
            frame_bytes,
            reserved: VecDeque::new(),
            reserved_bytes: 0,
            pieces: GuestPieces::new(ring.memory().clone()),
            ring,
            most_reserved: 0,
            counters,
        }
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

    /// Gives the driver up to a burst of frames from `tap`. [`Burst::Blocked`] means that the driver
    /// has too few buffers and kicks when it has more; the tap may hold frames.
    pub(super) fn process(&mut self, tap: &impl AsFd) -> Result<Burst, QueueFault> {
        self.ring.decline_kicks()?;
        for _ in 0..BURST_FRAMES {
            if !self.reserve()? {
                return Ok(Burst::Blocked);
            }
            let (pieces, room) = self.room();
            match receive(&self.pieces, tap, pieces) {
                Ok(bytes) if (HEADER_BYTES..=room).contains(&bytes) => self.deliver(bytes)?,
                // The frame did not fit, and its end is gone.
                Ok(_) => self.counters.lost_received(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Burst::Idle),
                // The link is down or gone; the tap is readable again when it comes back.
                Err(_) => {
                    self.counters.lost_received();
                    return Ok(Burst::Idle);
                }
            }
        }
        Ok(Burst::More)
    }

    /// Puts all reserved chains back.
    pub(super) fn release(&mut self) {
        self.ring.put_back(self.reserved.len());
        self.reserved.clear();
        self.reserved_bytes = 0;
        self.pieces.clear();
    }

    /// The pieces the next frame is read into, and how many bytes they have.
    fn room(&self) -> (usize, usize) {
        match (self.buffers, self.reserved.front()) {
            (Buffers::Single, Some(chain)) => (chain.pieces, chain.bytes),
            _ => (self.pieces.len(), self.reserved_bytes),
        }
    }

    /// Takes chains until the longest frame fits; returns whether there is room to read a frame.
    fn reserve(&mut self) -> Result<bool, QueueFault> {
        while !self.is_full() {
            if self.take()? {
                continue;
            }
            self.most_reserved = self.most_reserved.max(self.reserved.len());
            if self.is_enough() {
                return Ok(true);
            }
            if !self.ring.ask_for_kick()? {
                return Ok(false);
            }
        }
        self.most_reserved = self.most_reserved.max(self.reserved.len());
        Ok(true)
    }

    fn is_full(&self) -> bool {
        let fits = self.reserved_bytes >= LARGEST_FRAME_BYTES || self.buffers == Buffers::Single;
        let no_more_pieces = self.pieces.len() + 1 + CHAIN_MAX_BUFFERS >= IOVEC_MAX;
        !self.reserved.is_empty() && (fits || no_more_pieces)
    }

    /// Whether to read although not every frame would fit. A driver that has much less in the ring
    /// than it had before is about to add more, and waiting for it loses nothing. A driver that
    /// never offers more gets what fits, or the card would be stuck.
    fn is_enough(&self) -> bool {
        let usual = self.reserved.len() * 2 >= self.most_reserved;
        !self.reserved.is_empty() && (self.reserved_bytes >= self.frame_bytes || usual)
    }

    fn take(&mut self) -> Result<bool, QueueFault> {
        let rules = ChainRules {
            queue: self.ring.active().index,
            flow: Flow::ToDriver,
            max_bytes: usize::MAX,
        };
        let pieces_before = self.pieces.len();
        let Some(chain) = self.ring.pop()? else {
            return Ok(false);
        };
        let head = chain.head_index();
        let bytes = gather(chain, rules, &mut self.pieces)?;
        self.reserved_bytes = self.reserved_bytes.saturating_add(bytes);
        self.reserved.push_back(Reserved {
            head,
            bytes,
            pieces: self.pieces.len() - pieces_before,
        });
        Ok(true)
    }

    /// Hands the frame of `bytes` bytes that lies in the first chains to the driver.
    fn deliver(&mut self, bytes: usize) -> Result<(), QueueFault> {
        let mut left = bytes;
        let mut chains = 0_u16;
        let mut pieces = 0;
        for chain in &self.reserved {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(chain.bytes);
            chains = chains.saturating_add(1);
            pieces += chain.pieces;
        }
        // The tap leaves this field of the header alone.
        self.pieces.store(NUM_BUFFERS_OFFSET, &chains.to_le_bytes());
        self.pieces.drop_front(pieces);
        let mut left = bytes;
        let used = self.reserved.drain(..usize::from(chains)).map(|chain| {
            let filled = left.min(chain.bytes);
            left -= filled;
            self.reserved_bytes -= chain.bytes;
            Used {
                head: chain.head,
                // A frame is far below 4 GiB.
                bytes: u32::try_from(filled).unwrap_or(u32::MAX),
            }
        });
        self.ring.publish(used)?;
        self.counters.received();
        Ok(())
    }
}

fn receive(room: &GuestPieces, tap: &impl AsFd, pieces: usize) -> io::Result<usize> {
    loop {
        match room.read_from(tap.as_fd(), pieces) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
