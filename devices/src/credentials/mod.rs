//! Hands credentials to the guest: what answers on [`PORT`] of a socket device.
//!
//! ```text
//! guest ── connects from a port below 1024 ──▶ port 5121
//!       ── "LIST\n"        ──▶ "OK <len>\n" and a line for each name
//!       ── "GET <name>\n"  ──▶ "OK <len>\n" and exactly <len> bytes
//!                           or "ERR <reason>\n"
//! ```
//!
//! One request per connection, which the answer ends. What follows the first line of a request is
//! not looked at.
//!
//! Not for where credentials come from: a [`Store`] knows, and is asked again for every request,
//! so that a guest gets the value of today. Values pass through buffers that are erased; nothing
//! here logs or prints one.

mod name;
mod request;
mod service;

#[cfg(test)]
mod tests;

pub use name::{MAX_NAME_BYTES, Name, NameError};
pub use request::{BadRequest, Parser, Request};
pub use service::{CredentialService, Refusal, Store};

/// The port of the host that the guest connects to.
pub const PORT: u32 = 5121;

/// Most bytes of a credential: what systemd takes (`CREDENTIAL_SIZE_MAX`).
pub const MAX_CREDENTIAL_BYTES: usize = 1 << 20;
