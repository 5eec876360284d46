//! The system calls that make a tap and a packet socket.
#![expect(
    unsafe_code,
    reason = "namespaces, interface requests and packet addresses exist only as raw calls"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the constants and sizes of these requests fit the fields they are for"
)]

use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Every protocol, in network byte order, as a packet socket wants it.
const EVERY_PROTOCOL: u16 = (libc::ETH_P_ALL as u16).to_be();

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub(super) fn enter_fresh_namespace() -> io::Result<()> {
    // SAFETY: takes no pointer, and moves only the calling thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

pub(super) fn open_tap(name: &str) -> io::Result<OwnedFd> {
    open_with(name, 0)
}

/// One more queue of the tap, which is made with the first.
pub(super) fn open_tap_queue(name: &str) -> io::Result<OwnedFd> {
    open_with(name, libc::IFF_MULTI_QUEUE)
}

fn open_with(name: &str, more: c_int) -> io::Result<OwnedFd> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = request(name);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = (flags | more) as i16;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(tap.into())
}

pub(super) fn open_packet_socket(name: &str) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd =
        check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `socket` just returned `fd`, it was checked and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    bring_up(socket.as_raw_fd(), name)?;
    let on: c_int = 1;
    // SAFETY: the option is one `int`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    })?;
    bind(fd, name)?;
    Ok(socket)
}

fn bring_up(socket: RawFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}

fn bind(socket: RawFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    // SAFETY: SIOCGIFINDEX reads and writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(socket, libc::SIOCGIFINDEX, &raw mut request) })?;
    // SAFETY: an address of zero bytes is valid, all its fields being integers.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = EVERY_PROTOCOL;
    // SAFETY: SIOCGIFINDEX set this member.
    address.sll_ifindex = unsafe { request.ifr_ifru.ifru_ifindex };
    let bytes = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a `sockaddr_ll` of `bytes` bytes, which outlives the call.
    check(unsafe { libc::bind(socket, (&raw const address).cast(), bytes) }).map(drop)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an `ifreq` of zero bytes is valid, all its members being integers.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    let room = request.ifr_name.len().saturating_sub(1);
    for (slot, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *slot = byte as c_char;
    }
    request
}
