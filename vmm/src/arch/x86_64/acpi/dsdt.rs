//! The DSDT: devices a driver cannot find by itself. Order of devices = order of probing.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, ONE, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use devices::legacy::power;
use devices::registry::Position;

use super::{Inventory, OEM_ID, OEM_REVISION, OEM_TABLE_ID, VM_GENERATION_ID};
use crate::arch::{layout, ports};

const HEADER_LEN: u32 = 36;
/// Notification value of a pressed button, ACPI 6.5 §4.8.2.2.
const BUTTON_PRESSED: u8 = 0x80;

/// The table with its header.
pub(super) fn build(inventory: &Inventory) -> Vec<u8> {
    let mut body = Vec::new();
    for position in &inventory.virtio {
        virtio(*position, &mut body);
    }
    serial(&mut body);
    power_button(&mut body);
    generation_id(&mut body);
    let mut aml = Scope::raw(Path::new("_SB_"), body);
    Name::new(
        Path::new("_S5_"),
        &Package::new(vec![&power::S5_SLEEP_TYPE, &0u8, &0u8, &0u8]),
    )
    .to_aml_bytes(&mut aml);

    let mut table = Sdt::new(*b"DSDT", HEADER_LEN, 6, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&aml);
    table.as_slice().to_vec()
}

/// A virtio-mmio device: `LNRO0005`, as Linux' `virtio_mmio` driver matches it.
fn virtio(position: Position, out: &mut Vec<u8>) {
    let base = u32::try_from(ports::virtio_mmio(position)).unwrap_or_default();
    let length = u32::try_from(layout::MMIO_STRIDE).unwrap_or_default();
    let name = format!("VR{:02X}", position.0);
    Device::new(
        Path::new(&name),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0005"),
            &Name::new(Path::new("_UID"), &position.0),
            &Name::new(Path::new("_CCA"), &ONE),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, base, length),
                    &edge(ports::virtio_gsi(position)),
                ]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

/// The 16550 console.
fn serial(out: &mut Vec<u8>) {
    Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![
                    &IO::new(ports::SERIAL, ports::SERIAL, 1, 8),
                    &edge(ports::SERIAL_GSI),
                ]),
            ),
        ],
    )
    .to_aml_bytes(out);
}

/// The power button, and the generic event device (ACPI 6.5 §5.6.9) whose interrupt presses it.
fn power_button(out: &mut Vec<u8>) {
    Device::new(
        Path::new("PWRB"),
        vec![&Name::new(Path::new("_HID"), &EISAName::new("PNP0C0C"))],
    )
    .to_aml_bytes(out);
    Device::new(
        Path::new("GED_"),
        vec![
            &Name::new(Path::new("_HID"), &"ACPI0013"),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&edge(ports::GED_GSI)]),
            ),
            &Method::new(
                Path::new("_EVT"),
                1,
                true,
                vec![&Notify::new(&Path::new("\\_SB_.PWRB"), &BUTTON_PRESSED)],
            ),
        ],
    )
    .to_aml_bytes(out);
}

/// The VM generation ID, as Linux' `vmgenid` driver matches it.
fn generation_id(out: &mut Vec<u8>) {
    let low = u32::try_from(VM_GENERATION_ID & 0xffff_ffff).unwrap_or_default();
    let high = u32::try_from(VM_GENERATION_ID >> 32).unwrap_or_default();
    Device::new(
        Path::new("VGEN"),
        vec![
            &Name::new(Path::new("_HID"), &"VMGENCTR"),
            &Name::new(Path::new("_CID"), &"VM_Gen_Counter"),
            &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
            &Name::new(Path::new("ADDR"), &Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(out);
}

/// An edge-triggered, active-high interrupt of its own.
fn edge(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}
