//! Opens a tap that exists, and makes one that does not.
//!
//! A VMM opens its tap as an ordinary user: `net apply` made the tap once, as root, for that user.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::slot::InterfaceName;
use crate::sys::{self, TunFlags};

/// The driver's control device.
const TUN: &str = "/dev/net/tun";

/// Opens the existing tap `name` for a VMM: Ethernet frames with a virtio header in front. A tap that
/// was made for several queues is opened `queues` times, any other once. At least one is opened.
///
/// # Errors
/// When there is no such tap, or it cannot be opened; see [`TapError`]. Never creates one.
pub fn open(name: &InterfaceName, queues: u8) -> Result<Vec<OwnedFd>, TapError> {
    // Attaching to an absent name would create it, for a process that may.
    let socket = any_socket().ok().filter(|socket| exists(socket, name));
    let socket = socket.ok_or_else(|| TapError::Missing { name: name.clone() })?;
    // The kernel lets anybody who may attach to a tap of several queues do so beside its user, and
    // would divide the guest's frames among both.
    if sys::has_link(socket.as_fd(), name).unwrap_or(false) {
        return Err(TapError::Busy {
            name: name.clone(),
            source: io::Error::from_raw_os_error(libc::EBUSY),
        });
    }
    let tun = open_tun()?;
    let flags = attach(&tun, name)?;
    if !flags.contains(TunFlags::PERSIST) {
        // It went away between the look and the attach, which made a new one; closing removes it.
        return Err(TapError::Missing { name: name.clone() });
    }
    let mut opened = vec![tun.into()];
    if flags.contains(TunFlags::MULTI_QUEUE) {
        for _ in 1..queues {
            let tun = open_tun()?;
            attach(&tun, name)?;
            opened.push(tun.into());
        }
    }
    Ok(opened)
}

/// Attaches to the tap `name` in the form that it was made in, and returns its flags.
fn attach(tun: &File, name: &InterfaceName) -> Result<TunFlags, TapError> {
    let several = TunFlags::TAP.and(TunFlags::MULTI_QUEUE);
    // The kernel refuses whoever differs in this flag with EINVAL, and says no more.
    sys::attach(tun, name, several)
        .or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => sys::attach(tun, name, TunFlags::TAP),
            _ => Err(error),
        })
        .map_err(|error| refused(name, error))?;
    sys::flags(tun).map_err(|source| TapError::Open {
        name: name.clone(),
        source,
    })
}

/// How many queues a tap is made for. Whoever attaches to it has to say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One: whoever knows nothing of queues expects this.
    One,
    /// Any number. `net apply` makes every tap like that, whether its slot has several queues or not:
    /// it cannot be changed later.
    Several,
}

/// Makes the persistent tap `name` for processes of user `uid`.
///
/// # Errors
/// When the host refuses, usually for lack of `CAP_NET_ADMIN`.
pub(crate) fn create(name: &InterfaceName, uid: u32, form: Form) -> Result<(), TapError> {
    let tun = open_tun()?;
    let failed = |source| TapError::Create {
        name: name.clone(),
        source,
    };
    let flags = match form {
        Form::One => TunFlags::TAP,
        Form::Several => TunFlags::TAP.and(TunFlags::MULTI_QUEUE),
    };
    sys::attach(&tun, name, flags).map_err(failed)?;
    sys::set_owner(&tun, uid).map_err(failed)?;
    sys::persist(&tun).map_err(failed)
}

/// Changes whom an existing tap belongs to; works while nobody uses it.
///
/// # Errors
/// As [`open`], and when the host refuses.
pub(crate) fn change_owner(name: &InterfaceName, uid: u32) -> Result<(), TapError> {
    let tun = open_tun()?;
    attach(&tun, name)?;
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

/// A socket to ask about interfaces: `/sys` may show another network namespace.
fn any_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

fn exists(socket: &OwnedFd, name: &InterfaceName) -> bool {
    netdevice::name_to_index(socket, name.as_str()).is_ok()
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
    /// The interface was made with flags that exclude ours.
    #[error(
        "Tap {name} was created with other flags ({flags}): expected a tap, not a tun; remove it with `ip link del {name}` and make it with `slotvmm net apply <slot>`"
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
