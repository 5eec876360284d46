//! Two requests of vhost-net that the `vhost` crate has only for devices that it opened itself, or
//! for rings that end before their memory region does.
#![expect(unsafe_code, reason = "ioctls exist only as raw calls")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vhost::VringConfigData;
use vhost::vhost_kern::vhost_binding::{
    VHOST_NET_SET_BACKEND, VHOST_SET_VRING_ADDR, vhost_vring_addr, vhost_vring_file,
};
use vmm_sys_util::ioctl::ioctl_with_ref;

/// Has queue `index` exchange frames with `tap`, or with nothing.
pub(super) fn set_backend(
    vhost: &impl AsRawFd,
    index: usize,
    tap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let file = vhost_vring_file {
        index: u32::try_from(index).map_err(io::Error::other)?,
        fd: tap.map_or(-1, |tap| tap.as_raw_fd()),
    };
    // SAFETY: VHOST_NET_SET_BACKEND reads one `vhost_vring_file`, which outlives the call, and takes
    // a reference of its own to the descriptor.
    check(unsafe { ioctl_with_ref(vhost, VHOST_NET_SET_BACKEND(), &file) })
}

/// Tells where the rings of queue `index` are in this process.
pub(super) fn set_addresses(
    vhost: &impl AsRawFd,
    index: usize,
    rings: &VringConfigData,
) -> io::Result<()> {
    let addresses = vhost_vring_addr {
        index: u32::try_from(index).map_err(io::Error::other)?,
        flags: 0,
        desc_user_addr: rings.desc_table_addr,
        used_user_addr: rings.used_ring_addr,
        avail_user_addr: rings.avail_ring_addr,
        log_guest_addr: 0,
    };
    // SAFETY: VHOST_SET_VRING_ADDR reads one `vhost_vring_addr`, which outlives the call. The
    // kernel accesses the rings as this process would, so that a wrong address is an error of the
    // ring; that they lie in guest memory was checked by whoever made `rings`.
    check(unsafe { ioctl_with_ref(vhost, VHOST_SET_VRING_ADDR(), &addresses) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
