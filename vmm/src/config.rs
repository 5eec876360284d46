//! What a machine is made of: fully resolved, no defaults left to guess, no host handle in it.

use std::fmt;

use devices::registry::DeviceConfig;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::boot::BootConfig;
use crate::memory::Backing;

/// A virtual machine, as `Vm::boot` takes it. Checked by [`VmConfig::validate`](crate::validate).
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The slot's name; thread names and SMBIOS carry it.
    pub name: String,
    /// vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Guest RAM in MiB, [`MIN_RAM_MIB`](crate::memory::layout::MIN_RAM_MIB) to
    /// [`MAX_RAM_MIB`](crate::memory::layout::MAX_RAM_MIB).
    pub memory_mib: u64,
    /// Identity of the machine: SMBIOS system UUID.
    pub uuid: Uuid,
    /// SMBIOS type 11 strings, in order.
    pub oem_strings: Vec<OemString>,
    /// Kernel, initrd and parameters.
    pub boot: BootConfig,
    /// How the guest finds its virtio devices.
    pub discovery: Discovery,
    /// How the guest reads the registers of its virtio devices.
    pub registers: RegisterReads,
    /// Devices, in any order: each says its own position.
    pub devices: Vec<DeviceConfig>,
}

impl VmConfig {
    /// The guest's address on its socket device, when it has one.
    pub fn cid(&self) -> Option<u32> {
        self.devices.iter().find_map(|device| match device {
            DeviceConfig::Vsock(vsock) => Some(vsock.cid.get()),
            _ => None,
        })
    }

    /// What guest RAM has to be: shared only when another process serves a device.
    pub fn backing(&self) -> Backing {
        if self.devices.iter().any(DeviceConfig::shares_memory) {
            Backing::Shared
        } else {
            Backing::Private
        }
    }
}

/// A string of the SMBIOS tables. It may hold a secret: it is not printed, and erased when dropped.
/// The guest keeps it in its memory for as long as it runs.
#[derive(Clone)]
pub struct OemString(Zeroizing<String>);

impl OemString {
    /// A string with this text.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OemString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OemString({} bytes)", self.0.len())
    }
}

/// Most vCPUs of a machine: APIC ids stay below 255, the limit of xAPIC.
pub const MAX_VCPUS: u8 = 254;

/// How a guest reads the registers of its virtio-mmio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RegisterReads {
    /// From memory, where KVM can show it some that it cannot write to; else as `Exits`.
    #[default]
    Memory,
    /// Each read leaves the guest: slower, for comparison.
    Exits,
}

/// How the guest is told where its virtio-mmio devices are. Never both at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discovery {
    /// `LNRO0005` devices in the DSDT: works with every distribution kernel.
    #[default]
    Acpi,
    /// `virtio_mmio.device=` parameters on a machine that has an MP table instead of ACPI, for
    /// kernels built with `VIRTIO_MMIO_CMDLINE_DEVICES` and `X86_MPPARSE`. It has no power button.
    Cmdline,
}
