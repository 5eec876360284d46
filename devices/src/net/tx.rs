//! From the driver to the tap.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::chain::{ChainRules, Flow, gather};
use super::ring::{Ring, Used};
use super::sys::GuestPieces;
use super::{BURST_FRAMES, Burst, HEADER_BYTES, LARGEST_TX_BYTES, NetCounters};
use crate::device::ActiveQueue;
use crate::fault::QueueFault;
use crate::rate_limit::Pacer;

/// The transmit queue: no thread, no epoll, and no descriptor it is not given.
pub(super) struct Tx {
    ring: Ring,
    pieces: GuestPieces,
    counters: Arc<NetCounters>,
    pacer: Option<Pacer>,
}

impl Tx {
    pub(super) fn new(ring: Ring, counters: Arc<NetCounters>) -> Self {
        Self {
            pieces: GuestPieces::new(ring.memory().clone()),
            ring,
            counters,
            pacer: None,
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

    /// Writes up to a burst of the driver's frames to `tap`.
    pub(super) fn process(&mut self, tap: &impl AsFd) -> Result<Burst, QueueFault> {
        self.ring.decline_kicks()?;
        for _ in 0..BURST_FRAMES {
            if self.pacer.as_ref().is_some_and(|pacer| !pacer.admits()) {
                return Ok(Burst::Limited);
            }
            let Some((head, bytes)) = self.take()? else {
                if self.ring.ask_for_kick()? {
                    continue;
                }
                return Ok(Burst::Idle);
            };
            match send(&self.pieces, tap) {
                Ok(()) => self.counters.sent(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ring.put_back(1);
                    return Ok(Burst::Blocked);
                }
                // The frame is malformed, too long for the link, or the link is down: the fate of
                // a frame on any wire.
                Err(_) => self.counters.lost_sent(),
            }
            if let Some(pacer) = &self.pacer {
                pacer.spend(bytes.saturating_sub(HEADER_BYTES));
            }
            self.ring
                .publish(std::iter::once(Used { head, bytes: 0 }))?;
        }
        Ok(Burst::More)
    }

    /// Takes the next chain and lays out its frame; returns the chain's first descriptor and its
    /// length.
    fn take(&mut self) -> Result<Option<(u16, usize)>, QueueFault> {
        let rules = ChainRules {
            queue: self.ring.active().index,
            flow: Flow::FromDriver,
            max_bytes: LARGEST_TX_BYTES,
        };
        self.pieces.clear();
        let Some(chain) = self.ring.pop()? else {
            return Ok(None);
        };
        let head = chain.head_index();
        let bytes = gather(chain, rules, &mut self.pieces)?;
        Ok(Some((head, bytes)))
    }
}

fn send(frame: &GuestPieces, tap: &impl AsFd) -> io::Result<()> {
    loop {
        match frame.write_to(tap.as_fd()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}
