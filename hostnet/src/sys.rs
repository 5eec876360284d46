//! The ioctls of `/dev/net/tun` (Linux `Documentation/networking/tuntap.rst`), and `unshare`.

#![expect(
    unsafe_code,
    reason = "ioctls of the tun driver have no safe wrapper in a crate we use"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::thread::UnshareFlags;

use crate::slot::InterfaceName;

/// Flags of a tap as `TUNSETIFF` takes and `TUNGETIFF` returns them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TunFlags(pub(crate) u16);

impl TunFlags {
    /// An Ethernet device whose frames come without packet information and with a virtio header:
    /// what the network device of a guest reads and writes.
    pub(crate) const TAP: Self = Self(0x0002 | 0x1000 | 0x4000);
    /// May be attached to several times, a queue each.
    pub(crate) const MULTI_QUEUE: Self = Self(0x0100);
    /// Stays when the last descriptor closes.
    pub(crate) const PERSIST: Self = Self(0x0800);

    /// Whether all of `other` is set.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An all-zero request for the interface `name`.
fn request(name: &InterfaceName) -> libc::ifreq {
    // SAFETY: `ifreq` consists of integers, arrays of them and a union of such; all zero bytes are
    // a valid value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // `InterfaceName` is ASCII and at most 15 bytes, so the last of the 16 stays NUL.
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .take(15)
        .zip(name.as_str().bytes())
    {
        *to = from.cast_signed();
    }
    request
}

/// Attaches the open `/dev/net/tun` to the tap `name`, creating it when it is absent.
pub(crate) fn attach(tun: &File, name: &InterfaceName, flags: TunFlags) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags.0.cast_signed();
    // SAFETY: `TUNSETIFF` reads and writes one `ifreq`; `request` is one, lives on this stack
    // frame, and nothing else refers to it.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result)
}

/// Whether the interface is up and has a carrier (`ETHTOOL_GLINK`), asked through any `socket`. A
/// persistent tap has one as long as somebody is attached to it. Unlike the operational state,
/// which follows up to a second later, this is so now.
pub(crate) fn has_link(socket: BorrowedFd<'_>, name: &InterfaceName) -> io::Result<bool> {
    let mut value = EthtoolValue {
        command: ETHTOOL_GLINK,
        data: 0,
    };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `SIOCETHTOOL` reads one `ifreq`, and through its pointer reads and writes the
    // `ethtool_value` that this command takes; both live on this stack frame.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    check(result)?;
    Ok(value.data != 0)
}

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Asks for the state of the link.
const ETHTOOL_GLINK: u32 = 0x0a;
/// Request number of the ethtool interface.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Flags of the tap that the open `/dev/net/tun` is attached to.
pub(crate) fn flags(tun: &File) -> io::Result<TunFlags> {
    // SAFETY: as in `request`: all zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: `TUNGETIFF` writes one `ifreq`; `request` is one, lives on this stack frame, and
    // nothing else refers to it.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    check(result)?;
    // SAFETY: the kernel filled `ifru_flags`, and every bit pattern is a valid integer.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(TunFlags(flags.cast_unsigned()))
}

/// Lets processes of user `uid` attach to the tap without further rights.
pub(crate) fn set_owner(tun: &File, uid: u32) -> io::Result<()> {
    // SAFETY: `TUNSETOWNER` takes the uid itself as its argument and no pointer.
    let result =
        unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid)) };
    check(result)
}

/// Makes the tap outlive its descriptors.
pub(crate) fn persist(tun: &File) -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: `TUNSETPERSIST` takes a truth value itself as its argument and no pointer.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, on) };
    check(result)
}

/// Moves the calling thread into namespaces of its own.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: this is unsafe for what unsharing the table of descriptors does to their owners.
    // Nobody asks for that here.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
