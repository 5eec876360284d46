//! What a machine is made of: fully resolved, no defaults left to guess, no host handle in it.

use devices::registry::DeviceConfig;
use uuid::Uuid;

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
    /// Kernel, initrd and parameters.
    pub boot: BootConfig,
    /// How the guest finds its virtio devices.
    pub discovery: Discovery,
    /// Devices, in any order: each says its own position.
    pub devices: Vec<DeviceConfig>,
}

impl VmConfig {
    /// What guest RAM has to be: shared only when another process serves a device.
    pub fn backing(&self) -> Backing {
        if self.devices.iter().any(DeviceConfig::shares_memory) {
            Backing::Shared
        } else {
            Backing::Private
        }
    }
}

/// Most vCPUs of a machine: APIC ids stay below 255, the limit of xAPIC.
pub const MAX_VCPUS: u8 = 254;

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
