//! The host's end of the card: a tap that is already open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::features::UdpSegments;
use super::{HEADER_BYTES, sys};

/// One open queue of a tap. Needs no privilege when the tap belongs to the caller's user.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    link: Link,
    attached: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Link {
    /// The only queue of a tap.
    Tun,
    /// One of a tap's queues, which can be detached.
    TunQueue,
    #[cfg(any(test, feature = "test-utils"))]
    Datagrams,
}

/// Whether a queue of a tap gets frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attached {
    /// It does.
    Yes,
    /// Other queues get them all.
    No,
}

/// Which unfinished frames the guest takes, so that the tap need not finish them: a set of the
/// constants. Nothing else works without [`CHECKSUM`](Self::CHECKSUM).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads(libc::c_uint);

impl Offloads {
    /// Frames whose checksum is still to be computed.
    pub const CHECKSUM: Self = Self(libc::TUN_F_CSUM);
    /// TCP segments of up to 64 KiB over IPv4.
    pub const TSO4: Self = Self(libc::TUN_F_TSO4);
    /// TCP segments of up to 64 KiB over IPv6.
    pub const TSO6: Self = Self(libc::TUN_F_TSO6);
    /// Such segments with the ECN bit set.
    pub const ECN: Self = Self(libc::TUN_F_TSO_ECN);
    /// UDP datagrams to be cut into IP fragments.
    pub const UFO: Self = Self(libc::TUN_F_UFO);
    /// UDP segments over IPv4; a tap takes them for both versions of IP or for none.
    pub const USO4: Self = Self(libc::TUN_F_USO4);
    /// UDP segments over IPv6.
    pub const USO6: Self = Self(libc::TUN_F_USO6);

    /// These and `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The argument of `TUNSETOFFLOAD`, in a combination that the kernel takes.
    fn flags(self) -> libc::c_uint {
        let mut flags = self.0;
        let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        if flags & tcp == 0 {
            flags &= !libc::TUN_F_TSO_ECN;
        }
        if flags & udp != udp {
            flags &= !udp;
        }
        if flags & libc::TUN_F_CSUM == 0 {
            return 0;
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
        let link = if flags & libc::IFF_MULTI_QUEUE == 0 {
            Link::Tun
        } else {
            Link::TunQueue
        };
        let tap = Self {
            fd,
            link,
            attached: AtomicBool::new(true),
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
            attached: AtomicBool::new(true),
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

    /// Whether the host knows UDP segments. Leaves the tap without offloads.
    pub(super) fn udp_segments(&self) -> UdpSegments {
        let probe = Offloads::CHECKSUM.and(Offloads::USO4).and(Offloads::USO6);
        let known = self.set_offloads(probe).is_ok();
        // What was possible a moment ago, when the tap was opened, still is.
        let _ = self.set_offloads(Offloads::default());
        if known {
            UdpSegments::Known
        } else {
            UdpSegments::Unknown
        }
    }

    /// Has the tap give frames to this queue, or no longer do so. Frames that wait in a queue are
    /// lost when it is detached. Does nothing when it is so already.
    ///
    /// # Errors
    /// When the host refuses, or there is no other queue.
    pub(super) fn set_attached(&self, wanted: Attached) -> io::Result<()> {
        let attach = wanted == Attached::Yes;
        if self.attached.load(Ordering::Relaxed) == attach {
            return Ok(());
        }
        match self.link {
            Link::Tun => return Err(io::ErrorKind::Unsupported.into()),
            Link::TunQueue => sys::set_attached(self.fd.as_fd(), wanted)?,
            #[cfg(any(test, feature = "test-utils"))]
            Link::Datagrams => {}
        }
        self.attached.store(attach, Ordering::Relaxed);
        Ok(())
    }

    /// Sets what the tap may leave unfinished in the frames it gives.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        match self.link {
            Link::Tun | Link::TunQueue => sys::set_offloads(self.fd.as_fd(), offloads.flags()),
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
