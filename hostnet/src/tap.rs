//! Opens a tap that exists, and makes one that does not.
//!
//! A VMM opens its tap as an ordinary user: `net apply` made the tap once, as root, for that user.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;

use crate::slot::InterfaceName;
use crate::sys::{self, TunFlags};

/// The driver's control device.
const TUN: &str = "/dev/net/tun";

/// Opens the existing tap `name` for a VMM: Ethernet frames with a virtio header in front.
///
/// # Errors
/// When there is no such tap, or it cannot be opened; see [`TapError`]. Never creates one.
pub fn open(name: &InterfaceName) -> Result<OwnedFd, TapError> {
    // Attaching to an absent name would create it, for a process that may.
    if index_of(name).is_none() {
        return Err(TapError::Missing { name: name.clone() });
    }
    let tun = open_tun()?;
    sys::attach(&tun, name, TunFlags::TAP).map_err(|error| refused(name, error))?;
    let flags = sys::flags(&tun).map_err(|source| TapError::Open {
        name: name.clone(),
        source,
    })?;
    if !flags.contains(TunFlags::PERSIST) {
        // It went away between the look and the attach, which made a new one; closing removes it.
        return Err(TapError::Missing { name: name.clone() });
    }
    Ok(tun.into())
}

/// Makes the persistent tap `name` for processes of user `uid`.
///
/// # Errors
/// When the host refuses, usually for lack of `CAP_NET_ADMIN`.
pub(crate) fn create(name: &InterfaceName, uid: u32) -> Result<(), TapError> {
    let tun = open_tun()?;
    let failed = |source| TapError::Create {
        name: name.clone(),
        source,
    };
    sys::attach(&tun, name, TunFlags::TAP).map_err(failed)?;
    sys::set_owner(&tun, uid).map_err(failed)?;
    sys::persist(&tun).map_err(failed)
}

/// Changes whom an existing tap belongs to; works while nobody uses it.
///
/// # Errors
/// As [`open`], and when the host refuses.
pub(crate) fn change_owner(name: &InterfaceName, uid: u32) -> Result<(), TapError> {
    let tun = open_tun()?;
    sys::attach(&tun, name, TunFlags::TAP).map_err(|error| refused(name, error))?;
    sys::set_owner(&tun, uid).map_err(|source| TapError::Open {
        name: name.clone(),
        source,
    })
}

fn open_tun() -> Result<File, TapError> {
    let tun = OpenOptions::new().read(true).write(true).open(TUN);
    tun.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TapError::NoDriver { source },
        _ => TapError::Driver { source },
    })
}

/// Index of the interface, when there is one. Asks a socket, because `/sys` may show another
/// network namespace.
fn index_of(name: &InterfaceName) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    netdevice::name_to_index(socket.ok()?, name.as_str()).ok()
}

/// Says why an existing interface could not be attached to.
fn refused(name: &InterfaceName, source: io::Error) -> TapError {
    let name = name.clone();
    match source.raw_os_error() {
        Some(libc::EPERM) => {
            let owner = match attribute(&name, "owner").as_deref() {
                None | Some("-1") => "nobody but root".to_owned(),
                Some(uid) => format!("user {uid}"),
            };
            TapError::Owner {
                name,
                owner,
                own: rustix::process::geteuid().as_raw(),
                source,
            }
        }
        Some(libc::EBUSY) => TapError::Busy { name, source },
        // The tap was made with other flags, or the interface is something else.
        Some(libc::EINVAL) => match attribute(&name, "tun_flags") {
            Some(flags) => TapError::Flags {
                name,
                flags,
                source,
            },
            None => TapError::NotATap { name, source },
        },
        _ => TapError::Open { name, source },
    }
}

fn attribute(name: &InterfaceName, attribute: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/{attribute}")).ok()?;
    Some(text.trim().to_owned())
}

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such interface.
    #[error("Tap {name} does not exist: create it as root with `slotvmm net apply <slot>`")]
    Missing {
        /// The tap.
        name: InterfaceName,
    },
    /// The kernel has no tun driver.
    #[error("{TUN} does not exist: load the kernel module tun")]
    NoDriver {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The driver's device cannot be opened.
    #[error("Failed to open {TUN}: the user that runs slots needs read and write permission")]
    Driver {
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The tap belongs to someone else.
    #[error(
        "Tap {name} belongs to {owner}, this process is user {own}: run as its owner, or give it \
         away as root with `slotvmm net apply <slot> --user {own}`"
    )]
    Owner {
        /// The tap.
        name: InterfaceName,
        /// Whom it belongs to.
        owner: String,
        /// Who asked.
        own: u32,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Another process has the tap open.
    #[error("Tap {name} is in use by another process: stop that first")]
    Busy {
        /// The tap.
        name: InterfaceName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The tap was made with flags that exclude ours.
    #[error(
        "Tap {name} was created with other flags ({flags}): expected a tap without multi_queue; \
         remove it with `ip link del {name}` and make it with `slotvmm net apply <slot>`"
    )]
    Flags {
        /// The tap.
        name: InterfaceName,
        /// Its flags, as the driver shows them.
        flags: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The interface is no tap.
    #[error("Interface {name} is not a tap: choose another name for the tap or the interface")]
    NotATap {
        /// The interface.
        name: InterfaceName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The tap could not be opened for another reason.
    #[error("Failed to open tap {name}")]
    Open {
        /// The tap.
        name: InterfaceName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The tap could not be made.
    #[error("Failed to create tap {name}: this needs root or CAP_NET_ADMIN")]
    Create {
        /// The tap.
        name: InterfaceName,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}
