//! From configuration to device: one match arm per kind of device, and nothing else knows them all.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use crate::blk::{Blk, BlkConfig};
use crate::console::{Console, ConsoleConfig, ConsoleHost};
use crate::device::{DeviceId, VirtioDevice};
use crate::disk::RawDisk;
use crate::fs::window::Window;
use crate::fs::{Fs, FsConfig, FsHost};
use crate::net::{Net, NetConfig, NetHost};
use crate::rng::{Rng, RngConfig};
use crate::state::{StateBlob, StateError};
use crate::vhost_user::{Connect, VhostUserError};
use crate::vsock::{Vsock, VsockConfig, VsockHost};

/// Place of a device on the machine: its register page and interrupt, and its turn in the guest's
/// probe order. 0 to [`MAX_POSITION`]; unique per machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u8);

/// Highest position: every device has an I/O APIC pin of its own.
pub const MAX_POSITION: u8 = 15;

/// One virtio device of a machine.
#[derive(Debug, Clone)]
pub enum DeviceConfig {
    /// A disk.
    Blk(BlkConfig),
    /// A network card.
    Net(NetConfig),
    /// An entropy source.
    Rng(RngConfig),
    /// A shared directory.
    Fs(FsConfig),
    /// Stream sockets between guest and host.
    Vsock(VsockConfig),
    /// A console.
    Console(ConsoleConfig),
}

impl DeviceConfig {
    /// Whether another process serves the device's queues, and has to share guest RAM for that.
    pub fn shares_memory(&self) -> bool {
        match self {
            Self::Fs(_) => true,
            Self::Blk(_) | Self::Net(_) | Self::Rng(_) | Self::Vsock(_) | Self::Console(_) => false,
        }
    }

    /// The device's name.
    pub fn id(&self) -> &DeviceId {
        match self {
            Self::Blk(config) => &config.id,
            Self::Net(config) => &config.id,
            Self::Rng(config) => &config.id,
            Self::Fs(config) => &config.id,
            Self::Vsock(config) => &config.id,
            Self::Console(config) => &config.id,
        }
    }

    /// The device's place.
    pub fn position(&self) -> Position {
        match self {
            Self::Blk(config) => config.position,
            Self::Net(config) => config.position,
            Self::Rng(config) => config.position,
            Self::Fs(config) => config.position,
            Self::Vsock(config) => config.position,
            Self::Console(config) => config.position,
        }
    }

    /// Builds the device, taking its handles out of `host`. `saved` is its state from a snapshot,
    /// or nothing at boot.
    ///
    /// # Errors
    /// When a handle is missing or unfit, or the saved state is not accepted.
    pub fn build(
        &self,
        host: &mut HostHandles,
        saved: Option<StateBlob>,
    ) -> Result<Box<dyn VirtioDevice>, BuildError> {
        Ok(match self {
            Self::Blk(config) => {
                let disk = Blk::build(config, host.take_disk(&config.id)?, saved)?;
                host.images.insert(config.id.clone(), disk.image());
                Box::new(disk)
            }
            Self::Net(config) => Box::new(Net::build(config, host.take_net(&config.id)?, saved)?),
            Self::Rng(config) => Box::new(Rng::build(config, saved)?),
            Self::Fs(config) => Box::new(Fs::build(config, host.take_share(&config.id)?, saved)?),
            Self::Vsock(config) => {
                Box::new(Vsock::build(config, host.take_vsock(&config.id)?, saved)?)
            }
            Self::Console(config) => Box::new(Console::build(
                config,
                host.take_console(&config.id)?,
                saved,
            )?),
        })
    }
}

/// The open host resources of a machine, by the device they belong to. Devices open nothing by
/// name.
#[derive(Debug, Default)]
pub struct HostHandles {
    disks: BTreeMap<DeviceId, File>,
    images: BTreeMap<DeviceId, Arc<RawDisk>>,
    nets: BTreeMap<DeviceId, NetHost>,
    backends: BTreeMap<DeviceId, Box<dyn Connect>>,
    windows: BTreeMap<DeviceId, Arc<Window>>,
    vsocks: BTreeMap<DeviceId, VsockHost>,
    consoles: BTreeMap<DeviceId, ConsoleHost>,
}

impl HostHandles {
    /// Adds the open image of a disk.
    pub fn add_disk(&mut self, id: DeviceId, file: File) {
        self.disks.insert(id, file);
    }

    /// Adds the host's end of a network card: the open queues of a tap, one per queue pair.
    pub fn add_net(&mut self, id: DeviceId, host: impl Into<NetHost>) {
        self.nets.insert(id, host.into());
    }

    /// Adds the way to the backend of a shared directory.
    pub fn add_fs(&mut self, id: DeviceId, backend: Box<dyn Connect>) {
        self.backends.insert(id, backend);
    }

    /// Adds the window of a shared directory.
    pub fn add_window(&mut self, id: DeviceId, window: Arc<Window>) {
        self.windows.insert(id, window);
    }

    /// Adds the host's side of a socket device.
    pub fn add_vsock(&mut self, id: DeviceId, host: VsockHost) {
        self.vsocks.insert(id, host);
    }

    /// Adds the host's side of a console.
    pub fn add_console(&mut self, id: DeviceId, host: ConsoleHost) {
        self.consoles.insert(id, host);
    }

    /// The images of the disks that were built.
    pub fn into_images(self) -> BTreeMap<DeviceId, Arc<RawDisk>> {
        self.images
    }

    fn take_disk(&mut self, id: &DeviceId) -> Result<File, BuildError> {
        self.disks.remove(id).ok_or_else(|| BuildError::NoHandle {
            id: id.clone(),
            handle: "disk image",
        })
    }

    fn take_net(&mut self, id: &DeviceId) -> Result<NetHost, BuildError> {
        self.nets.remove(id).ok_or_else(|| BuildError::NoHandle {
            id: id.clone(),
            handle: "tap",
        })
    }

    fn take_share(&mut self, id: &DeviceId) -> Result<FsHost, BuildError> {
        let backend = self.backends.remove(id);
        let backend = backend.ok_or_else(|| BuildError::NoHandle {
            id: id.clone(),
            handle: "backend",
        })?;
        Ok(FsHost {
            backend,
            window: self.windows.remove(id),
        })
    }

    fn take_console(&mut self, id: &DeviceId) -> Result<ConsoleHost, BuildError> {
        self.consoles
            .remove(id)
            .ok_or_else(|| BuildError::NoHandle {
                id: id.clone(),
                handle: "side of the host",
            })
    }

    fn take_vsock(&mut self, id: &DeviceId) -> Result<VsockHost, BuildError> {
        self.vsocks.remove(id).ok_or_else(|| BuildError::NoHandle {
            id: id.clone(),
            handle: "side of the host",
        })
    }
}

/// Why a device was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The caller did not open what the device needs.
    #[error("Device {id}: no {handle} was opened for it")]
    NoHandle {
        /// The device.
        id: DeviceId,
        /// What is missing.
        handle: &'static str,
    },
    /// A handle is open but unfit.
    #[error("Device {id}: {reason}")]
    Unfit {
        /// The device.
        id: DeviceId,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// The host refused something.
    #[error("Device {id}: failed to {action}")]
    Host {
        /// The device.
        id: DeviceId,
        /// What was being done.
        action: &'static str,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
    /// The process that is to serve the device's queues cannot.
    #[error("Device {id}: its backend is of no use")]
    Backend {
        /// The device.
        id: DeviceId,
        /// Why.
        #[source]
        source: VhostUserError,
    },
    /// The saved state was not accepted.
    #[error("Device {id}: saved state was not accepted")]
    State {
        /// The device.
        id: DeviceId,
        /// Why.
        #[source]
        source: StateError,
    },
}
