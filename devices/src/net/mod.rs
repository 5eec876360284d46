//! The virtio network card (virtio 1.2 §5.1) on a tap that arrives open.
//!
//! Not for opening, creating or configuring taps, and not for filtering what passes: that is the
//! host network's work.
//!
//! Each pair of queues that the driver uses is served by one thread: frames move straight between
//! guest buffers and the tap with one `readv` or `writev` each, preceded by the 12-byte header of §5.1.6, which the tap
//! speaks itself, so that checksum and segmentation offloads pass through untouched. Receive and
//! transmit take turns in bounded bursts, so that neither starves the other.
//!
//! ```text
//!            tap readable            chains reserved            frame read
//! receive:  ─────────────▶ reserve ─────────────────▶ readv ─────────────▶ publish, signal
//!                             │ too few buffers: wait for the driver's kick, keep the tap unread
//!            kick                  chain valid             frame written
//! transmit: ─────▶ pop a chain ────────────────▶ writev ─────────────────▶ publish, signal
//!                                                  │ tap full: chain is put back, wait for the tap
//! ```
//!
//! A card has as many pairs as its tap has open queues. The first is served by the card's own thread,
//! together with the control queue, through which the driver counts in further pairs and switches
//! offloads.
//!
//! With vhost-net the host's kernel serves the pairs instead, and the card's thread has the control
//! queue alone.
//!
//! A driver that breaks the protocol is told `DEVICE_NEEDS_RESET` and its queues are left alone; a
//! frame that the host refuses is dropped and counted.

mod card;
mod chain;
mod config;
mod control;
mod counters;
mod device;
mod dhcp;
mod features;
mod lanes;
mod pair;
mod queues;
mod ring;
mod rx;
mod session;
mod state;
mod sys;
mod tap;
#[cfg(any(test, feature = "test-utils"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod tx;
mod vhost;

pub use config::{MacAddr, NetConfig};
pub use counters::{NetCounters, NetCounts};
pub use device::{Net, NetHost};
pub use dhcp::Lease;
pub use state::NetStateV1;
pub use tap::{Offloads, Tap, TapError};
pub use vhost::{VhostNet, VhostNetError};

/// Bytes of `virtio_net_hdr` as every `VIRTIO_F_VERSION_1` driver sees it, mergeable or not
/// (§5.1.6).
const HEADER_BYTES: usize = 12;

/// Offset of `num_buffers` in the header.
const NUM_BUFFERS_OFFSET: usize = 10;

/// Longest frame with its header, the bound the standard gives for receive buffers (§5.1.6.3.1):
/// header, Ethernet header and 64 KiB. Bounds what one reservation may hold of guest buffers.
const LARGEST_FRAME_BYTES: usize = HEADER_BYTES + 14 + 65_536;

/// Longest chain accepted for transmission: a largest frame with two VLAN tags. A longer chain is
/// malformed; no guest can make the host copy more than this per frame.
const LARGEST_TX_BYTES: usize = LARGEST_FRAME_BYTES + 8;

/// Most buffers in one chain: the size of a queue, which the standard gives as the bound (§2.7.5.3.1).
/// Stops a guest from making one frame walk an indirect table of 65,535 entries.
const CHAIN_MAX_BUFFERS: usize = QUEUE_SIZE as usize;

/// Size of every receive and transmit queue.
const QUEUE_SIZE: u16 = 256;

/// Size of the control queue; drivers have one command in it at a time.
const CONTROL_QUEUE_SIZE: u16 = 64;

/// Most pairs of queues of a card. Each has a thread and a queue of the tap, and all share one
/// interrupt line: more of them would not make a card faster.
pub const MAX_QUEUE_PAIRS: u16 = 8;

/// Frames moved in one direction before the other direction and the stop event get their turn.
const BURST_FRAMES: usize = 64;

/// How a burst ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Burst {
    /// Nothing left to move; the source of frames announces the next one.
    Idle,
    /// The other side takes or gives nothing; it announces when that changes.
    Blocked,
    /// The burst was full: there may be more.
    More,
    /// The rate limit is reached; its timer says when to go on.
    Limited,
}
