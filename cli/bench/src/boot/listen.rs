//! Where reports arrive: datagrams of the monitor, or connections of the guest.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};
use rustix::net::{SocketFlags, accept_with};

use super::Mark;
use super::reports::{MOST, Origin, Reports};
use crate::peer::GuestPort;

/// Most connections of a guest at once; systemd has one at a time.
const CONNECTIONS: usize = 16;

/// A place where reports arrive, and what arrived.
#[derive(Debug)]
pub struct Listener {
    at: Place,
    reports: Reports,
    open: Vec<Connection>,
}

#[derive(Debug)]
enum Place {
    Datagrams(UnixDatagram),
    Connections(OwnedFd),
}

/// A connection whose report is not complete.
#[derive(Debug)]
struct Connection {
    stream: File,
    heard: Vec<u8>,
}

impl Listener {
    /// Where a monitor reports as to a service manager: the socket at `path`, which its environment
    /// names as `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn of_monitor(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self::new(Place::Datagrams(socket), Origin::Monitor))
    }

    /// Where a guest reports, which is ready with `target`, or when it says so.
    ///
    /// # Errors
    /// When the socket cannot be made: without `vhost_vsock` there are no ports of AF_VSOCK.
    pub fn of_guest(port: &GuestPort, target: Option<String>) -> io::Result<Self> {
        let listener = match port {
            GuestPort::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                listener.into()
            }
            GuestPort::Vsock(port) => vsock(*port)?,
        };
        Ok(Self::new(
            Place::Connections(listener),
            Origin::Guest(target),
        ))
    }

    fn new(at: Place, origin: Origin) -> Self {
        Self {
            at,
            reports: Reports::of(origin),
            open: Vec::new(),
        }
    }

    /// What is to be waited for.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let place = match &self.at {
            Place::Datagrams(socket) => socket.as_fd(),
            Place::Connections(listener) => listener.as_fd(),
        };
        let open = self.open.iter().map(|connection| connection.stream.as_fd());
        std::iter::once(place).chain(open).collect()
    }

    /// Takes whatever has arrived, without waiting; returns the marks that it shows.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) fn take(&mut self) -> io::Result<Vec<Mark>> {
        let mut marks = Vec::new();
        match &self.at {
            Place::Datagrams(socket) => {
                let mut datagram = [0; MOST];
                while let Some(bytes) = now(socket.recv(&mut datagram))? {
                    let datagram = datagram.get(..bytes).unwrap_or_default();
                    marks.extend(self.reports.hear(datagram));
                }
            }
            Place::Connections(listener) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                while let Some(stream) = now(accept_with(listener, flags).map_err(Into::into))? {
                    if self.open.len() < CONNECTIONS {
                        self.open.push(Connection {
                            stream: stream.into(),
                            heard: Vec::new(),
                        });
                    }
                }
            }
        }
        let reports = &mut self.reports;
        self.open.retain_mut(|connection| {
            let goes_on = connection.read();
            if !goes_on {
                marks.extend(reports.hear(&connection.heard));
            }
            goes_on
        });
        Ok(marks)
    }
}

impl Connection {
    /// Reads what is there; whether more may come.
    fn read(&mut self) -> bool {
        let mut chunk = [0; MOST];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(bytes) if bytes > 0 && self.heard.len() < MOST => {
                    self.heard
                        .extend_from_slice(chunk.get(..bytes).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Its end, an error that ends it, or more than anybody has to report.
                _ => return false,
            }
        }
    }
}

/// Nothing instead of an error when nothing has arrived.
fn now<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn vsock(port: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    let any = VsockAddr::new(libc::VMADDR_CID_ANY, port);
    bind(listener.as_raw_fd(), &any)?;
    listen(&listener, Backlog::new(16)?)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn report_of_a_guest_counts_once_its_connection_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock_5122");
        let mut listener = Listener::of_guest(&GuestPort::Unix(path.clone()), None).unwrap();
        let mut guest = UnixStream::connect(&path).unwrap();
        guest.write_all(b"READY=1").unwrap();
        assert!(listener.take().unwrap().is_empty());
        assert_eq!(listener.descriptors().len(), 2);
        // Other than a close, that also ends what a child that is being forked just now holds a copy of.
        guest.shutdown(Shutdown::Both).unwrap();
        assert_eq!(listener.take().unwrap(), [Mark::Init, Mark::Ready]);
        assert_eq!(listener.descriptors().len(), 1);
    }

    #[test]
    fn endless_report_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        let mut listener = Listener::of_guest(&GuestPort::Unix(path.clone()), None).unwrap();
        let mut guest = UnixStream::connect(&path).unwrap();
        guest.write_all(&[b'x'; 3 * MOST]).unwrap();
        listener.take().unwrap();
        assert_eq!(listener.descriptors().len(), 1);
    }

    #[test]
    fn datagram_of_a_monitor_makes_it_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let mut listener = Listener::of_monitor(&path).unwrap();
        assert!(listener.take().unwrap().is_empty());
        let monitor = UnixDatagram::unbound().unwrap();
        monitor.send_to(b"READY=1\nSTATUS=ready", &path).unwrap();
        assert_eq!(listener.take().unwrap(), [Mark::Ready]);
    }
}
