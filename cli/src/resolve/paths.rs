//! Directories of the host, and a slot's places in them.

use std::path::PathBuf;

use hostnet::slot::SlotName;
use serde::Serialize;
use store::{Layout, Store};

use crate::config::{AbsolutePath, HostFile, Problem, Setting};

/// Longest path of a Unix socket in bytes: `sun_path` less the closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The directories that slotvmm uses.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Images of slots, one directory each.
    pub(crate) state_dir: PathBuf,
    /// Which slot has which state.
    pub(crate) assignments: PathBuf,
    /// Sockets of running slots, one directory each.
    pub(crate) run_dir: PathBuf,
    /// Unpacked kernels.
    pub(crate) cache_dir: PathBuf,
    /// What was done to the network. Beside the sockets rather than among them: who owns those
    /// must not decide what is undone with privileges.
    pub(crate) net_dir: PathBuf,
}

impl Paths {
    /// What the host file says, else the usual places.
    pub(crate) fn of(host: &HostFile) -> Self {
        let dir = |setting: &Setting<AbsolutePath>, default: &str| {
            setting
                .as_ref()
                .map_or_else(|| PathBuf::from(default), |set| set.value.0.clone())
        };
        let run_dir = dir(&host.run_dir, "/run/slotvmm");
        let mut net_dir = run_dir.clone().into_os_string();
        net_dir.push("-net");
        Self {
            net_dir: dir(&host.net.state_dir, &net_dir.to_string_lossy()),
            state_dir: dir(&host.state_dir, "/var/lib/microvms"),
            assignments: dir(&host.assignments, "/etc/vm-state-assignments.json"),
            run_dir,
            cache_dir: dir(&host.cache_dir, "/var/cache/slotvmm"),
        }
    }

    /// The states of slots.
    pub(crate) fn store(&self) -> Store {
        Store::new(Layout {
            root: self.state_dir.clone(),
            assignments: self.assignments.clone(),
        })
    }

    /// Socket that controls a running slot.
    pub(crate) fn control_socket(&self, name: &SlotName) -> PathBuf {
        self.run_dir.join(name.as_str()).join("control.sock")
    }

    /// Socket of a running slot's serial console.
    pub(crate) fn console_socket(&self, name: &SlotName) -> PathBuf {
        self.run_dir.join(name.as_str()).join("console.sock")
    }

    /// The places of one slot; a socket path that no socket can have is a problem.
    pub(crate) fn slot(&self, name: &SlotName, problems: &mut Vec<Problem>) -> SlotPaths {
        let paths = SlotPaths {
            state_dir: self.state_dir.clone(),
            slot_dir: self.state_dir.join(name.as_str()),
            run_dir: self.run_dir.join(name.as_str()),
            control_socket: self.control_socket(name),
            console_socket: self.console_socket(name),
            vsock_socket: self.run_dir.join(name.as_str()).join("vsock.sock"),
            cache_dir: self.cache_dir.clone(),
        };
        let length = paths.control_socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            problems.push(Problem {
                at: None,
                key: "run_dir".to_owned(),
                message: format!(
                    "socket path {} has {length} bytes, a socket has room for {MAX_SOCKET_PATH}: \
                     choose a shorter directory",
                    paths.control_socket.display()
                ),
            });
        }
        paths
    }
}

/// A slot's places on the host.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SlotPaths {
    /// Directory of all slots' images; must exist.
    pub(crate) state_dir: PathBuf,
    /// Directory of this slot's image; made when needed.
    pub(crate) slot_dir: PathBuf,
    /// Directory of its sockets.
    pub(crate) run_dir: PathBuf,
    /// Socket that controls it.
    pub(crate) control_socket: PathBuf,
    /// Socket of its serial console.
    pub(crate) console_socket: PathBuf,
    /// Socket that leads to ports of the guest.
    pub(crate) vsock_socket: PathBuf,
    /// Unpacked kernels, shared by all slots.
    pub(crate) cache_dir: PathBuf,
}
