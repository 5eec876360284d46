//! What a machine will look like, worked out without building it.

use devices::device::DeviceId;
use devices::registry::DeviceConfig;
use serde::Serialize;

use super::windows;
use crate::arch::layout::{self, RangeKind};
use crate::arch::{acpi, ports};
use crate::config::{Discovery, VmConfig};

/// The machine has no PCI: a kernel that is not told looks for it, and complains on the console
/// even when it is to be quiet.
const NO_PCI: &str = "pci=off";

/// The layout of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachinePlan {
    /// Guest-physical memory, as the guest is told.
    pub memory: Vec<MemoryRange>,
    /// Where shares have files mapped, above RAM.
    pub windows: Vec<PlannedWindow>,
    /// Devices in order of probing.
    pub devices: Vec<PlannedDevice>,
    /// Kernel parameters the machine adds.
    pub extra_params: Vec<String>,
}

/// One range of guest-physical memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// `ram` or `reserved`.
    pub kind: &'static str,
}

/// The window of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedWindow {
    /// Name of the share within the machine.
    pub device: String,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedDevice {
    /// Name within the machine.
    pub id: String,
    /// Kind, such as `virtio-blk`.
    pub kind: &'static str,
    /// Position of a virtio device.
    pub position: Option<u8>,
    /// Where its registers are: `mmio 0x…` or `port 0x…`.
    pub registers: String,
    /// I/O APIC pin.
    pub gsi: Option<u32>,
}

/// The layout of the machine that `config` describes.
pub fn plan(config: &VmConfig) -> MachinePlan {
    let memory = layout::memory_map(config.memory_mib << 20)
        .into_iter()
        .map(|entry| MemoryRange {
            start: entry.start,
            end: entry.start + entry.length - 1,
            kind: match entry.kind {
                RangeKind::Ram => "ram",
                RangeKind::Reserved => "reserved",
            },
        })
        .collect();
    let window = |(id, start, bytes): (&DeviceId, u64, u64)| PlannedWindow {
        device: id.to_string(),
        start,
        end: start.saturating_add(bytes).saturating_sub(1),
    };
    let windows = windows::places(config).map(window).collect();
    let mut virtio: Vec<&DeviceConfig> = config.devices.iter().collect();
    virtio.sort_by_key(|device| device.position());
    let mut devices: Vec<PlannedDevice> = virtio.into_iter().map(planned).collect();
    let serial = legacy("serial", "16550", ports::SERIAL, Some(ports::SERIAL_GSI));
    let power = legacy("power", "acpi-power", ports::POWER, Some(ports::GED_GSI));
    devices.push(serial);
    devices.extend((config.discovery == Discovery::Acpi).then_some(power));
    devices.push(legacy("reset", "i8042", ports::I8042, None));
    MachinePlan {
        memory,
        windows,
        devices,
        extra_params: extra_params(config),
    }
}

/// Where the guest finds the ACPI tables; 0 when there are none.
pub fn rsdp(config: &VmConfig) -> u64 {
    match config.discovery {
        Discovery::Acpi => acpi::RSDP,
        Discovery::Cmdline => 0,
    }
}

/// Kernel parameters that describe the machine: what it lacks, and its devices when ACPI does not
/// announce them.
pub fn extra_params(config: &VmConfig) -> Vec<String> {
    let mut params = vec![NO_PCI.to_owned()];
    if config.discovery == Discovery::Cmdline {
        let mut positions: Vec<_> = config.devices.iter().map(DeviceConfig::position).collect();
        positions.sort();
        params.extend(positions.into_iter().map(|position| {
            format!(
                "virtio_mmio.device=4K@{:#x}:{}",
                ports::virtio_mmio(position),
                ports::virtio_gsi(position)
            )
        }));
    }
    params
}

fn planned(device: &DeviceConfig) -> PlannedDevice {
    let position = device.position();
    PlannedDevice {
        id: device.id().to_string(),
        kind: match device {
            DeviceConfig::Blk(_) => "virtio-blk",
            DeviceConfig::Net(_) => "virtio-net",
            DeviceConfig::Rng(_) => "virtio-rng",
            DeviceConfig::Console(_) => "virtio-console",
            DeviceConfig::Fs(_) => "virtio-fs",
            DeviceConfig::Vsock(_) => "virtio-vsock",
        },
        position: Some(position.0),
        registers: format!("mmio {:#x}", ports::virtio_mmio(position)),
        gsi: Some(ports::virtio_gsi(position)),
    }
}

fn legacy(id: &str, kind: &'static str, port: u16, gsi: Option<u32>) -> PlannedDevice {
    PlannedDevice {
        id: id.to_owned(),
        kind,
        position: None,
        registers: format!("port {port:#x}"),
        gsi,
    }
}

#[cfg(test)]
mod tests {
    use devices::device::DeviceId;
    use devices::registry::Position;
    use devices::rng::RngConfig;
    use uuid::Uuid;

    use super::*;
    use crate::boot::{BootConfig, BootSource};
    use crate::config::RegisterReads;

    fn config(discovery: Discovery) -> VmConfig {
        let rng = |position| {
            DeviceConfig::Rng(RngConfig {
                id: DeviceId::new(format!("rng{position}")),
                position: Position(position),
            })
        };
        VmConfig {
            name: "slot1".to_owned(),
            vcpus: 1,
            memory_mib: 256,
            uuid: Uuid::nil(),
            oem_strings: Vec::new(),
            boot: BootConfig {
                source: BootSource::Files {
                    kernel: "/kernel".into(),
                    initrd: None,
                },
                params: Vec::new(),
                defaults: Vec::new(),
                init: None,
                cache_dir: None,
            },
            discovery,
            registers: RegisterReads::default(),
            devices: vec![rng(12), rng(0)],
        }
    }

    fn has_power(plan: &MachinePlan) -> bool {
        plan.devices.iter().any(|device| device.id == "power")
    }

    #[test]
    fn acpi_announces_everything_and_parameters_nothing() {
        let config = config(Discovery::Acpi);
        let plan = plan(&config);
        assert_eq!(plan.extra_params, ["pci=off"]);
        assert!(has_power(&plan));
        assert_eq!(rsdp(&config), acpi::RSDP);
    }

    #[test]
    fn without_acpi_parameters_announce_devices_in_order_and_there_is_no_power_button() {
        let config = config(Discovery::Cmdline);
        let plan = plan(&config);
        assert_eq!(
            plan.extra_params,
            [
                "pci=off",
                "virtio_mmio.device=4K@0xd0000000:6",
                "virtio_mmio.device=4K@0xd000c000:8"
            ]
        );
        assert!(!has_power(&plan));
        assert_eq!(rsdp(&config), 0);
    }
}
