//! The FUSE server: from a message to its reply, knowing neither rings nor guest memory.
//!
//! [`Server::answer`] is the only entry. The opcode decides first ([`Class::of`]): what would change
//! something is answered `EROFS`, what is not known `ENOSYS`, before a byte of the body is looked
//! at. What is left reads, and [`Tree`] offers nothing else.
//!
//! Permissions are the guest's business: its driver checks them (`default_permissions`), and every
//! process of the guest could speak for every other.
//!
//! A session begins with `Init` and ends with `Destroy`, another `Init` or a reset of the device.
//! A request outside of one is served as if there had been one with the oldest driver: a backend
//! that was started anew thus heals the paths of a guest that knows nothing of it. Ids of the
//! former are `ESTALE`, upon which Linux looks the path up again.

mod cache;
mod dispatch;
mod list;
mod mapped;
mod mapping;
mod message;
mod read;
mod session;
mod state;
#[cfg(test)]
mod tests;

pub use self::cache::Cache;
pub use self::mapping::{MAPPING_BYTES, MIN_MAPPED_BYTES, Mapper, Part};
pub use self::message::{MAX_BODY, MAX_READ, Reply, Request};
#[cfg(any(test, feature = "test-utils"))]
pub(crate) use self::state::state_header;
pub use self::state::{MAX_STATE, StateError};

use std::sync::{Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use self::mapped::Mapped;
use self::session::Session;
use crate::abi::opcode::Class;
use crate::share::{Owners, Tree};

/// Whether extended attributes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Xattr {
    /// There are none, and the driver stops asking: a store has none, and programs ask for each
    /// file they list or run.
    #[default]
    Hidden,
    /// Those of files and directories.
    Shown,
}

/// How the share is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// What the guest may keep.
    pub cache: Cache,
    /// Whom files belong to.
    pub owners: Owners,
    /// Extended attributes.
    pub xattr: Xattr,
    /// Size of the DAX window, in bytes, for a frontend that has one.
    pub window: Option<u64>,
}

/// The FUSE server.
#[derive(Debug)]
pub struct Server {
    tree: Tree,
    policy: Policy,
    session: RwLock<Session>,
    /// The way to the window, once the frontend has one.
    mapper: RwLock<Option<Box<dyn Mapper>>>,
    mapped: Mutex<Mapped>,
}

impl Server {
    /// A server for what `tree` leads to.
    pub fn new(tree: Tree, policy: Policy) -> Self {
        Self {
            tree,
            policy,
            session: RwLock::default(),
            mapper: RwLock::default(),
            mapped: Mutex::default(),
        }
    }

    /// What the guest references.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Answers one message. `room` is what the reply may take, in bytes, without its header.
    pub fn answer(&self, request: &Request<'_>, room: usize) -> Reply {
        match Class::of(request.header.opcode) {
            Class::Serve(opcode) => {
                let reply = self.serve(opcode, request, room);
                if opcode.has_reply() {
                    reply.unwrap_or_else(Reply::Error)
                } else {
                    Reply::None
                }
            }
            Class::Mutating => Reply::Error(Errno::ROFS),
            Class::Unknown => Reply::Error(Errno::NOSYS),
        }
    }

    /// Ends the session: drops every reference, closes every descriptor.
    ///
    /// # Errors
    /// When the share cannot be looked at.
    pub fn reset(&self) -> Result<(), Errno> {
        self.set_session(Session::default());
        self.clear_window()?;
        self.tree.clear()
    }
}

/// The time, in nanoseconds since the epoch.
fn now() -> i64 {
    // Of the standard library: rustix asks the kernel for more at its first call, which the sandbox
    // does not allow.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
