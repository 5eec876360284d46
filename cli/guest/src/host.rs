//! Connections to services of the host, from a port that only privileged programs can have.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc::VMADDR_CID_ANY;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, connect, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The host's address (virtio 1.2 §5.10.4).
const HOST_CID: u32 = 2;

/// Ports to connect from, the highest first. Lower ones are left to others.
const PORTS: std::ops::RangeInclusive<u32> = 512..=1023;

/// How long the host may take for anything: a slot that is paused meanwhile answers when it goes on.
const PATIENCE_SECONDS: i64 = 60;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// The kernel has no such sockets.
    #[error("Failed to make a vsock socket; is the module vmw_vsock_virtio_transport loaded?")]
    Socket(#[source] Errno),
    /// Not privileged.
    #[error("Failed to bind to a port below 1024, which takes CAP_NET_BIND_SERVICE")]
    Denied(#[source] Errno),
    /// Every port is in use, or the kernel refuses them.
    #[error("Failed to bind to a port from 512 to 1023")]
    Bind(#[source] Errno),
    /// The host does not answer there.
    #[error(
        "Failed to connect to the host's port {port}; is the slot's socket device enabled, and \
         does slotvmm have this service?"
    )]
    Connect {
        /// The port.
        port: u32,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// Connects to `port` of the host.
///
/// # Errors
/// When there is no such socket, no port to connect from, or nobody there.
pub(crate) fn dial(port: u32) -> Result<File, HostError> {
    let socket: OwnedFd = socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(HostError::Socket)?;
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(&socket, ReceiveTimeout, &patience).map_err(HostError::Socket)?;
    setsockopt(&socket, SendTimeout, &patience).map_err(HostError::Socket)?;
    bind_privileged(&socket)?;
    let address = VsockAddr::new(HOST_CID, port);
    connect(socket.as_raw_fd(), &address).map_err(|source| HostError::Connect { port, source })?;
    Ok(File::from(socket))
}

fn bind_privileged(socket: &OwnedFd) -> Result<(), HostError> {
    let mut last = Errno::EADDRINUSE;
    for port in PORTS.rev() {
        match bind(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_ANY, port)) {
            Ok(()) => return Ok(()),
            Err(error @ (Errno::EACCES | Errno::EPERM)) => return Err(HostError::Denied(error)),
            Err(error) => last = error,
        }
        if last != Errno::EADDRINUSE {
            break;
        }
    }
    Err(HostError::Bind(last))
}
