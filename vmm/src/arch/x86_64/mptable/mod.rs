//! The MP table (Intel MultiProcessor Specification 1.4): processors, I/O APIC and interrupt lines
//! of a machine without ACPI.
//!
//! With it, and only without ACPI, Linux numbers an interrupt line after its I/O APIC pin, which
//! is what makes the numbers in `virtio_mmio.device=` parameters mean something. Linux reads it
//! when it is built with `X86_MPPARSE`.

use devices::device::Memory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;

/// Version 1.4 of the specification.
const SPEC_REVISION: u8 = 4;
/// Bytes of the floating pointer structure, §4.1.
const POINTER_LEN: usize = 16;
/// Where a floating pointer structure has its checksum.
const POINTER_CHECKSUM: usize = 10;
/// Bytes of the configuration table header, §4.2.
const HEADER_LEN: usize = 44;
/// Where a configuration table has its checksum.
const TABLE_CHECKSUM: usize = 7;

/// The one bus all lines belong to: ISA, whose interrupts are edge-triggered and active high.
const BUS: u8 = 0;
/// Version that integrated local APICs report.
const LAPIC_VERSION: u8 = 0x14;
/// Version that the I/O APIC reports.
const IOAPIC_VERSION: u8 = 0x11;
/// Stands for every local APIC where one is named as destination, §4.3.5.
const ALL_LAPICS: u8 = 0xff;

/// First byte of an entry, §4.3.
mod entry {
    pub(super) const PROCESSOR: u8 = 0;
    pub(super) const BUS: u8 = 1;
    pub(super) const IOAPIC: u8 = 2;
    pub(super) const IO_INTERRUPT: u8 = 3;
    pub(super) const LOCAL_INTERRUPT: u8 = 4;
}

/// Processor and I/O APIC flag: it is usable.
const ENABLED: u8 = 1;
/// Processor flag: the one that boots.
const BOOTSTRAP: u8 = 1 << 1;

/// Interrupt type: a vectored interrupt.
const INT: u8 = 0;
/// Interrupt type: non-maskable.
const NMI: u8 = 1;
/// Interrupt type: from an 8259.
const EXT_INT: u8 = 3;
/// Interrupt flags: polarity and trigger mode as is usual on the bus.
const AS_BUS: u16 = 0;
/// Interrupt flags: active high, edge-triggered.
const ACTIVE_HIGH_EDGE: u16 = 0b01 | 0b01 << 2;

/// What the table depends on.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// vCPUs of the machine; APIC ids count from 0.
    pub vcpus: u8,
    /// I/O APIC pins that something is connected to, below
    /// [`PINS`](devices::legacy::ioapic::PINS).
    pub pins: Vec<u32>,
}

/// Why the table was not written.
#[derive(Debug, thiserror::Error)]
pub enum MpTableError {
    /// The table outgrew its range.
    #[error("The MP table takes {size} bytes, at most {room} fit")]
    TooLarge {
        /// Bytes needed.
        size: u64,
        /// Bytes there are.
        room: u64,
    },
    /// Guest RAM does not reach that far.
    #[error("Failed to write the MP table at {address:#x}")]
    Write {
        /// Where it was to go.
        address: u64,
        /// Why it did not.
        #[source]
        source: GuestMemoryError,
    },
}

/// Writes the floating pointer to [`layout::MP_POINTER`] and the table to [`layout::MP_TABLE`].
///
/// # Errors
/// When the table does not fit or guest RAM does not reach that far.
pub fn write(memory: &Memory, inventory: &Inventory) -> Result<(), MpTableError> {
    let table = table(inventory);
    let (size, room) = (table.len() as u64, layout::ACPI_END - layout::MP_TABLE);
    if size > room {
        return Err(MpTableError::TooLarge { size, room });
    }
    for (bytes, address) in [
        (table.as_slice(), layout::MP_TABLE),
        (&pointer(), layout::MP_POINTER),
    ] {
        memory
            .write_slice(bytes, GuestAddress(address))
            .map_err(|source| MpTableError::Write { address, source })?;
    }
    Ok(())
}

/// The structure that guests scan memory for.
fn pointer() -> [u8; POINTER_LEN] {
    let table = u32::try_from(layout::MP_TABLE).unwrap_or_default();
    let mut pointer = [0; POINTER_LEN];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&table.to_le_bytes());
    // Its length in units of 16 bytes; that all features are zero says that there is a table.
    pointer[8..10].copy_from_slice(&[1, SPEC_REVISION]);
    pointer[POINTER_CHECKSUM] = checksum(&pointer);
    pointer
}

/// The configuration table: a header, then entries in ascending order of their types.
fn table(inventory: &Inventory) -> Vec<u8> {
    let entries = entries(inventory);
    let length = HEADER_LEN + entries.iter().map(Vec::len).sum::<usize>();
    let lapic = u32::try_from(layout::LAPIC).unwrap_or_default();
    let mut table = b"PCMP".to_vec();
    table.extend(u16::try_from(length).unwrap_or_default().to_le_bytes());
    table.extend([SPEC_REVISION, 0]);
    table.extend(b"SLOTVMM MACHINE     ");
    // No OEM table.
    table.extend([0; 6]);
    let count = u16::try_from(entries.len()).unwrap_or_default();
    table.extend(count.to_le_bytes());
    table.extend(lapic.to_le_bytes());
    // No extended table.
    table.extend([0; 4]);
    table.extend(entries.into_iter().flatten());
    table[TABLE_CHECKSUM] = checksum(&table);
    table
}

fn entries(inventory: &Inventory) -> Vec<Vec<u8>> {
    // The first id that no local APIC has.
    let ioapic = inventory.vcpus;
    let mut entries: Vec<Vec<u8>> = (0..inventory.vcpus).map(processor).collect();
    entries.push([&[entry::BUS, BUS], b"ISA   ".as_slice()].concat());
    entries.push(io_apic(ioapic));
    // Entries name pins by a byte; those of the I/O APIC are fewer.
    let pins = inventory.pins.iter();
    let pins = pins.filter_map(|pin| u8::try_from(*pin).ok());
    entries.extend(pins.map(|pin| {
        let line = Line {
            kind: INT,
            flags: ACTIVE_HIGH_EDGE,
            irq: pin,
        };
        line.into(entry::IO_INTERRUPT, ioapic, pin)
    }));
    for (input, kind) in [(0, EXT_INT), (1, NMI)] {
        let line = Line {
            kind,
            flags: AS_BUS,
            irq: 0,
        };
        entries.push(line.into(entry::LOCAL_INTERRUPT, ALL_LAPICS, input));
    }
    entries
}

/// §4.3.1. Guests learn of the processor's model and features from the processor itself.
fn processor(id: u8) -> Vec<u8> {
    let flags = if id == 0 {
        ENABLED | BOOTSTRAP
    } else {
        ENABLED
    };
    let mut bytes = vec![entry::PROCESSOR, id, LAPIC_VERSION, flags];
    bytes.resize(20, 0);
    bytes
}

/// §4.3.3.
fn io_apic(id: u8) -> Vec<u8> {
    let address = u32::try_from(layout::IOAPIC).unwrap_or_default();
    let mut bytes = vec![entry::IOAPIC, id, IOAPIC_VERSION, ENABLED];
    bytes.extend(address.to_le_bytes());
    bytes
}

/// An interrupt line of the bus.
struct Line {
    kind: u8,
    flags: u16,
    irq: u8,
}

impl Line {
    /// The entry that leads the line into `input` of the APIC `apic`, §4.3.4 and §4.3.5.
    fn into(self, entry: u8, apic: u8, input: u8) -> Vec<u8> {
        let [low, high] = self.flags.to_le_bytes();
        vec![entry, self.kind, low, high, BUS, self.irq, apic, input]
    }
}

/// What makes `bytes` sum to zero, in place of a zero byte.
fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    0u8.wrapping_sub(sum)
}

#[cfg(test)]
mod tests;
