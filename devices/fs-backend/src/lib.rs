//! A read-only virtio-fs server as a vhost-user backend, made for an immutable store.
//!
//! - [`abi`]: the FUSE wire format.
//! - [`inode`]: what the guest references, by identity and path.
//! - [`share`]: the directory that is shared, and the only ways into it.
//! - [`server`]: from a FUSE message to its reply.
//! - [`vhost`]: rings and guest memory.
//! - [`sandbox`]: how the process confines itself.
//! - [`run`]: the process; [`spawn`]: starting one as a child.
//!
//! Not for: what must be written, and anything of KVM or of virtual machines.

#![deny(unsafe_code)]

pub mod abi;
pub mod inode;
mod run;
pub mod sandbox;
pub mod server;
pub mod share;
mod spawn;
mod sys;
#[cfg(any(test, feature = "test-utils"))]
pub mod testing;
pub mod vhost;

pub use self::run::{Endpoint, Options, RunError, Succession, run};
pub use self::spawn::{SpawnError, Spawned, spawn, spawn_successor};
pub use self::sys::inherited;
