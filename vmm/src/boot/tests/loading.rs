//! What ends up in guest memory.

use tempfile::tempdir;

use super::super::testing::*;
use super::super::*;
use crate::arch::layout;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn elf_kernel_initrd_and_zero_page_are_where_the_protocol_wants_them() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "vmlinux", &Elf::default().build());
    let initrd = put(dir.path(), "initrd", &vec![0x1d; 5000]);
    let payload = open(&boots_files(&kernel, Some(&initrd))).unwrap();
    let (memory, machine) = machine(64);
    let entry = payload.load(&memory, "quiet panic=-1", &machine).unwrap();

    let zero_page = layout::ZERO_PAGE;
    assert_eq!(entry.rip, KERNEL_AT);
    assert_eq!(entry.protocol, Protocol::Linux64 { zero_page });
    assert!(peek(&memory, KERNEL_AT, 11) == KERNEL_TEXT);
    assert_eq!(
        peek(&memory, KERNEL_AT + 0x5000, 0x1001)[0xfff..],
        [0xda, 0]
    );
    let at = 64 * MIB - 8192;
    assert_eq!(peek(&memory, at, 5000), vec![0x1d; 5000]);
    assert_eq!(peek(&memory, layout::CMDLINE, 15), b"quiet panic=-1\0");

    let page = peek(&memory, zero_page, 4096);
    assert_eq!(u64_at(&page, 0x70), layout::ACPI_START);
    assert_eq!(page[0x1fe..0x200], [0x55, 0xaa]);
    assert_eq!(&page[0x202..0x206], b"HdrS");
    assert_eq!(page[0x210], 0xff);
    assert_eq!(u64::from(u32_at(&page, 0x228)), layout::CMDLINE);
    assert_eq!(u64::from(u32_at(&page, 0x218)), at);
    assert_eq!(u32_at(&page, 0x21c), 5000);
    assert_eq!(page[0x1ef], 0, "a sentinel makes the kernel clear the page");
}

#[test]
fn e820_is_the_memory_map_on_both_sides_of_the_hole() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "vmlinux", &Elf::default().build());
    let payload = open(&boots_files(&kernel, None)).unwrap();
    for mib in [256, 2048, 3584, 5120] {
        let (memory, machine) = machine(mib);
        payload.load(&memory, "", &machine).unwrap();
        let page = peek(&memory, layout::ZERO_PAGE, 4096);
        let expected = layout::memory_map(mib * MIB);
        assert_eq!(usize::from(page[0x1e8]), expected.len());
        for (i, entry) in expected.iter().enumerate() {
            let at = 0x2d0 + 20 * i;
            let kind = match entry.kind {
                layout::RangeKind::Ram => 1,
                layout::RangeKind::Reserved => 2,
            };
            assert_eq!(u64_at(&page, at), entry.start);
            assert_eq!(u64_at(&page, at + 8), entry.length);
            assert_eq!(u32_at(&page, at + 16), kind);
        }
    }
}

#[test]
fn initrd_stays_below_the_kernels_limit_and_the_hole() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "vmlinux", &Elf::default().build());
    let initrd = put(dir.path(), "initrd", &[1; 100]);
    let payload = open(&boots_files(&kernel, Some(&initrd))).unwrap();
    for (mib, expected) in [(256, 256 * MIB - 4096), (3584, 2048 * MIB - 4096)] {
        let (memory, machine) = machine(mib);
        payload.load(&memory, "", &machine).unwrap();
        let page = peek(&memory, layout::ZERO_PAGE, 4096);
        assert_eq!(u64::from(u32_at(&page, 0x218)), expected);
    }
}

#[test]
fn every_packing_boots_the_elf_inside_with_the_header_around_it() {
    let dir = tempdir().unwrap();
    for packing in PACKINGS {
        let bytes = bzimage(&pack(&Elf::default().build(), packing));
        let kernel = put(dir.path(), "bzImage", &bytes);
        let payload = open(&boots_files(&kernel, None)).unwrap();
        let about = payload.describe();
        assert_eq!(about.format, KernelFormat::Elf, "{packing:?}");
        assert_eq!(about.version.as_deref(), Some(VERSION));
        let (memory, machine) = machine(64);
        let entry = payload.load(&memory, "", &machine).unwrap();
        assert_eq!(entry.rip, KERNEL_AT);
        assert!(peek(&memory, KERNEL_AT, 11) == KERNEL_TEXT);
        let page = peek(&memory, layout::ZERO_PAGE, 4096);
        assert_eq!(
            u32_at(&page, 0x230),
            0x20_0000,
            "alignment of the real header"
        );
    }
}

#[test]
fn kernel_that_cannot_be_unpacked_boots_as_bzimage() {
    let dir = tempdir().unwrap();
    let bytes = bzimage(&pack(b"", Packing::Bzip2));
    let kernel = put(dir.path(), "bzImage", &bytes);
    let payload = open(&boots_files(&kernel, None)).unwrap();
    assert_eq!(payload.describe().format, KernelFormat::BzImage);
    let (memory, machine) = machine(64);
    let entry = payload.load(&memory, "", &machine).unwrap();
    assert_eq!(entry.rip, KERNEL_AT + 0x200);
    let protected_mode = &bytes[1024..];
    assert!(peek(&memory, KERNEL_AT, protected_mode.len()) == protected_mode);
}

#[test]
fn pvh_kernel_gets_a_start_info() {
    let dir = tempdir().unwrap();
    let elf = Elf {
        entry: 0xffff_ffff_8100_0000,
        pvh: Some(KERNEL_AT as u32 + 0x10),
        ..Elf::default()
    };
    let kernel = put(dir.path(), "kernel", &elf.build());
    let initrd = put(dir.path(), "initrd", &[1; 100]);
    let payload = open(&boots_files(&kernel, Some(&initrd))).unwrap();
    let (memory, machine) = machine(3584);
    let entry = payload.load(&memory, "a=b", &machine).unwrap();
    let start_info = layout::PVH_START_INFO;
    assert_eq!(entry.rip, KERNEL_AT + 0x10);
    assert_eq!(entry.protocol, Protocol::Pvh { start_info });
    let info = peek(&memory, start_info, 56);
    assert_eq!(u32_at(&info, 0), 0x336e_c578);
    assert_eq!(u32_at(&info, 4), 1);
    assert_eq!(u64_at(&info, 24), layout::CMDLINE);
    assert_eq!(u64_at(&info, 32), layout::ACPI_START);
    let module = peek(&memory, u64_at(&info, 16), 16);
    assert_eq!(u64_at(&module, 8), 100);
    let map = layout::memory_map(3584 * MIB);
    assert_eq!(u32_at(&info, 48) as usize, map.len());
    let last = peek(&memory, u64_at(&info, 40) + 24 * (map.len() as u64 - 1), 24);
    assert_eq!(u64_at(&last, 0), layout::HOLE_END);
    assert_eq!(u32_at(&last, 16), 1);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let dir = tempdir().unwrap();
    let elf = |elf: Elf| put(dir.path(), "kernel", &elf.build());
    let load = |config: &BootConfig, mib, cmdline: &str| {
        let (memory, machine) = machine(mib);
        let payload = open(config).unwrap();
        chain(&payload.load(&memory, cmdline, &machine).unwrap_err())
    };
    let low = Elf {
        address: 0x9_0000,
        entry: 0x9_0000,
        ..Elf::default()
    };
    let error = load(&boots_files(&elf(low), None), 64, "");
    assert!(
        error.contains("needs 0x90000-") && error.contains("0x100000"),
        "{error}"
    );

    let kernel = elf(Elf::default());
    let error = load(&boots_files(&kernel, None), 16, "");
    assert!(error.contains("more memory"), "{error}");

    let large = put(dir.path(), "initrd", &vec![0; 20 * MIB as usize]);
    let error = load(&boots_files(&kernel, Some(&large)), 32, "");
    assert!(
        error.contains("initrd: 20971520 bytes do not fit"),
        "{error}"
    );

    let error = load(&boots_files(&kernel, None), 64, &"x".repeat(2048));
    assert!(
        error.contains("2048 bytes") && error.contains("at most 2047"),
        "{error}"
    );
    let error = load(&boots_files(&kernel, None), 64, "a\0b");
    assert!(error.contains("'\\0' at byte 1"), "{error}");

    let packed = put(dir.path(), "bzImage", &good_bzimage());
    let error = load(&boots_files(&packed, None), 64, &"x".repeat(101));
    assert!(error.contains("at most 100"), "{error}");
}

#[test]
fn longest_command_line_is_accepted_with_its_nul() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "bzImage", &good_bzimage());
    let (memory, machine) = machine(64);
    let payload = open(&boots_files(&kernel, None)).unwrap();
    payload.load(&memory, &"x".repeat(100), &machine).unwrap();
    assert_eq!(peek(&memory, layout::CMDLINE + 99, 2), b"x\0");
}

#[test]
fn payload_can_be_loaded_by_another_thread() {
    fn sendable<T: Send + Sync>() {}
    sendable::<Payload>();
}

#[test]
fn large_files_arrive_whole() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "vmlinux", &Elf::default().build());
    let bytes: Vec<u8> = (0..9 * MIB as u32 + 777)
        .map(|i| (i / 4096) as u8)
        .collect();
    let initrd = put(dir.path(), "initrd", &bytes);
    let payload = open(&boots_files(&kernel, Some(&initrd))).unwrap();
    let (memory, machine) = machine(64);
    payload.load(&memory, "", &machine).unwrap();
    let page = peek(&memory, layout::ZERO_PAGE, 4096);
    let at = u64::from(u32_at(&page, 0x218));
    assert!(peek(&memory, at, bytes.len()) == bytes);
}
