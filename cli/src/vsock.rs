//! The host's side of a slot's socket device: which Unix socket belongs to which port.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use devices::vsock::{Dial, Service, VsockHost};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// What this process answers the guest itself, by port.
pub(crate) type Services = BTreeMap<u32, Box<dyn Service>>;

/// The host's side around the bound listener at `path`.
pub(crate) fn host(listener: UnixListener, path: &Path, services: Services) -> VsockHost {
    VsockHost {
        listener: Some(listener),
        dial: Some(Box::new(PortSockets {
            base: path.to_owned(),
        })),
        services,
    }
}

/// Leads port 52 of the host to whoever listens on `<base>_52`.
#[derive(Debug)]
struct PortSockets {
    base: PathBuf,
}

impl PortSockets {
    fn path(&self, port: u32) -> PathBuf {
        let mut path = OsString::from(&self.base);
        path.push(format!("_{port}"));
        path.into()
    }
}

impl Dial for PortSockets {
    fn dial(&mut self, port: u32) -> io::Result<UnixStream> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // A listener whose backlog is full refuses, instead of making every other socket wait.
        connect(
            std::os::fd::AsRawFd::as_raw_fd(&stream),
            &UnixAddr::new(&self.path(port))?,
        )?;
        Ok(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_the_socket_of_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut sockets = PortSockets {
            base: dir.path().join("vsock.sock"),
        };
        let missing = sockets.dial(52).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(dir.path().join("vsock.sock_52")).unwrap();
        sockets.dial(52).unwrap();
        listener.accept().unwrap();
        drop(listener);
        let refused = sockets.dial(52).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
