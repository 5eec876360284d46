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
use crate::rate_limit::Pacer;

/// Most frames of our own that wait for the driver's buffers.
const MAX_INJECTED: usize = 8;

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

/// A frame whose beginning fills the reserved chains and whose end is in the spill.
#[derive(Debug, Clone, Copy)]
struct Split {
    in_chains: usize,
    in_spill: usize,
}

/// The receive queue: no thread, no epoll, and no descriptor it is not given.
pub(super) struct Rx {
    ring: Ring,
    buffers: Buffers,
    /// Chains taken from the ring, oldest first; `pieces` holds their memory.
    reserved: VecDeque<Reserved>,
    reserved_bytes: usize,
    pieces: GuestPieces,
    /// Most chains that the driver ever had in the ring together.
    most_offered: usize,
    /// A frame that needs more chains than the driver had.
    split: Option<Split>,
    /// The end of that frame. Empty until the driver first runs short of buffers.
    spill: Vec<u8>,
    counters: Arc<NetCounters>,
    pacer: Option<Pacer>,
    /// Frames of our own for the driver, header included; they go before the tap's.
    injected: VecDeque<Vec<u8>>,
}

impl Rx {
    pub(super) fn new(ring: Ring, buffers: Buffers, counters: Arc<NetCounters>) -> Self {
        Self {
            buffers,
            reserved: VecDeque::new(),
            reserved_bytes: 0,
            pieces: GuestPieces::new(ring.memory().clone()),
            ring,
            most_offered: 0,
            split: None,
            spill: Vec::new(),
            counters,
            pacer: None,
            injected: VecDeque::new(),
        }
    }

    /// Gives the driver a frame that does not come from the tap. It is lost when many wait already.
    pub(super) fn inject(&mut self, frame: Vec<u8>) {
        if self.injected.len() < MAX_INJECTED {
            self.injected.push_back(frame);
        } else {
            self.counters.lost_received();
        }
    }

    /// Limits the rate of frames.
    pub(super) fn with_pacer(self, pacer: Option<Pacer>) -> Self {
        Self { pacer, ..self }
    }

    /// What limits the rate, to wait on after [`Burst::Limited`].
    pub(super) fn pacer(&self) -> Option<&Pacer> {
        self.pacer.as_ref()
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
            if self.pacer.as_ref().is_some_and(|pacer| !pacer.admits()) {
                return Ok(Burst::Limited);
            }
            self.reserve()?;
            if !self.join()? || self.reserved.is_empty() {
                if self.ring.ask_for_kick()? {
                    continue;
                }
                return Ok(Burst::Blocked);
            }
            let (pieces, room) = self.room();
            if let Some(frame) = self.injected.pop_front() {
                self.deliver_injected(&frame, room)?;
                continue;
            }
            match self.read(tap, pieces) {
                Ok(bytes) if (HEADER_BYTES..=room).contains(&bytes) => self.deliver(bytes)?,
                Ok(bytes) => self.split(room, bytes),
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

    /// Puts all reserved chains back. A frame that waited for more of them is lost.
    pub(super) fn release(&mut self) {
        if self.split.take().is_some() {
            self.counters.lost_received();
        }
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

    /// Takes chains until the longest frame fits, as far as there are any.
    fn reserve(&mut self) -> Result<(), QueueFault> {
        while !self.is_full() && self.take()? {}
        self.most_offered = self.most_offered.max(self.ring.offered()?);
        Ok(())
    }

    fn is_full(&self) -> bool {
        let fits = self.reserved_bytes >= LARGEST_FRAME_BYTES || self.buffers == Buffers::Single;
        let no_more_pieces = self.pieces.len() + 1 + CHAIN_MAX_BUFFERS >= IOVEC_MAX;
        !self.reserved.is_empty() && (fits || no_more_pieces)
    }

    /// Reads a frame, with room for the end of one that the reserved chains are too few for.
    fn read(&mut self, tap: &impl AsFd, pieces: usize) -> io::Result<usize> {
        let mut nothing_beyond = [0];
        let beyond = if self.is_full() {
            nothing_beyond.as_mut_slice()
        } else {
            self.spill.resize(LARGEST_FRAME_BYTES, 0);
            &mut self.spill
        };
        loop {
            match self.pieces.read_from(tap.as_fd(), pieces, beyond) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn deliver_injected(&mut self, frame: &[u8], room: usize) -> Result<(), QueueFault> {
        if frame.len() > room {
            self.counters.lost_received();
            return Ok(());
        }
        self.pieces.store(0, frame);
        self.deliver(frame.len())
    }

    /// Keeps a frame of `bytes` bytes that filled the `room` of all reserved chains and went on in
    /// the spill, when the driver can be expected to make room for it.
    fn split(&mut self, room: usize, bytes: usize) {
        let in_spill = bytes.saturating_sub(room);
        if bytes < HEADER_BYTES || in_spill >= self.spill.len() || !self.is_refill_due() {
            self.counters.lost_received();
        } else {
            self.split = Some(Split {
                in_chains: room,
                in_spill,
            });
        }
    }

    /// A driver that has much less in the ring than it had before is about to add more, and waiting
    /// for it loses nothing. One that never has more would wait for us while we wait for it.
    fn is_refill_due(&self) -> bool {
        !self.is_full() && self.reserved.len() * 2 < self.most_offered
    }

    /// Delivers a frame that was split, if there are chains enough for it now. Returns whether no
    /// such frame is left.
    fn join(&mut self) -> Result<bool, QueueFault> {
        let Some(Split {
            in_chains,
            in_spill,
        }) = self.split
        else {
            return Ok(true);
        };
        let bytes = in_chains.saturating_add(in_spill);
        let fits = bytes <= self.reserved_bytes;
        if !fits && self.is_refill_due() {
            return Ok(false);
        }
        self.split = None;
        if !fits {
            self.counters.lost_received();
            return Ok(true);
        }
        let end = self.spill.get(..in_spill).unwrap_or_default();
        self.pieces.store(in_chains, end);
        self.deliver(bytes)?;
        self.reserve()?;
        Ok(true)
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
        if let Some(pacer) = &self.pacer {
            pacer.spend(bytes.saturating_sub(HEADER_BYTES));
        }
        self.counters.received();
        Ok(())
    }
}
