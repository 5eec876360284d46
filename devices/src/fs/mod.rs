//! The shared directory (virtio 1.2 §5.11): a vhost-user frontend.
//!
//! Requests never pass through here: the backend takes them from the queues in guest memory and
//! interrupts the driver itself. What is left is the configuration space, starting and stopping
//! the backend on the queues, and its death:
//!
//! ```text
//!             backend dies, policy "restart"
//!           ┌──────────────┐
//!           ▼              │
//! start ─▶ Serving ────────┴──▶ Refusing   every request is answered with ENOTCONN
//!             │   policy "fail"     │
//!             ▼                     ▼
//!           Broken ◀────────────────┘      a ring is broken: nothing is touched
//! ```
//!
//! A driver that resets the device leaves Refusing and Broken, and gets a new backend when the old
//! one is gone.
//!
//! With a [window](window::Window), the backend has files mapped for the guest, which then reads them
//! without requests; what is mapped outlives the backend.
//!
//! A share is saved by asking the backend what it has to remember; another backend goes on with it.

mod config;
mod device;
mod link;
mod queues;
mod refuse;
mod state;
mod watch;
pub mod window;

#[cfg(test)]
mod tests;

pub use config::{FsConfig, MAX_REQUEST_QUEUES, MAX_TAG_BYTES, OnExit};
pub use device::{Fs, FsHost};
pub use refuse::{Refused, refuse_all};
