//! The Linux zero page (`struct boot_params`, boot protocol 2.15): what the kernel finds at the
//! address in `rsi` when it is entered in 64-bit mode.

use linux_loader::bootparam::{
    E820_MAX_ENTRIES_ZEROPAGE, LOADED_HIGH, boot_e820_entry, boot_params, setup_header,
};

use super::bzimage::{MAGIC, Setup};
use super::load::{LoadContext, Range};
use crate::arch::layout::{self, RangeKind};

/// `type_of_loader` of a boot loader without a registered number.
const LOADER_UNDEFINED: u8 = 0xff;
/// `boot_flag`, the magic of a boot sector.
const BOOT_FLAG: u16 = 0xaa55;
/// Protocol version given when the kernel brought no header: the first with a 64-bit entry.
const DEFAULT_VERSION: u16 = 0x20c;
/// Alignment given when the kernel brought no header.
const DEFAULT_ALIGNMENT: u32 = 0x100_0000;
/// E820 type of RAM.
const E820_RAM: u32 = 1;
/// E820 type of memory to leave alone.
const E820_RESERVED: u32 = 2;

/// Builds the zero page. `cmdline` is where the command line lies and its length without the NUL.
pub(super) fn build(
    setup: Option<&Setup>,
    cmdline: Range,
    initrd: Option<Range>,
    machine: &LoadContext,
) -> boot_params {
    let mut page = boot_params {
        hdr: header(setup),
        acpi_rsdp_addr: machine.rsdp,
        ..boot_params::default()
    };
    (page.hdr.cmd_line_ptr, page.ext_cmd_line_ptr) = halves(cmdline.start);
    page.hdr.cmdline_size = low(cmdline.length);
    if let Some(initrd) = initrd {
        (page.hdr.ramdisk_image, page.ext_ramdisk_image) = halves(initrd.start);
        (page.hdr.ramdisk_size, page.ext_ramdisk_size) = halves(initrd.length);
    }
    let mut table = page.e820_table;
    let map = layout::memory_map(machine.ram_bytes);
    debug_assert!(map.len() <= E820_MAX_ENTRIES_ZEROPAGE);
    let mut entries = 0;
    for (slot, entry) in table.iter_mut().zip(&map) {
        *slot = boot_e820_entry {
            addr: entry.start,
            size: entry.length,
            r#type: match entry.kind {
                RangeKind::Ram => E820_RAM,
                RangeKind::Reserved => E820_RESERVED,
            },
        };
        entries += 1;
    }
    page.e820_table = table;
    page.e820_entries = entries;
    page
}

fn header(setup: Option<&Setup>) -> setup_header {
    let mut header = setup.map_or_else(
        || setup_header {
            version: DEFAULT_VERSION,
            kernel_alignment: DEFAULT_ALIGNMENT,
            ..setup_header::default()
        },
        Setup::header,
    );
    header.boot_flag = BOOT_FLAG;
    header.header = u32::from_le_bytes(*MAGIC);
    header.type_of_loader = LOADER_UNDEFINED;
    header.loadflags |= LOADED_HIGH;
    // Whatever the file had here points into nothing.
    header.setup_data = 0;
    header
}

/// Splits into the low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    (low(value), low(value >> 32))
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}
