//! Namespaces of the process's own.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, fchdir, getegid, geteuid, pivot_root};
use rustix::thread::UnshareFlags;

use super::{SandboxError, on};
use crate::share::Owners;
use crate::sys;

/// Where the share is mounted for the moment it takes to become the root: a directory that every
/// host has and that is not needed any more by then.
const PLACE: &str = "/proc";

/// Ids that stand for those without a number, where the kernel does not say: its default.
const OVERFLOW: u32 = 65534;

/// What the host allowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Namespaces {
    /// The root is the share.
    Entered {
        /// Whom files belong to.
        owners: Owners,
    },
    /// Nothing has changed.
    Refused,
}

/// Makes namespaces, and the share their root.
///
/// Who may make them without a user namespace does: the numbers of owners then stay what they are,
/// and since every capability is dropped afterwards, a user namespace would take nothing more away.
pub(super) fn unshare(source: &Path) -> Result<Namespaces, SandboxError> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    let owners = match sys::unshare(flags) {
        Ok(()) => Owners::Host,
        Err(Errno::PERM) => match unshare_as_user(flags) {
            Ok(owners) => owners,
            Err(SandboxError::Namespace { action, source }) => {
                tracing::warn!(
                    error = %source,
                    "Namespaces are refused (failed to {action}): Landlock and seccomp have to do"
                );
                return Ok(Namespaces::Refused);
            }
            Err(error) => return Err(error),
        },
        Err(error) => {
            tracing::warn!(%error, "Namespaces are refused: Landlock and seccomp have to do");
            return Ok(Namespaces::Refused);
        }
    };
    make_root(source)?;
    Ok(Namespaces::Entered { owners })
}

fn unshare_as_user(flags: UnshareFlags) -> Result<Owners, SandboxError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(flags | UnshareFlags::NEWUSER).map_err(on("make a user namespace"))?;
    let write = |path: &str, text: &str| {
        fs::write(path, text).map_err(|error| SandboxError::Namespace {
            action: "name its user",
            source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    };
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    Ok(Owners::OverflowIsRoot {
        uid: overflow("/proc/sys/kernel/overflowuid"),
        gid: overflow("/proc/sys/kernel/overflowgid"),
    })
}

fn overflow(path: &str) -> u32 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(OVERFLOW)
}

/// Makes the directory at `source` the root, read-only.
fn make_root(source: &Path) -> Result<(), SandboxError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(on("keep mounts to itself"))?;
    // What is mounted below the share is not shared. A user namespace may not take such mounts
    // away, which would show what they hide: there they come along, and cannot be entered.
    mount_bind(source, PLACE)
        .or_else(|_| mount_bind_recursive(source, PLACE))
        .map_err(on("mount the share"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, PLACE, flags, Mode::empty()).map_err(on("find the share"))?;
    fchdir(root.as_fd()).map_err(on("enter the share"))?;
    let locked = rustix::fs::fstatvfs(&root).map_err(on("look at the share"))?;
    let keep = if locked.f_flag.contains(StatVfsMountFlags::SYNCHRONOUS) {
        MountFlags::SYNCHRONOUS
    } else {
        MountFlags::empty()
    };
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC
        | keep;
    // Without times of access, a read looks for none. A user namespace may not change that.
    mount_remount(".", flags | MountFlags::NOATIME, c"")
        .or_else(|_| mount_remount(".", flags, c""))
        .map_err(on("make the share read-only"))?;
    // The old root is put on top of the new one, and taken away.
    pivot_root(".", ".").map_err(on("make the share the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(on("leave the old root"))?;
    chdir("/").map_err(on("enter the share"))
}

/// Goes on as the first process of the new process namespace. The process that was there stays
/// behind, and ends as this one does.
pub(super) fn become_init() -> Result<(), SandboxError> {
    super::privileges::die_with_parent()?;
    sys::fork_and_wait().map_err(SandboxError::Fork)
}
