//! The process: from options to serving one frontend.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::inode::{Journal, Saved};
use crate::sandbox::{self, Sandbox, SandboxError};
use crate::server::{Cache, Policy, Server, Xattr};
use crate::share::{Budget, Tree};
use crate::vhost::{Backend, Poll};

/// Where the frontend comes from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket is made here; what lies in its place is removed.
    Path(PathBuf),
    /// A socket that listens already.
    Listener(OwnedFd),
}

/// What becomes of the session when this process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Succession {
    /// It is lost.
    #[default]
    None,
    /// Standard output is a file that is given to one backend after the other, see
    /// [`Journal`]: this one goes on where the last one ended.
    Journal,
}

/// What to serve, and how.
#[derive(Debug)]
pub struct Options {
    /// Where the frontend comes from.
    pub endpoint: Endpoint,
    /// The directory that is shared.
    pub source: PathBuf,
    /// What the guest may keep.
    pub cache: Cache,
    /// Extended attributes.
    pub xattr: Xattr,
    /// Whether another backend can go on after this one.
    pub succession: Succession,
    /// Size of the DAX window, in bytes, for a frontend that has one: whole mappings of 2 MiB.
    pub window: Option<u64>,
    /// Request queues, each with a thread.
    pub queues: NonZeroUsize,
    /// How long a queue is looked at after a request, instead of having it kick for the next one,
    /// while its driver asks at once again.
    pub poll: Poll,
    /// How this process confines itself.
    pub sandbox: Sandbox,
}

/// Why there is no service, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The socket cannot be made.
    #[error("Cannot listen at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The host refuses something.
    #[error("Cannot prepare to serve the share")]
    Host(#[source] Errno),
    /// The protocol failed.
    #[error("Cannot speak to the frontend: {0}")]
    Daemon(DaemonError),
}

/// Serves the first frontend that connects, until it is gone.
///
/// The process is confined before anything the frontend sends is looked at, and for good: nothing
/// else can be done in it afterwards. There must be no other thread.
///
/// # Errors
/// When it cannot begin, or the frontend violates the protocol. A frontend that closes the
/// connection is no error.
pub fn run(options: Options) -> Result<(), RunError> {
    let mut listener = listen(options.endpoint)?;
    // Before the process is confined: later it can only be appended to.
    let journal = match options.succession {
        Succession::None => None,
        Succession::Journal => Some(open_journal().map_err(host)?),
    };
    let confined = sandbox::enter(options.sandbox, &options.source)?;
    let tree = Tree::new(confined.share, Budget::of_process()).map_err(RunError::Host)?;
    let policy = Policy {
        cache: options.cache,
        owners: confined.owners,
        xattr: options.xattr,
        window: options.window,
    };
    let server = Arc::new(Server::new(tree, policy));
    if let Some((journal, known)) = journal {
        if !known.is_empty() {
            server.recover(known);
        }
        server.tree().write_down(journal);
    }
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let limit = options.poll.limit();
    let backend = Backend::new(server, options.queues, limit, memory.clone());
    let backend = Arc::new(backend);
    let mut daemon = VhostUserDaemon::new("vhost-user".to_owned(), Arc::clone(&backend), memory)
        .map_err(RunError::Daemon)?;
    // Its threads are waited for when it is dropped, which this is before.
    let ending = Ending(&backend);
    daemon.start(&mut listener).map_err(RunError::Daemon)?;
    // Nobody else is served: a second frontend shall not wait in vain.
    drop(listener);
    let ended = daemon.wait();
    drop(ending);
    match ended {
        Err(DaemonError::HandleRequest(
            ProtocolError::Disconnected | ProtocolError::PartialMessage,
        )) => Ok(()),
        ended => ended.map_err(RunError::Daemon),
    }
}

/// Ends the service of queues: a guest that nobody watches any more may still ask.
struct Ending<'a>(&'a Backend);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn open_journal() -> std::io::Result<(Journal, Vec<Saved>)> {
    Journal::open(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

fn listen(endpoint: Endpoint) -> Result<Listener, RunError> {
    match endpoint {
        Endpoint::Path(path) => {
            crate::sys::close_others(None).map_err(host)?;
            bind(&path).map_err(|source| RunError::Socket { path, source })
        }
        Endpoint::Listener(socket) => {
            crate::sys::close_others(Some(socket.as_raw_fd())).map_err(host)?;
            Ok(Listener::from(UnixListener::from(socket)))
        }
    }
}

/// Makes a socket at `path`, in place of one that an earlier backend has left there. This one
/// stays as well: when it is not needed any more, the process cannot reach it.
fn bind(path: &Path) -> std::io::Result<Listener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path).map(Listener::from)
}

fn host(error: std::io::Error) -> RunError {
    RunError::Host(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
