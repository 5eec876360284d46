//! The guest-physical memory map of the x86_64 machine.
//!
//! | range | what lies there |
//! |---|---|
//! | `0x0000_0500` | GDT of the boot vCPU |
//! | `0x0000_6000` | PVH start info and its tables |
//! | `0x0000_7000` | zero page (`boot_params`) |
//! | `0x0000_9000` – `0x0000_F000` | identity page tables of the boot vCPU |
//! | `0x0002_0000` – `0x0003_0000` | kernel command line |
//! | `0x0009_F000` | end of low RAM |
//! | `0x0009_FC00` | pointer to the MP table, on a machine without ACPI |
//! | `0x000E_0000` – `0x0010_0000` | ACPI tables or the MP table, then SMBIOS from `0x000F_0000` |
//! | `0x0010_0000` … | RAM; an ELF kernel sits where it was linked, 16 MiB as a rule |
//! | `0xC000_0000` – `0x1_0000_0000` | hole: virtio-mmio, I/O APIC, local APIC, KVM's own pages |
//! | `0x1_0000_0000` … | the rest of RAM |
//! | the next GiB … | windows of shares |

/// Where the boot vCPU's GDT is written.
pub const GDT: u64 = 0x500;
/// Where the PVH start info is written when a kernel has only a PVH entry.
pub const PVH_START_INFO: u64 = 0x6000;
/// Where the Linux zero page (`struct boot_params`) is written.
pub const ZERO_PAGE: u64 = 0x7000;
/// Stack pointer of the boot vCPU at entry; grows down, unused by Linux.
pub const BOOT_STACK: u64 = 0x8ff0;
/// First of the identity-mapping page tables (PML4, PDPT, four page directories).
pub const PAGE_TABLES: u64 = 0x9000;
/// Where the kernel command line is written, NUL included.
pub const CMDLINE: u64 = 0x2_0000;
/// Most bytes the command line may take, NUL included. The kernel's own limit is lower.
pub const CMDLINE_CAPACITY: usize = 0x1_0000;
/// End of conventional RAM below 1 MiB.
pub const LOW_RAM_END: u64 = 0x9_f000;
/// Where the floating pointer to the MP table lies: in the last KiB of base memory, which Linux
/// scans for it. SMBIOS tables can take all of the other place it scans.
pub const MP_POINTER: u64 = 0x9_fc00;
/// Start of the reserved firmware area, where the RSDP lies.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = 0xf_0000;
/// Where the MP table lies: in the place of the ACPI tables, since it is never there beside them.
pub const MP_TABLE: u64 = ACPI_START;
/// Where the SMBIOS entry point lies.
pub const SMBIOS_START: u64 = 0xf_0000;
/// End of the firmware area.
pub const SMBIOS_END: u64 = 0x10_0000;
/// Start of extended RAM.
pub const HIGH_RAM_START: u64 = 0x10_0000;
/// Lowest address a relocatable kernel is loaded at.
pub const KERNEL_START: u64 = 0x100_0000;

/// Start of the hole in RAM below 4 GiB.
pub const HOLE_START: u64 = 0xc000_0000;
/// End of the hole; RAM beyond 3 GiB continues here.
pub const HOLE_END: u64 = 0x1_0000_0000;
/// First virtio-mmio register page.
pub const MMIO_START: u64 = 0xd000_0000;
/// Bytes between two virtio-mmio register pages.
pub const MMIO_STRIDE: u64 = 0x1000;
/// Base of the I/O APIC's registers.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Base of the local APICs' registers.
pub const LAPIC: u64 = 0xfee0_0000;
/// The page KVM uses as identity map on processors without unrestricted guest mode.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// The three pages KVM uses as task state segment.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// Smallest guest RAM, in MiB: a distribution kernel with its initrd does not start in less.
pub const MIN_RAM_MIB: u64 = 32;
/// Largest guest RAM, in MiB (1 TiB): what the identity-mapped set-up and 40 physical address bits hold.
pub const MAX_RAM_MIB: u64 = 1 << 20;

/// The ranges of guest RAM for a machine with `size` bytes, as `(start, length)`.
pub fn ram_ranges(size: u64) -> Vec<(u64, u64)> {
    if size <= HOLE_START {
        return vec![(0, size)];
    }
    vec![(0, HOLE_START), (HOLE_END, size - HOLE_START)]
}

/// What the first window of a share is aligned to: the largest page of the guest's kernel.
const WINDOW_ALIGNMENT: u64 = 1 << 30;

/// Where windows of shares begin on a machine with `size` bytes of RAM.
pub fn windows_start(size: u64) -> u64 {
    let (start, length) = ram_ranges(size).pop().unwrap_or((0, 0));
    start
        .saturating_add(length)
        .max(HOLE_END)
        .next_multiple_of(WINDOW_ALIGNMENT)
}

/// What an address range is, in the terms of the E820 map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// RAM the guest may use.
    Ram,
    /// Memory the guest must leave alone.
    Reserved,
}

/// One entry of the memory map handed to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Bytes in the range.
    pub length: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// The memory map of a machine with `size` bytes of RAM, in ascending order without overlaps.
pub fn memory_map(size: u64) -> Vec<MapEntry> {
    let entry = |start, end, kind| MapEntry {
        start,
        length: end - start,
        kind,
    };
    let mut map = vec![
        entry(0, LOW_RAM_END, RangeKind::Ram),
        entry(LOW_RAM_END, HIGH_RAM_START, RangeKind::Reserved),
        entry(HIGH_RAM_START, size.min(HOLE_START), RangeKind::Ram),
        entry(KVM_IDENTITY_MAP, HOLE_END, RangeKind::Reserved),
    ];
    if size > HOLE_START {
        map.push(entry(
            HOLE_END,
            HOLE_END + (size - HOLE_START),
            RangeKind::Ram,
        ));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ram_up_to_the_hole_is_one_range() {
        assert_eq!(ram_ranges(2048 * MIB), [(0, 2048 * MIB)]);
        assert_eq!(ram_ranges(3072 * MIB), [(0, 3072 * MIB)]);
    }

    #[test]
    fn ram_beyond_the_hole_continues_at_4_gib() {
        assert_eq!(
            ram_ranges(3584 * MIB),
            [(0, HOLE_START), (HOLE_END, 512 * MIB)]
        );
    }

    #[test]
    fn memory_map_is_sorted_and_holds_all_ram_but_the_first_mib_gap() {
        for mib in [256, 2048, 3072, 3584, 5120] {
            let map = memory_map(mib * MIB);
            assert!(
                map.windows(2)
                    .all(|w| w[0].start + w[0].length <= w[1].start)
            );
            let ram: u64 = map
                .iter()
                .filter(|e| e.kind == RangeKind::Ram)
                .map(|e| e.length)
                .sum();
            assert_eq!(ram, mib * MIB - (HIGH_RAM_START - LOW_RAM_END));
        }
    }
}
