//! The console (virtio 1.2 §5.3): one port with a receive and a transmit queue.
//!
//! A guest hands over many bytes at a time, where a serial port takes one and is asked for its state
//! before each. No features of its own: no size, no further ports, no emergency write.

mod config;
mod device;
mod input;
mod queues;
mod worker;

#[cfg(test)]
mod tests;

pub use config::{ConsoleConfig, ConsoleHost, Output};
pub use device::Console;
pub use input::Input;
pub use queues::{MAX_WRITE_BYTES, Receive, Served, Transmit};
