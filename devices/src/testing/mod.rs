//! The other side of every device: guest memory, a driver, and an interrupt line, for tests,
//! fuzzers and benches. Nothing of this is in a release build.
//!
//! A device under test needs no transport:
//!
//! ```
//! use devices::testing::{FakeInterrupt, Part, QueueDriver, activation, guest_memory};
//! # use devices::{device::{DeviceId, VirtioDevice}, registry::Position, rng::{Rng, RngConfig}};
//! # let config = RngConfig { id: DeviceId::new("rng0"), position: Position(0) };
//! # let mut device = Rng::build(&config, None).unwrap();
//! let memory = guest_memory();
//! let irq = FakeInterrupt::new();
//! let features = device.spec().features;
//! let mut queue = QueueDriver::new(&memory, 0, 16);
//! device.activate(activation(&memory, &irq, features, [queue.active_queue(features)])).unwrap();
//!
//! let head = queue.add(&[Part::Writable(32)]);
//! queue.kick();
//! let used = queue.wait_used(&irq).unwrap();
//! assert_eq!((used.head, used.written), (head, 32));
//! assert_eq!(queue.bytes(head, 0).len(), 32);
//! device.stop().unwrap();
//! ```
//!
//! Helpers here panic on misuse: whoever calls them is a test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that is written wrongly fails where it is wrong"
)]

pub mod backend;
pub mod conformance;
mod fake_irq;
pub mod fuzz;
mod memory;
mod mmio_driver;
mod queue_driver;
mod short_cuts;
mod sink;
mod wake;

pub use fake_irq::FakeInterrupt;
pub use memory::{GUEST_MEMORY_BYTES, activation, guest_memory};
pub use mmio_driver::{MmioDriver, Reads};
pub use queue_driver::{Descriptor, Part, QueueDriver, Used};
pub use short_cuts::GuestPage;
pub use sink::Sink;
pub use wake::{Wake, wait_for};
