//! Registers, descriptor table and page tables the boot vCPU enters the kernel with: the 64-bit
//! boot protocol (kernel `Documentation/arch/x86/boot.rst`) or the PVH entry
//! (`Documentation/arch/x86/pvh` of Xen: 32-bit, flat, paging off).

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

use super::layout;
use crate::boot::{Entry, Protocol};
use devices::device::Memory;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 1 << 1;

const PAGE_PRESENT_WRITABLE: u64 = 0b11;
const PAGE_LARGE: u64 = 1 << 7;
const PAGE_SIZE: u64 = 0x1000;
/// Page directories: each maps 1 GiB.
const DIRECTORIES: u64 = 4;

/// Selectors the boot protocol names: code 0x10, data 0x18.
const CODE_INDEX: u16 = 2;
const DATA_INDEX: u16 = 3;
const TSS_INDEX: u16 = 4;

/// General registers at `entry`.
pub fn general(entry: &Entry) -> kvm_regs {
    let mut regs = kvm_regs {
        rip: entry.rip,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    match entry.protocol {
        Protocol::Linux64 { zero_page } => {
            regs.rsi = zero_page;
            regs.rsp = layout::BOOT_STACK;
            regs.rbp = layout::BOOT_STACK;
        }
        Protocol::Pvh { start_info } => regs.rbx = start_info,
    }
    regs
}

/// Sets segments and control registers of `sregs` for `entry`.
pub fn special(sregs: &mut kvm_sregs, entry: &Entry) {
    let long = matches!(entry.protocol, Protocol::Linux64 { .. });
    sregs.cs = segment(CODE_INDEX, if long { code_64() } else { code_32() });
    let data = segment(DATA_INDEX, data());
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(TSS_INDEX, tss());
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = 8 * 5 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    if long {
        sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
        sregs.cr3 = layout::PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    } else {
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
    }
}

/// Writes the descriptor table and, for the 64-bit entry, page tables that map the first 4 GiB to
/// themselves.
///
/// # Errors
/// When guest RAM does not reach that far.
pub fn write_tables(memory: &Memory, entry: &Entry) -> Result<(), vm_memory::GuestMemoryError> {
    let long = matches!(entry.protocol, Protocol::Linux64 { .. });
    let code = if long { code_64() } else { code_32() };
    let gdt: Vec<u8> = [0, 0, code, data(), tss()]
        .iter()
        .flat_map(|d: &u64| d.to_le_bytes())
        .collect();
    memory.write_slice(&gdt, GuestAddress(layout::GDT))?;
    if long {
        memory.write_slice(&page_tables(), GuestAddress(layout::PAGE_TABLES))?;
    }
    Ok(())
}

/// PML4, PDPT and page directories, in this order from [`layout::PAGE_TABLES`].
fn page_tables() -> Vec<u8> {
    let pdpt = layout::PAGE_TABLES + PAGE_SIZE;
    let directories = pdpt + PAGE_SIZE;
    let entries_per_page = 512;
    let mut entries = vec![0u64; entries_per_page * 2];
    entries[0] = pdpt | PAGE_PRESENT_WRITABLE;
    for i in 0..DIRECTORIES {
        let at = entries_per_page + usize::from(u8::try_from(i).unwrap_or(0));
        entries[at] = (directories + i * PAGE_SIZE) | PAGE_PRESENT_WRITABLE;
    }
    entries.extend((0..DIRECTORIES * 512).map(|i| (i << 21) | PAGE_PRESENT_WRITABLE | PAGE_LARGE));
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

/// A descriptor with base 0 and limit 4 GiB - 1 in pages.
const fn flat(access: u64, flags: u64) -> u64 {
    0x000f_0000_0000_ffff | (access << 40) | (flags << 52)
}

const fn code_64() -> u64 {
    flat(0x9b, 0xa)
}

const fn code_32() -> u64 {
    flat(0x9b, 0xc)
}

const fn data() -> u64 {
    flat(0x93, 0xc)
}

/// A busy 32/64-bit TSS with base 0 and limit 0x67.
const fn tss() -> u64 {
    0x0000_8b00_0000_0067
}

/// A descriptor as KVM wants it in the segment cache.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the masks leave at most 8 and 20 bits"
)]
fn segment(index: u16, descriptor: u64) -> kvm_segment {
    let bits = |low: u32, count: u32| ((descriptor >> low) & ((1 << count) - 1)) as u8;
    let raw_limit = ((descriptor & 0xffff) | ((descriptor >> 32) & 0xf_0000)) as u32;
    let granular = bits(55, 1);
    kvm_segment {
        base: ((descriptor >> 16) & 0xff_ffff) | ((descriptor >> 32) & 0xff00_0000),
        limit: if granular == 1 {
            (raw_limit << 12) | 0xfff
        } else {
            raw_limit
        },
        selector: index * 8,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: granular,
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mode_code_segment_is_long_and_not_32_bit() {
        let code = segment(CODE_INDEX, code_64());
        assert_eq!(
            (code.selector, code.l, code.db, code.present, code.s),
            (0x10, 1, 0, 1, 1)
        );
        assert_eq!((code.base, code.limit), (0, 0xffff_ffff));
    }

    #[test]
    fn pvh_code_segment_is_32_bit() {
        let code = segment(CODE_INDEX, code_32());
        assert_eq!((code.l, code.db, code.limit), (0, 1, 0xffff_ffff));
    }

    #[test]
    fn task_segment_is_busy_and_small() {
        let tr = segment(TSS_INDEX, tss());
        assert_eq!((tr.type_, tr.s, tr.limit, tr.g), (0xb, 0, 0x67, 0));
    }

    #[test]
    fn page_tables_map_every_large_page_to_itself() {
        let bytes = page_tables();
        let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap());
        assert_eq!(word(0), (layout::PAGE_TABLES + 0x1000) | 3);
        assert_eq!(word(512 + 3), (layout::PAGE_TABLES + 0x5000) | 3);
        for page in [0u64, 1, 511, 512, 2047] {
            assert_eq!(
                word(1024 + usize::try_from(page).unwrap()),
                (page << 21) | 0x83
            );
        }
        assert!(layout::PAGE_TABLES + bytes.len() as u64 <= 0xf000);
    }
}
