//! The ACPI tables of a hardware-reduced machine (ACPI 6.5 §4.1): RSDP, XSDT, FADT, MADT, DSDT.
//!
//! There is no FACS, no SCI, no PM timer, no 8259 and no CMOS clock; power goes through the sleep
//! control and reset registers, events through a generic event device.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use devices::device::Memory;
use devices::legacy::power;
use devices::registry::Position;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use uuid::Uuid;

use super::{layout, ports};

const OEM_ID: [u8; 6] = *b"SLTVMM";
const OEM_TABLE_ID: [u8; 8] = *b"SLOTVMM ";
const OEM_REVISION: u32 = 1;

/// FADT `IAPC_BOOT_ARCH`: the VGA hardware is absent.
const NO_VGA: u16 = 1 << 2;
/// FADT `IAPC_BOOT_ARCH`: the CMOS clock is absent, so that no kernel polls for it.
const NO_CMOS_RTC: u16 = 1 << 5;

/// Where the RSDP lies.
pub const RSDP: u64 = layout::ACPI_START;

/// Where the 16 bytes of the VM generation ID lie.
pub const VM_GENERATION_ID: u64 = layout::ACPI_END - 0x1000;

/// What the tables depend on.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Tells this run of the machine from every other one; a guest that sees it change knows that
    /// it was restored or cloned.
    pub generation: Uuid,
    /// vCPUs of the machine; APIC ids count from 0.
    pub vcpus: u8,
    /// Positions of the virtio devices, ascending.
    pub virtio: Vec<Position>,
}

/// Why the tables were not written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// The tables outgrew their range.
    #[error("ACPI tables take {size} bytes, at most {room} fit")]
    TooLarge {
        /// Bytes needed.
        size: u64,
        /// Bytes there are.
        room: u64,
    },
    /// Guest RAM does not reach that far.
    #[error("Failed to write the ACPI tables at {:#x}", layout::ACPI_START)]
    Write(#[source] GuestMemoryError),
}

/// Writes the tables; the RSDP ends up at [`RSDP`].
///
/// # Errors
/// When they do not fit or guest RAM does not reach that far.
pub fn write(memory: &Memory, inventory: &Inventory) -> Result<(), AcpiError> {
    let bytes = build(inventory);
    let (size, room) = (bytes.len() as u64, VM_GENERATION_ID - layout::ACPI_START);
    if size > room {
        return Err(AcpiError::TooLarge { size, room });
    }
    let generation = inventory.generation.to_bytes_le();
    memory
        .write_slice(&bytes, GuestAddress(layout::ACPI_START))
        .and_then(|()| memory.write_slice(&generation, GuestAddress(VM_GENERATION_ID)))
        .map_err(AcpiError::Write)
}

/// All tables as they lie in memory from [`layout::ACPI_START`], the RSDP first.
pub fn build(inventory: &Inventory) -> Vec<u8> {
    let mut image = Image::default();
    image.bytes.resize(Rsdp::len(), 0);
    let dsdt = image.push(&dsdt::build(inventory));
    let fadt = image.push(&to_bytes(&fadt(dsdt)));
    let madt = image.push(&to_bytes(&madt(inventory.vcpus)));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = image.push(&to_bytes(&xsdt));
    let rsdp = to_bytes(&Rsdp::new(OEM_ID, xsdt));
    image.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    image.bytes
}

/// Tables laid out one after the other, each at a multiple of 16 bytes.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn push(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = layout::ACPI_START + self.bytes.len() as u64;
        self.bytes.extend(table);
        address
    }
}

fn to_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.sleep_control_reg = power_register(power::SLEEP);
    fadt.sleep_status_reg = power_register(power::SLEEP);
    fadt.reset_reg = power_register(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.finalize()
}

fn power_register(offset: u64) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(ports::POWER) + offset,
    )
}

fn madt(vcpus: u8) -> MADT {
    let lapic = u32::try_from(layout::LAPIC).unwrap_or_default();
    let ioapic = u32::try_from(layout::IOAPIC).unwrap_or_default();
    let mut madt = MADT::new(
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
        LocalInterruptController::Address(lapic),
    );
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, ioapic, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        Inventory {
            generation: Uuid::nil(),
            vcpus: 3,
            virtio: vec![Position(0), Position(1), Position(8)],
        }
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table(image: &[u8], address: u64) -> &[u8] {
        let at = usize::try_from(address - layout::ACPI_START).unwrap();
        let length = u32::from_le_bytes(image[at + 4..at + 8].try_into().unwrap()) as usize;
        &image[at..at + length]
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        let image = build(&inventory());
        assert_eq!(sum(&image[..20]), 0);
        assert_eq!(sum(&image[..36]), 0);
        let xsdt = table(&image, u64_at(&image, 24));
        let fadt = table(&image, u64_at(xsdt, 36));
        let madt = table(&image, u64_at(xsdt, 44));
        let dsdt = table(&image, u64_at(fadt, 140));
        for (table, signature) in [
            (xsdt, b"XSDT"),
            (fadt, b"FACP"),
            (madt, b"APIC"),
            (dsdt, b"DSDT"),
        ] {
            assert_eq!(&table[..4], signature);
            assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(signature));
        }
        // Three local APICs of 8 bytes and an I/O APIC of 12 behind the 44-byte header.
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
    }

    #[test]
    fn devices_are_announced_in_order_of_position() {
        let image = build(&inventory());
        let at = |name: &[u8]| image.windows(4).position(|w| w == name).unwrap();
        assert!(at(b"VR00") < at(b"VR01") && at(b"VR01") < at(b"VR08"));
    }

    #[test]
    fn a_full_machine_fits() {
        let all = Inventory {
            generation: Uuid::nil(),
            vcpus: 254,
            virtio: (0..16).map(Position).collect(),
        };
        assert!((build(&all).len() as u64) < VM_GENERATION_ID - layout::ACPI_START);
    }
}
