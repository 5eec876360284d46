//! The host's end of the card: a tap that is already open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{HEADER_BYTES, sys};

/// One open queue of a tap. Needs no privilege when the tap belongs to the caller's user.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    link: Link,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    Tun,
    #[cfg(any(test, feature = "test-utils"))]
    Datagrams,
}

/// Which unfinished frames the guest takes, so that the tap need not finish them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Frames whose checksum is still to be computed. Nothing else works without it.
    pub checksum: bool,
    /// TCP segments of up to 64 KiB over IPv4.
    pub tso4: bool,
    /// TCP segments of up to 64 KiB over IPv6.
    pub tso6: bool,
    /// Such segments with the ECN bit set.
    pub ecn: bool,
}

impl Offloads {
    fn flags(self) -> libc::c_uint {
        if !self.checksum {
            return 0;
        }
        let segments = [(self.tso4, libc::TUN_F_TSO4), (self.tso6, libc::TUN_F_TSO6)];
        let mut flags = segments
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .fold(libc::TUN_F_CSUM, |flags, (_, flag)| flags | flag);
        if self.ecn && flags != libc::TUN_F_CSUM {
            flags |= libc::TUN_F_TSO_ECN;
        }
        flags
    }
}

/// Why a descriptor does not do as a tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The descriptor is not an attached tap.
    #[error("Descriptor {fd} is not an open tap; attach it with TUNSETIFF first")]
    NotTap {
        /// The descriptor.
        fd: RawFd,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The tap was opened in a form that frames cannot be exchanged in.
    #[error(
        "Tap was opened with flags {flags:#x}, expected IFF_TAP, IFF_NO_PI and IFF_VNET_HDR ({expected:#x})"
    )]
    Flags {
        /// The flags found.
        flags: i32,
        /// The flags that are needed.
        expected: i32,
    },
    /// The host refused a setting.
    #[error("Failed to {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

const NEEDED_FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

impl Tap {
    /// Takes over an open tap: checks that it was attached with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`, makes it non-blocking and sets the header to the 12 bytes of virtio 1.
    ///
    /// # Errors
    /// When the descriptor is no such tap, or the host refuses a setting.
    pub fn new(fd: OwnedFd) -> Result<Self, TapError> {
        let flags = sys::tap_flags(fd.as_fd()).map_err(|source| TapError::NotTap {
            fd: fd.as_raw_fd(),
            source,
        })?;
        if flags & NEEDED_FLAGS != NEEDED_FLAGS {
            return Err(TapError::Flags {
                flags,
                expected: NEEDED_FLAGS,
            });
        }
        let tap = Self {
            fd,
            link: Link::Tun,
        };
        tap.make_nonblocking()?;
        sys::set_header_bytes(tap.fd.as_fd(), HEADER_BYTES).map_err(|source| TapError::Host {
            action: "set the length of the tap's frame header",
            source,
        })?;
        Ok(tap)
    }

    /// Stands a datagram socket in for a tap: each datagram is a 12-byte header and a frame, and
    /// offloads are ignored. For tests and benchmarks on machines where no tap can be made.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking.
    #[cfg(any(test, feature = "test-utils"))]
    pub fn over_datagrams(fd: OwnedFd) -> Result<Self, TapError> {
        let tap = Self {
            fd,
            link: Link::Datagrams,
        };
        tap.make_nonblocking()?;
        Ok(tap)
    }

    fn make_nonblocking(&self) -> Result<(), TapError> {
        fcntl_getfl(&self.fd)
            .and_then(|flags| fcntl_setfl(&self.fd, flags | OFlags::NONBLOCK))
            .map_err(|error| TapError::Host {
                action: "make the tap non-blocking",
                source: error.into(),
            })
    }

    /// Sets what the tap may leave unfinished in the frames it gives.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        match self.link {
            Link::Tun => sys::set_offloads(self.fd.as_fd(), offloads.flags()),
            #[cfg(any(test, feature = "test-utils"))]
            Link::Datagrams => Ok(()),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
