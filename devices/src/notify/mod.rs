//! Hears what the guest's service manager says of itself: what answers on [`PORT`] of a socket
//! device.
//!
//! systemd in a guest that has the credential `vmm.notify_socket` speaks the protocol of
//! sd_notify(3) to that address: lines of `KEY=VALUE`, usually one connection for each message. It
//! may wait for the end of each before it goes on with the boot, so a connection is over as soon
//! as the guest has said that it sends nothing more.
//!
//! Only what is listed in [`Report`] is understood; everything else, well-formed or not, is
//! dropped here. Not for what a report means: a [`Listener`] decides.

mod message;
mod service;

#[cfg(test)]
mod tests;

pub use message::{MAX_LINE_BYTES, MAX_STATUS_BYTES, Parser, Report, Shutdown, Target};
pub use service::{Listener, MAX_CONNECTION_BYTES, NotifyService};

/// The port of the host that the guest connects to.
pub const PORT: u32 = 5122;
