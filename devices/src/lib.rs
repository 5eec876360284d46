//! The emulated devices of slotvmm.
//!
//! No KVM, no network configuration, and nothing opened by name: handles arrive open, guest memory
//! arrives mapped, interrupts leave through a trait. Everything here runs on any machine, and is
//! tested there with the guest-side driver in `testing`.

#![deny(unsafe_code)]

pub mod blk;
pub mod bus;
pub mod console;
pub mod credentials;
pub mod device;
pub mod disk;
#[doc(hidden)]
pub mod failpoint;
pub mod fault;
pub mod fs;
pub mod interrupt;
pub mod legacy;
pub mod log_limit;
pub mod net;
pub mod notify;
pub mod rate_limit;
pub mod registry;
pub mod rng;
pub mod state;
#[cfg(feature = "test-utils")]
pub mod testing;
pub mod transport;
pub mod vhost_user;
pub mod vsock;
pub mod worker;
