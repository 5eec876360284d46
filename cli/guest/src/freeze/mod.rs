//! `freeze`: keeps the guest's file systems still for a moment, while the host takes a snapshot.
//!
//! The host connects to port 5123 and asks in lines; every answer is a line, too:
//!
//! ```text
//! FREEZE 30         at most so many seconds
//! OK 2 1            two file systems are frozen, one cannot be: it was synced
//! THAW
//! OK                they were frozen until now
//! ```
//!
//! `ERR` and a reason is the answer to what cannot be done, and the connection ends. Its end, the time
//! limit and a signal thaw as well: what is frozen is so by [`Frozen`], which thaws when it is dropped.
//! A process of its own, [`guard`], thaws when this one is killed.
//!
//! While anything is frozen, nothing is logged: whoever reads the log may be waiting for its file system.

mod frozen;
mod guard;
mod mounts;
mod session;
#[expect(unsafe_code, reason = "freezing and thawing are ioctls")]
mod sys;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::VMADDR_CID_ANY;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, listen, socket,
};

pub(crate) use self::guard::guard;
use self::mounts::{Mount, freezable};
use self::session::{Ended, Interrupts, session};

/// Where the host asks.
const PORT: u32 = 5123;

/// Why nothing was frozen, or not for as long as the host wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    /// The kernel refused.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Standard input is no connection of the host's.
    #[error("Standard input is no connection from the host; start slotvmm-freeze.socket instead")]
    NotTheHost,
    /// The host says something else.
    #[error("The host asked for {line:?}, expected FREEZE and a number of seconds from 1 to 300")]
    Malformed {
        /// What it said.
        line: String,
    },
    /// A file system did not freeze.
    #[error("Failed to freeze {}; everything is thawed", place.display())]
    Freeze {
        /// Where it is.
        place: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// There is nothing to freeze.
    #[error("No file system of a disk is mounted for writing")]
    Nothing,
    /// The process that would thaw did not start.
    #[error("Failed to start the process that thaws if this one is killed")]
    Guard(#[source] io::Error),
    /// The time was over.
    #[error("The host did not thaw within {seconds} s: everything is thawed")]
    Expired {
        /// How many it had asked for.
        seconds: u64,
    },
    /// The host is gone.
    #[error("The host hung up: everything is thawed")]
    HungUp,
}

fn host(action: &'static str) -> impl Fn(Errno) -> FreezeError {
    move |errno| FreezeError::Host {
        action,
        source: errno.into(),
    }
}

/// Serves the connection that is standard input.
///
/// # Errors
/// When it is none of the host's, or it did not go as the host wanted.
pub(crate) fn serve() -> Result<(), FreezeError> {
    let interrupts = Interrupts::block()?;
    let stdin = io::stdin();
    let connection = stdin.as_fd().try_clone_to_owned();
    let connection = connection.map_err(|source| FreezeError::Host {
        action: "take the connection",
        source,
    })?;
    session(connection, &interrupts).map(drop)
}

/// Serves the host's connections, one after the other, until a signal comes.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn listen_for_host() -> Result<(), FreezeError> {
    let interrupts = Interrupts::block()?;
    let listener = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let listener = listener.map_err(host("make a vsock socket"))?;
    let address = VsockAddr::new(VMADDR_CID_ANY, PORT);
    bind(listener.as_raw_fd(), &address).map_err(host("bind to port 5123"))?;
    let backlog = Backlog::new(1).map_err(host("listen"))?;
    listen(&listener, backlog).map_err(host("listen"))?;
    loop {
        if interrupts.wait(&listener, None)? == session::Woken::Signal {
            return Ok(());
        }
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Ok(connection) => match session(sys::own(connection), &interrupts) {
                Ok(Ended::Signal) => return Ok(()),
                Ok(Ended::Thawed) => {}
                Err(error) => crate::print_chain(&error),
            },
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(host("accept the host's connection")(errno)),
        }
    }
}

/// Thaws every file system that there is, whoever froze it. For after this program was killed.
///
/// # Errors
/// When the kernel does not say what is mounted.
pub(crate) fn thaw() -> Result<(), FreezeError> {
    let mut thawed = Vec::new();
    for mount in mounted()? {
        // Others were not frozen, or are gone.
        if let Ok(Ok(())) = frozen::open(&mount.place).map(|place| sys::thaw(&place)) {
            thawed.push(mount.place);
        }
    }
    // Not before, see above.
    for place in thawed {
        println!("{} was frozen and is thawed", place.display());
    }
    Ok(())
}

/// What can be frozen, in the order in which to freeze it.
fn mounted() -> Result<Vec<Mount>, FreezeError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| FreezeError::Host {
            action: "read what is mounted",
            source,
        })
    };
    Ok(freezable(
        &read("/proc/self/mountinfo")?,
        &read("/proc/filesystems")?,
    ))
}

/// The arguments with which [`guard`] is started.
fn guard_arguments(places: &[PathBuf], seconds: u64) -> Vec<OsString> {
    let words = ["freeze".into(), "guard".into(), seconds.to_string().into()];
    let places = places.iter().map(|place| place.clone().into_os_string());
    words.into_iter().chain(places).collect()
}
