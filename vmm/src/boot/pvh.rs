//! PVH start info (Xen `arch-x86/hvm/start_info.h`, version 1): what a kernel entered through its
//! PVH note finds at the address in `ebx`.

use devices::device::Memory;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

use super::load::{LoadContext, Range};
use crate::arch::layout::{self, RangeKind};

/// Magic of the start info.
const MAGIC: u32 = 0x336e_c578;
/// Where the module list lies.
const MODULES: u64 = layout::PVH_START_INFO + 0x40;
/// Where the memory map lies.
const MEMORY_MAP: u64 = layout::PVH_START_INFO + 0x80;

/// Writes the start info and the tables it points at; returns its address.
pub(super) fn write(
    memory: &Memory,
    cmdline: Range,
    initrd: Option<Range>,
    machine: &LoadContext,
) -> Result<u64, vm_memory::GuestMemoryError> {
    let mut at = MEMORY_MAP;
    let mut entries = 0;
    for entry in layout::memory_map(machine.ram_bytes) {
        let kind = match entry.kind {
            RangeKind::Ram => 1,
            RangeKind::Reserved => 2,
        };
        let record = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.length,
            type_: kind,
            reserved: 0,
        };
        memory.write_obj(record, GuestAddress(at))?;
        at = at.saturating_add(size_of::<hvm_memmap_table_entry>() as u64);
        entries += 1;
    }
    if let Some(initrd) = initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.length,
            ..hvm_modlist_entry::default()
        };
        memory.write_obj(module, GuestAddress(MODULES))?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { MODULES } else { 0 },
        cmdline_paddr: cmdline.start,
        rsdp_paddr: machine.rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: entries,
        ..hvm_start_info::default()
    };
    memory.write_obj(info, GuestAddress(layout::PVH_START_INFO))?;
    Ok(layout::PVH_START_INFO)
}
