//! The register interface between a driver and a virtio device (virtio 1.2 §4.2, MMIO).
//!
//! The only code that knows registers, status bits and interrupt acknowledgement; it knows no kind
//! of device. Modern devices only: version 2, `VIRTIO_F_VERSION_1` required.
//!
//! ```text
//!            status=0
//!    ┌──────────────────────────────────────────────────────────────┐
//!    ▼                                                              │
//!  Reset ─ACKNOWLEDGE─▶ ─DRIVER─▶ ─FEATURES_OK─▶ ─DRIVER_OK─▶ Active ⇄ Paused
//!                        features  queues          (activate)   stop / resume
//!                        writable  writable
//! ```
//!
//! Whatever a driver does out of turn is ignored and logged at a bounded rate; what it gets wrong
//! at `DRIVER_OK` marks the device `DEVICE_NEEDS_RESET`. Neither ever ends the process.

mod access;
mod doorbell;
mod interrupt;
mod mmio;
mod page;
mod queue_slot;
pub mod registers;
mod shared;
mod state;
pub mod status;

#[cfg(test)]
mod tests;

pub use doorbell::Doorbells;
pub use mmio::{MmioTransport, TransportError};
pub use page::{PAGE_WORDS, RegisterPage};
pub use state::{QueuePosition, QueueRegisters, TRANSPORT_STATE_VERSION, TransportState};
