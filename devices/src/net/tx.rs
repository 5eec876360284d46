//! From the driver to the tap.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::chain::{ChainRules, Flow, gather};
use super::ring::{Ring, Used};
use super::sys::GuestPieces;
use super::{BURST_FRAMES, Burst, HEADER_BYTES, LARGEST_TX_BYTES, Lease, NetCounters, dhcp};
use crate::device::ActiveQueue;
use crate::fault::QueueFault;
use crate::rate_limit::Pacer;

/// Most answers that wait for the receive queue. A client sends one request at a time.
const MAX_REPLIES: usize = 4;

/// The transmit queue: no thread, no epoll, and no descriptor it is not given.
pub(super) struct Tx {
    ring: Ring,
    pieces: GuestPieces,
    counters: Arc<NetCounters>,
    pacer: Option<Pacer>,
    lease: Option<Arc<Lease>>,
    /// Frames for the guest that answer its own.
    replies: Vec<Vec<u8>>,
}

impl Tx {
    pub(super) fn new(ring: Ring, counters: Arc<NetCounters>) -> Self {
        Self {
            pieces: GuestPieces::new(ring.memory().clone()),
            ring,
            counters,
            pacer: None,
            lease: None,
            replies: Vec::new(),
        }
    }

    /// Answers requests for DHCP with `lease` instead of sending them.
    pub(super) fn with_lease(self, lease: Option<Arc<Lease>>) -> Self {
        Self { lease, ..self }
    }

    /// The answers to what was sent since this was last called.
    pub(super) fn take_replies(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.replies)
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
            let Some(bytes) = bytes else {
                self.counters.lost_sent();
                self.ring
                    .publish(std::iter::once(Used { head, bytes: 0 }))?;
                continue;
            };
            if self.is_answered_here() {
                self.answer();
                self.counters.sent();
            } else if self.send(tap) == Sent::Full {
                self.ring.put_back(1);
                return Ok(Burst::Blocked);
            }
            if let Some(pacer) = &self.pacer {
                pacer.spend(bytes.saturating_sub(HEADER_BYTES));
            }
            self.ring
                .publish(std::iter::once(Used { head, bytes: 0 }))?;
        }
        Ok(Burst::More)
    }

    fn send(&self, tap: &impl AsFd) -> Sent {
        match write(&self.pieces, tap) {
            Ok(()) => self.counters.sent(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Sent::Full,
            // The frame is malformed, too long for the link, or the link is down: the fate of a
            // frame on any wire.
            Err(_) => self.counters.lost_sent(),
        }
        Sent::Yes
    }

    /// Whether the frame is one for the DHCP server that is here.
    fn is_answered_here(&self) -> bool {
        let Some(lease) = &self.lease else {
            return false;
        };
        let mut start = [0; HEADER_BYTES + dhcp::HEADERS_BYTES];
        let loaded = self.pieces.load(&mut start);
        let start = start.get(HEADER_BYTES..loaded).unwrap_or_default();
        dhcp::is_for_server(start, lease.gateway)
    }

    /// Keeps the answer to the frame, of those to a few frames at a time.
    fn answer(&mut self) {
        let Some(lease) = self
            .lease
            .as_ref()
            .filter(|_| self.replies.len() < MAX_REPLIES)
        else {
            return;
        };
        let mut frame = vec![0; HEADER_BYTES + dhcp::REQUEST_MAX_BYTES];
        let loaded = self.pieces.load(&mut frame);
        let frame = frame.get(HEADER_BYTES..loaded).unwrap_or_default();
        // Looked at anew as a whole: the guest may have changed it since.
        if dhcp::is_for_server(frame, lease.gateway)
            && let Some(reply) = dhcp::answer(lease, frame)
        {
            let header = [0; HEADER_BYTES];
            self.replies.push([header.as_slice(), &reply].concat());
        }
    }

    /// Takes the next chain and lays out its frame; returns the chain's first descriptor and its
    /// length.
    /// The next chain: its head, and the bytes of its frame, which are in `pieces`. None for one that
    /// cannot be read.
    fn take(&mut self) -> Result<Option<(u16, Option<usize>)>, QueueFault> {
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
        match gather(chain, rules, &mut self.pieces) {
            Ok(bytes) => Ok(Some((head, Some(bytes)))),
            // It need not be the driver's mistake: a program of the guest may send, without a copy,
            // what it has mapped in the window of a share.
            Err(QueueFault::Memory { .. }) => Ok(Some((head, None))),
            Err(fault) => Err(fault),
        }
    }
}

/// Whether the tap took a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It did, or the frame is lost.
    Yes,
    /// It takes none for now.
    Full,
}

fn write(frame: &GuestPieces, tap: &impl AsFd) -> io::Result<()> {
    loop {
        match frame.write_to(tap.as_fd()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}
