//! The vhost-user side: rings and guest memory on one hand, [`Server`] on the other.
//!
//! Queue 0 is the high-priority queue, the others take requests (virtio 1.2, section 5.11.2). Each
//! has a thread of its own, made by the crate `vhost-user-backend`, which also speaks the protocol.

mod backend;
mod chain;
mod kicks;
mod mapper;
mod near;
mod pace;
#[cfg(test)]
mod tests;
mod transfer;
mod vring;

pub use self::backend::{Backend, QUEUE_SIZE};
pub use self::pace::Poll;
