//! Windows of shares: read-only memory slots of KVM's, above guest RAM. It knows nothing of what is
//! mapped in them.
//!
//! They are no part of guest RAM: no device reaches into them, and no backend is given them.

use std::io;
use std::sync::Arc;

use devices::device::DeviceId;
use devices::fs::window::{CELL_BYTES, Window, WindowError};
use devices::registry::{DeviceConfig, HostHandles};
use kvm_ioctls::VmFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arch::layout;
use crate::config::VmConfig;
use crate::kvm;

/// The windows of a machine's shares.
#[derive(Debug, Default)]
pub(super) struct Windows(Vec<(DeviceId, Arc<Window>)>);

/// Why a share has no window.
#[derive(Debug, thiserror::Error)]
pub enum WindowsError {
    /// It cannot be reserved.
    #[error("Device {id}: no window for it")]
    Reserve {
        /// The share.
        id: DeviceId,
        /// Why.
        #[source]
        source: WindowError,
    },
    /// KVM does not show it.
    #[error("Device {id}: KVM does not show its window; set `dax = false`")]
    Show {
        /// The share.
        id: DeviceId,
        /// What the kernel said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// A share that is to have a window, and where.
struct Wanted<'a> {
    id: &'a DeviceId,
    address: u64,
    bytes: u64,
}

impl Windows {
    /// Reserves the windows that `config` asks for and shows them to the guest, empty. Before the
    /// machine has an irqchip, as with RAM.
    pub(super) fn create(vm: &VmFd, config: &VmConfig) -> Result<Self, WindowsError> {
        let mut windows = Vec::new();
        for (slot, wanted) in (0..).zip(wanted(config)) {
            let id = wanted.id.clone();
            let window = Window::reserve(wanted.bytes, wanted.address).map_err(|source| {
                WindowsError::Reserve {
                    id: id.clone(),
                    source,
                }
            })?;
            raise_limit(wanted.bytes / CELL_BYTES);
            kvm::show_window(vm, slot, wanted.address, &window.range()).map_err(|source| {
                WindowsError::Show {
                    id: id.clone(),
                    source,
                }
            })?;
            windows.push((id, Arc::new(window)));
        }
        Ok(Self(windows))
    }

    /// Adds them to what the shares are built from.
    pub(super) fn hand_over(&self, host: &mut HostHandles) {
        for (id, window) in &self.0 {
            host.add_window(id.clone(), Arc::clone(window));
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Window>> {
        self.0
            .iter()
            .map(|(_, window)| Arc::clone(window))
            .collect()
    }
}

/// Where the windows of a machine lie: address and size of each, by name of the share.
pub(crate) fn places(config: &VmConfig) -> impl Iterator<Item = (&DeviceId, u64, u64)> {
    wanted(config).map(|wanted| (wanted.id, wanted.address, wanted.bytes))
}

fn wanted(config: &VmConfig) -> impl Iterator<Item = Wanted<'_>> {
    let mut next = layout::windows_start(config.memory_mib << 20);
    config.devices.iter().filter_map(move |device| {
        let DeviceConfig::Fs(share) = device else {
            return None;
        };
        let bytes = share.window?;
        let address = next;
        next = next.saturating_add(bytes);
        Some(Wanted {
            id: &share.id,
            address,
            bytes,
        })
    })
}

/// Each mapping holds its file open.
fn raise_limit(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.current.map(|now| now.saturating_add(files));
    let current = match (wanted, limit.maximum) {
        (Some(wanted), Some(most)) => Some(wanted.min(most)),
        (wanted, _) => wanted,
    };
    let raised = Rlimit { current, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "Host refused more descriptors for the window of a share");
    }
}

/// Shows zeroes in `windows` where files of the host have become shorter. Returns in how many places.
///
/// # Errors
/// When the host refuses.
pub(crate) fn repair(windows: &[Arc<Window>]) -> io::Result<usize> {
    let mut repaired = 0_usize;
    for window in windows {
        repaired = repaired.saturating_add(window.repair()?);
    }
    Ok(repaired)
}
