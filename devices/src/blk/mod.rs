//! The virtio block device (virtio 1.2 §5.2): one raw image as one disk of the guest.
//!
//! [`Blk`] is the device: features, configuration space, life cycle. `BlkQueue` serves the one
//! request queue on its own thread, `Layout` and `Command` read a descriptor chain, and
//! [`crate::disk`] moves the bytes straight between the image and guest memory.
//!
//! - FLUSH is always offered and is an `fdatasync` after every earlier write; a driver that does
//!   not take it gets writes that are stable once completed (§5.2.6.2).
//! - A read-only disk refuses writes by the image's open mode and again in the request path.
//! - A chain without header or status byte, one of them outside guest memory and a head used again
//!   while in flight are driver faults: the device asks for a reset and leaves the queue alone.
//! - Data outside guest memory, which may lie in the window of a share, is `IOERR`.
//! - Anything else that cannot be done is a status byte: `IOERR` or `UNSUPP`.
//!
//! Not here: image formats, several queues, rate limits.

mod config;
mod device;
mod request;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod worker;

pub use config::{Access, BlkConfig, Discard, Engine};
pub use device::Blk;
pub use state::BlkStateV1;
