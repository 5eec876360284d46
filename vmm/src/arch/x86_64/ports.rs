//! I/O ports and interrupt lines of the machine.

use devices::registry::Position;

use super::layout::{MMIO_START, MMIO_STRIDE};

/// First of the eight ports of the 16550 serial console.
pub const SERIAL: u16 = 0x3f8;
/// First port of the CMOS clock, which the machine does not have.
pub const CLOCK: u16 = 0x70;
/// First port of the keyboard controller, which serves reset only.
pub const I8042: u16 = 0x60;
/// First port of the ACPI power registers: sleep, then reset.
pub const POWER: u16 = 0x600;

/// I/O APIC pin of the serial console.
pub const SERIAL_GSI: u32 = 4;
/// I/O APIC pin of the generic event device: the power button.
pub const GED_GSI: u32 = 5;
/// I/O APIC pin of the virtio device at position 0; the others follow.
pub const VIRTIO_GSI: u32 = 8;

/// The I/O APIC pin of the virtio device at `position`.
pub fn virtio_gsi(position: Position) -> u32 {
    VIRTIO_GSI + u32::from(position.0)
}

/// The guest-physical address of the register page of the virtio device at `position`.
pub fn virtio_mmio(position: Position) -> u64 {
    MMIO_START + MMIO_STRIDE * u64::from(position.0)
}
