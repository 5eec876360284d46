//! What every virtio device implements, and what it is given.

use std::fmt;
use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::interrupt::Interrupt;
use crate::state::{StateBlob, StateError};

/// Guest RAM as devices see it; cloning shares the mapping.
pub type Memory = vm_memory::GuestMemoryMmap<()>;

/// Name of a device inside its machine, such as `disk0` or `net0`; unique per machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// Names a device. Any text is a name; the configuration check rejects duplicates.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Virtio device types that slotvmm has (virtio 1.2 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// Network card, §5.1.
    Net = 1,
    /// Block device, §5.2.
    Blk = 2,
    /// Console, §5.3.
    Console = 3,
    /// Entropy source, §5.4.
    Rng = 4,
    /// Socket device, §5.10.
    Vsock = 19,
    /// File system device, §5.11.
    Fs = 26,
}

impl DeviceKind {
    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "virtio-net",
            Self::Blk => "virtio-blk",
            Self::Console => "virtio-console",
            Self::Rng => "virtio-rng",
            Self::Fs => "virtio-fs",
            Self::Vsock => "virtio-vsock",
        }
    }
}

/// The fixed facts of a device, known before the driver says anything.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    /// Device type.
    pub kind: DeviceKind,
    /// Every feature bit offered, `VIRTIO_F_VERSION_1` and `VIRTIO_F_EVENT_IDX` included.
    pub features: u64,
    /// Largest size of each queue, a power of two up to 32768; its length is the number of queues.
    pub queue_sizes: Vec<u16>,
    /// The region of shared memory that the device has, if any (virtio 1.2 §2.10). No device here
    /// has more.
    pub shared_memory: Option<SharedMemory>,
}

/// Memory that a device offers to its driver, outside of guest RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemory {
    /// Which region it is, in the terms of the device type.
    pub id: u8,
    /// Its first guest address.
    pub address: u64,
    /// Its size, in bytes.
    pub bytes: u64,
}

/// One virtqueue in use: the rings, and the eventfd that fires when the driver kicks it.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Index of the queue within the device.
    pub index: u16,
    /// The rings; addresses and size as the driver set them and the transport checked them.
    pub queue: Queue,
    /// Fires on a kick. Non-blocking.
    pub kick: EventFd,
}

/// Everything a device needs to run; owned by it until [`VirtioDevice::stop`] hands the queues back.
pub struct Activation {
    /// Guest RAM.
    pub memory: Memory,
    /// The way to interrupt the driver and to report faults.
    pub interrupt: Arc<dyn Interrupt>,
    /// Features the driver acknowledged: a subset of the offered ones.
    pub features: u64,
    /// The queues the driver enabled, in order of index. A queue it left disabled is absent.
    pub queues: Vec<ActiveQueue>,
}

impl Activation {
    /// Whether the driver acknowledged feature bit number `bit`.
    pub fn acked(&self, bit: u32) -> bool {
        self.features & (1 << bit) != 0
    }

    /// Takes the queues out, for a device that cannot do without any of its `N`.
    ///
    /// # Errors
    /// [`ActivateError::MissingQueues`] when the driver left one disabled.
    pub fn take_queues<const N: usize>(&mut self) -> Result<[ActiveQueue; N], ActivateError> {
        let queues = std::mem::take(&mut self.queues);
        let enabled = queues.len();
        let missing = ActivateError::MissingQueues { enabled, needed: N };
        queues.try_into().map_err(|_| missing)
    }
}

/// What a stopped device hands back.
#[derive(Debug, Default)]
pub struct Stopped {
    /// The queues of the [`Activation`], positions as the device left them.
    pub queues: Vec<ActiveQueue>,
}

/// Reads `data.len()` bytes at `offset` of a configuration space that lies in memory as `space`: what
/// [`VirtioDevice::read_config`] does for most devices.
pub fn read_space(space: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let fields = space.get(start..).unwrap_or_default();
    for (byte, field) in data
        .iter_mut()
        .zip(fields.iter().chain(std::iter::repeat(&0)))
    {
        *byte = *field;
    }
}

/// A virtio device behind any transport.
///
/// ```text
/// New ──activate──▶ Active ──stop──▶ Stopped ──activate──▶ Active …
/// ```
///
/// The transport calls `read_config`, `write_config` and `activate` from whichever vCPU thread
/// touched a register, one call at a time; `stop` also comes from the control thread. `stop`
/// serves reset, pause, snapshot and shutdown alike: when it returns, no I/O is in flight and no
/// thread of the device runs. A stopped device keeps its configuration, and accepts `activate`
/// again with the same or with fresh queues. `activate` processes whatever the queues already
/// hold: kicks that came while the device was stopped may be gone.
pub trait VirtioDevice: Send {
    /// The fixed facts of the device.
    fn spec(&self) -> &DeviceSpec;

    /// Reads `data.len()` bytes of device configuration space at `offset`. Bytes beyond its end
    /// read as zero. The transport keeps a copy for the driver and asks again only after
    /// `write_config`: any other change is given to
    /// [`Interrupt::signal_config`](crate::interrupt::Interrupt::signal_config).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes to device configuration space. Read-only fields and bytes beyond the end ignore it.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// Starts the device on the given queues.
    ///
    /// # Errors
    /// When the device is already active, the driver enabled too few queues, or the host refuses
    /// a thread or descriptor. The queues are lost then, and the transport marks the device
    /// `DEVICE_NEEDS_RESET`.
    fn activate(&mut self, run: Activation) -> Result<(), ActivateError>;

    /// Drains all I/O, ends the device's threads and returns its queues. Stopping a device that
    /// is not active returns no queues.
    ///
    /// # Errors
    /// When a worker of the device died; its queues are lost then.
    fn stop(&mut self) -> Result<Stopped, DeviceError>;

    /// The device's own state, without what the transport saves. Only while stopped.
    ///
    /// # Errors
    /// When the device is active, or cannot be saved at all.
    fn save(&self) -> Result<StateBlob, StateError>;
}

/// Why a device did not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// `activate` came twice without a `stop`.
    #[error("Device is already active")]
    AlreadyActive,
    /// The driver left a queue disabled that the device cannot do without.
    #[error("Driver enabled {enabled} queues, the device needs {needed}")]
    MissingQueues {
        /// Queues the driver enabled.
        enabled: usize,
        /// Queues the device needs.
        needed: usize,
    },
    /// The host refused something.
    #[error("Failed to {action}")]
    Host {
        /// What was being done, such as `set the tap's offloads`.
        action: &'static str,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a running device failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A worker thread panicked; its queues are lost.
    #[error("Worker {name} panicked")]
    WorkerPanicked {
        /// The thread's name.
        name: String,
    },
    /// A worker's event loop failed.
    #[error("Worker {name} failed in its event loop")]
    WorkerFailed {
        /// The thread's name.
        name: String,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}
