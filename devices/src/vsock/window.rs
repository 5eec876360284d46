//! Credit (§5.10.6.3): each side says how large its buffer is and how many bytes ever left it, and
//! the other side never has more in flight than fits. The counters wrap around at 2³².

use std::num::Wrapping;

use super::packet::Header;

/// What may be sent to the guest.
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    sent: Wrapping<u32>,
    peer_forwarded: Wrapping<u32>,
    peer_buffer: u32,
}

impl SendWindow {
    /// Notes what a packet of the guest says about its buffer.
    pub(super) fn learn(&mut self, header: &Header) {
        self.peer_buffer = header.buf_alloc;
        self.peer_forwarded = Wrapping(header.fwd_cnt);
    }

    /// Bytes that fit. A guest whose counters contradict each other is sent nothing.
    pub(super) fn room(&self) -> u32 {
        let in_flight = (self.sent - self.peer_forwarded).0;
        self.peer_buffer.saturating_sub(in_flight)
    }

    /// Notes `bytes` as sent.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.sent += bytes;
    }
}

/// What the guest may send.
#[derive(Debug)]
pub(super) struct ReceiveWindow {
    capacity: u32,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    announced: Wrapping<u32>,
}

impl ReceiveWindow {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            capacity,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
        }
    }

    /// Notes `bytes` as received. Returns whether there was room: what the guest knows of the
    /// buffer is never more than there is, so a guest that keeps the protocol always has it.
    pub(super) fn receive(&mut self, bytes: u32) -> bool {
        let held = (self.received - self.forwarded).0;
        let fits = bytes <= self.capacity.saturating_sub(held);
        if fits {
            self.received += bytes;
        }
        fits
    }

    /// Notes `bytes` as having left the buffer.
    pub(super) fn forward(&mut self, bytes: u32) {
        self.forwarded += bytes;
    }

    /// Whether the guest is to be told, because it knows of a quarter less room than there is.
    pub(super) fn is_news_due(&self) -> bool {
        (self.forwarded - self.announced).0 >= self.capacity / 4
    }

    /// Writes the window into a header that goes to the guest.
    pub(super) fn announce(&mut self, header: &mut Header) {
        self.announced = self.forwarded;
        header.buf_alloc = self.capacity;
        header.fwd_cnt = self.forwarded.0;
    }
}
