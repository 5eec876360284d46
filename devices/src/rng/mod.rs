//! The entropy source (virtio 1.2 §5.4): one queue of buffers that the host's `getrandom` fills.
//!
//! No features of its own, no configuration space, and no state beyond its queue.

mod config;
mod device;
mod requests;

#[cfg(test)]
mod tests;

pub use config::RngConfig;
pub use device::Rng;
pub use requests::{MAX_REQUEST_BYTES, Requests};
