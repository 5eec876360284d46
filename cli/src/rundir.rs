//! A running slot's directory below `/run/slotvmm`: a lock, the control socket, the console socket.
//!
//! The lock says that the slot runs; sockets that a killed process left are removed under it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::disk::{Holder, Locking, try_lock};
use crate::resolve::{SlotPaths, Use};

/// Everybody may list what runs.
const PARENT_MODE: u32 = 0o755;
/// Owner and group may use a slot's sockets.
const DIR_MODE: u32 = 0o750;
const SOCKET_MODE: u32 = 0o660;
const LOCK_MODE: u32 = 0o600;

/// The directory of a slot that this process runs. Dropping it removes all but the
/// lock.
#[derive(Debug)]
pub(crate) struct RunDir {
    control: PathBuf,
    console: PathBuf,
    vsock: PathBuf,
    ssh_key: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

/// The sockets of a slot, bound.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// For the control API.
    pub(crate) control: UnixListener,
    /// For the serial console.
    pub(crate) console: UnixListener,
}

impl RunDir {
    /// Makes the directory when needed, and claims it.
    ///
    /// # Errors
    /// When another process runs the slot, or the directory cannot be made.
    pub(crate) fn claim(paths: &SlotPaths) -> Result<Self, RunDirError> {
        let dir = &paths.run_dir;
        if let Some(parent) = dir.parent() {
            make(parent, PARENT_MODE, Parents::Make)?;
        }
        make(dir, DIR_MODE, Parents::MustExist)?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(LOCK_MODE)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(place("open", &path))?;
        match try_lock(&lock, Use::Exclusive).map_err(place("lock", &path))? {
            Locking::Held => {}
            Locking::Busy => {
                return Err(RunDirError::AlreadyRunning {
                    path,
                    holder: Holder::find(&lock),
                });
            }
            Locking::Unsupported(source) => {
                return Err(RunDirError::Place {
                    action: "lock",
                    path,
                    source,
                });
            }
        }
        Ok(Self {
            control: paths.control_socket.clone(),
            console: paths.console_socket.clone(),
            vsock: paths.vsock_socket.clone(),
            ssh_key: dir.join("ssh_key"),
            _lock: lock,
        })
    }

    /// Binds both sockets, in place of what a killed process may have left.
    ///
    /// # Errors
    /// When a socket cannot be bound.
    pub(crate) fn bind(&self) -> Result<Sockets, RunDirError> {
        Ok(Sockets {
            control: bind(&self.control)?,
            console: bind(&self.console)?,
        })
    }
}

impl RunDir {
    /// Where the private half of the boot's SSH key belongs.
    pub(crate) fn ssh_key(&self) -> &Path {
        &self.ssh_key
    }

    /// Binds the socket that leads to ports of the guest.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub(crate) fn bind_vsock(&self) -> Result<UnixListener, RunDirError> {
        bind(&self.vsock)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for file in [&self.control, &self.console, &self.vsock, &self.ssh_key] {
            // It may never have been made, and what stays is removed by the next run.
            let _ = fs::remove_file(file);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Parents {
    Make,
    MustExist,
}

fn make(dir: &Path, mode: u32, parents: Parents) -> Result<(), RunDirError> {
    if dir.is_dir() {
        return Ok(());
    }
    let recursive = matches!(parents, Parents::Make);
    match DirBuilder::new()
        .mode(mode)
        .recursive(recursive)
        .create(dir)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        result => result.map_err(place("create directory", dir)),
    }
}

fn bind(path: &Path) -> Result<UnixListener, RunDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(place("remove the old socket", path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(place("bind socket", path))?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))
        .map_err(place("set permissions of", path))?;
    Ok(listener)
}

fn place(action: &'static str, path: &Path) -> impl Fn(io::Error) -> RunDirError {
    move |source| RunDirError::Place {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Why a slot's directory cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunDirError {
    /// The slot runs already.
    #[error("{} is locked by {holder}: stop that first", path.display())]
    AlreadyRunning {
        /// The lock.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The host refuses.
    #[error(
        "Failed to {action} {}: the user that runs the slot must own it, or set `run_dir` in host.toml",
        path.display()
    )]
    Place {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn paths(dir: &Path) -> SlotPaths {
        let run_dir = dir.join("run/slot1");
        SlotPaths {
            state_dir: dir.to_owned(),
            slot_dir: dir.to_owned(),
            control_socket: run_dir.join("control.sock"),
            console_socket: run_dir.join("console.sock"),
            vsock_socket: run_dir.join("vsock.sock"),
            run_dir,
            cache_dir: dir.to_owned(),
        }
    }

    #[test]
    fn a_slot_runs_once() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let first = RunDir::claim(&paths).unwrap();
        match RunDir::claim(&paths).unwrap_err() {
            RunDirError::AlreadyRunning {
                holder: Holder::Process { pid, .. },
                ..
            } => {
                assert_eq!(pid, std::process::id());
            }
            error => panic!("{error}"),
        }
        drop(first);
        RunDir::claim(&paths).unwrap();
    }

    #[test]
    fn sockets_of_a_killed_process_are_replaced_and_ours_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let run = RunDir::claim(&paths).unwrap();
        drop(UnixListener::bind(&paths.control_socket).unwrap());
        assert!(paths.control_socket.exists());
        let sockets = run.bind().unwrap();
        UnixStream::connect(&paths.control_socket).unwrap();
        UnixStream::connect(&paths.console_socket).unwrap();
        let mode = fs::metadata(&paths.control_socket)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        drop((sockets, run));
        assert!(!paths.control_socket.exists() && !paths.console_socket.exists());
    }
}
