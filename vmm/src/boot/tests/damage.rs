//! Sources that are damaged, foreign or made to harm: an error that says so, never a panic.

use backhand::compression::Compressor;
use proptest::prelude::*;
use tempfile::tempdir;

use super::super::testing::Item::File;
use super::super::testing::*;
use super::super::*;

fn kernel_error(bytes: &[u8]) -> String {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "kernel", bytes);
    chain(&open(&boots_files(&kernel, None)).unwrap_err())
}

fn image_error(bytes: &[u8]) -> String {
    let dir = tempdir().unwrap();
    let path = put(dir.path(), "image", bytes);
    chain(&open(&boots(&path)).unwrap_err())
}

fn good_image() -> Vec<u8> {
    let kernel = good_bzimage();
    let items = [
        ("/boot/vmlinuz", File(&kernel)),
        ("/boot/initrd", File(b"initrd")),
        ("/boot/cmdline", File(b"quiet")),
    ];
    image(Compressor::Gzip, &items)
}

#[test]
fn foreign_kernels_are_told_apart() {
    let elf = |elf: Elf| elf.build();
    let arm = elf(Elf {
        machine: 183,
        ..Elf::default()
    });
    let narrow = elf(Elf {
        class: 1,
        ..Elf::default()
    });
    let mut arm_image = vec![0; 64];
    arm_image[56..60].copy_from_slice(b"ARM\x64");
    let mut old = good_bzimage();
    old[0x206..0x208].copy_from_slice(&0x206u16.to_le_bytes());
    let mut narrow_bzimage = good_bzimage();
    narrow_bzimage[0x236] = 0;
    let cases: [(&[u8], &str); 9] = [
        (
            &arm,
            "wrong architecture, expected x86-64, found a kernel for aarch64",
        ),
        (&arm_image, "found a kernel for aarch64"),
        (&narrow, "found a kernel for 32-bit"),
        (&narrow_bzimage, "found a kernel for 32-bit x86"),
        (
            &old,
            "too old for the 64-bit boot protocol, expected 2.12 or later (Linux 3.8), found 2.06",
        ),
        (b"", "an empty file"),
        (b"#!/bin/sh\n", "data starting [23, 21, 2f, 62]"),
        (b"hsqs....", "a squashfs image"),
        (&[0x1f, 0x8b, 8, 0], "gzip data"),
    ];
    for (bytes, expected) in cases {
        let error = kernel_error(bytes);
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn malformed_elf_headers_are_refused() {
    let good = Elf::default().build();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let max = u64::MAX.to_le_bytes();
    let cases = [
        (good[..40].to_vec(), "ends inside the ELF header"),
        (good[..100].to_vec(), "ends inside the program headers"),
        (good[..0x2000].to_vec(), "ends inside a segment"),
        (with(5, &[2]), "big-endian"),
        (with(0x18, &max), "neither its entry point nor a PVH entry"),
        (with(0x20, &max), "ends inside the program headers"),
        (with(0x36, &[1, 0]), "unknown size"),
        (with(0x38, &[0, 0]), "nothing to load"),
        (with(0x38, &[0xff, 0xff]), "too many program headers"),
        (with(64 + 8, &max), "ends inside a segment"),
        (with(64 + 24, &max), "wraps around"),
        (with(64 + 32, &max), "more bytes than memory"),
        (with(64 + 40, &[0, 0x60]), "overlap"),
    ];
    for (bytes, expected) in cases {
        let error = kernel_error(&bytes);
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn paths_that_are_no_files_are_named() {
    let dir = tempdir().unwrap();
    let error = chain(&open(&boots_files(dir.path(), None)).unwrap_err());
    assert!(error.contains("is a directory"), "{error}");
    let gone = dir.path().join("gone");
    let error = chain(&open(&boots_files(&gone, None)).unwrap_err());
    assert!(
        error.contains("gone") && error.contains("No such file"),
        "{error}"
    );
    let kernel = put(dir.path(), "kernel", &Elf::default().build());
    let error = chain(&open(&boots_files(&kernel, Some(&gone))).unwrap_err());
    assert!(
        error.contains("Initrd") && error.contains("gone"),
        "{error}"
    );
    let error = chain(&open(&boots(dir.path())).unwrap_err());
    assert!(error.contains("is a directory"), "{error}");
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let error = chain(&open(&boots_files(&fifo, None)).unwrap_err());
    assert!(error.contains("expected a regular file"), "{error}");
    assert!(open(&boots(&fifo)).is_err());
}

#[test]
fn sparse_giant_is_refused_by_its_size() {
    let dir = tempdir().unwrap();
    let kernel = put(dir.path(), "kernel", b"");
    let file = std::fs::File::options().write(true).open(&kernel).unwrap();
    file.set_len(300 * MIB).unwrap();
    let error = chain(&open(&boots_files(&kernel, None)).unwrap_err());
    assert!(
        error.contains("314572800 bytes, expected at most 256 MiB"),
        "{error}"
    );
    file.set_len(3 << 30).unwrap();
    let good = put(dir.path(), "good", &Elf::default().build());
    let error = chain(&open(&boots_files(&good, Some(&kernel))).unwrap_err());
    assert!(error.contains("expected at most 2 GiB"), "{error}");
}

#[test]
fn images_that_cannot_be_read_say_why() {
    let good = good_image();
    let used = usize::from_le_bytes(good[40..48].try_into().unwrap());
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let cases = [
        (Vec::new(), "starts with nothing"),
        (
            vec![0; 4096],
            "is no squashfs image, it starts with [00, 00, 00, 00]",
        ),
        (good[..50].to_vec(), "truncated"),
        (good[..used - 1].to_vec(), "truncated, expected"),
        (with(0, b"sqsh"), "big-endian squashfs is not supported"),
        (with(22, &[13]), "block size and its logarithm disagree"),
        (with(22, &[0]), "block size and its logarithm disagree"),
        (with(16, &[0xff; 4]), "over 32 MiB of metadata"),
        (with(28, &[3]), "squashfs version 3.0 is not supported"),
        (with(20, &[2]), "lzma compression is not supported"),
        (with(20, &[9]), "compression number 9 is not supported"),
        (with(64, &u64::MAX.to_le_bytes()), "damaged squashfs"),
    ];
    for (bytes, expected) in cases {
        let error = image_error(&bytes);
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn flood_of_metadata_is_refused_before_it_is_unpacked() {
    // Stored metadata blocks of one byte each, far more than the limit allows.
    let mut bytes = good_image();
    let table = bytes.len() as u64;
    for _ in 0..20_000 {
        bytes.extend([0x01, 0x80, 0]);
    }
    let end = bytes.len() as u64;
    bytes[64..72].copy_from_slice(&table.to_le_bytes());
    bytes[72..80].copy_from_slice(&end.to_le_bytes());
    let error = image_error(&bytes);
    assert!(error.contains("over 32 MiB of metadata"), "{error}");
}

#[test]
fn too_deep_directories_are_refused_before_they_are_built() {
    let kernel = Elf::default().build();
    let deep = |levels: usize| {
        let path = format!("{}/file", "/d".repeat(levels));
        let items = [("/boot/kernel", File(&kernel)), (&path, File(b""))];
        let dir = tempdir().unwrap();
        let path = put(dir.path(), "image", &image(Compressor::Zstd, &items));
        open(&boots(&path)).map(|payload| payload.describe().kernel)
    };
    assert_eq!(deep(100).unwrap(), "/boot/kernel");
    let error = chain(&deep(200).unwrap_err());
    assert!(error.contains("too deep directories"), "{error}");
}

#[test]
fn unpacking_refuses_lies() {
    let elf = Elf::default().build();
    for packing in PACKINGS {
        let payload = pack(&elf, packing);
        let unpack = |payload: &[u8]| unpack_kernel(&bzimage(payload));
        assert!(unpack(&payload).unwrap() == elf, "{packing:?}");
        let resized = |size: u32| {
            let mut bad = payload.clone();
            let at = bad.len() - 4;
            bad[at..].copy_from_slice(&size.to_le_bytes());
            bad
        };
        let size = elf.len() as u32;
        for wrong in [0, size - 1, size + 1, u32::MAX] {
            assert!(unpack(&resized(wrong)).is_err(), "{packing:?} {wrong}");
        }
        let mut cut = payload[..payload.len() / 2].to_vec();
        cut.extend(size.to_le_bytes());
        assert!(unpack(&cut).is_err(), "{packing:?}");
        let junk = pack(&vec![0x55; 4096], packing);
        assert!(matches!(
            unpack(&junk),
            Err(UnpackError::NotElf { length: 4096 })
        ));
    }
    let mut outside = good_bzimage();
    outside[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        unpack_kernel(&outside),
        Err(UnpackError::OutsideFile { .. })
    ));
    let error = unpack_kernel(&bzimage(&pack(b"", Packing::Bzip2))).unwrap_err();
    assert!(error.to_string().contains("bzip2"), "{error}");
}

/// Bytes to change: positions as fractions of the length, so that all sizes are covered.
fn mutations() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..8)
}

fn mutate(bytes: &mut [u8], mutations: &[(f64, u8)]) {
    let len = bytes.len() as f64;
    for (at, value) in mutations {
        if let Some(byte) = bytes.get_mut((at * len) as usize) {
            *byte = *value;
        }
    }
}

/// Opens and loads; whatever it says, it comes back.
fn survives(config: &BootConfig) {
    if let Ok(payload) = open(config) {
        let (memory, machine) = machine(64);
        let _ = payload.load(&memory, payload.params(), &machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn mutated_elf_never_panics(mutations in mutations()) {
        let elf = Elf { pvh: Some(KERNEL_AT as u32), ..Elf::default() };
        let mut bytes = elf.build();
        mutate(&mut bytes[..0x140], &mutations);
        let dir = tempdir().unwrap();
        survives(&boots_files(&put(dir.path(), "kernel", &bytes), None));
    }

    #[test]
    fn mutated_bzimage_never_panics(
        mutations in mutations(),
        packing in prop::sample::select(PACKINGS.to_vec()),
        header in any::<bool>(),
    ) {
        let mut bytes = bzimage(&pack(&Elf::default().build(), packing));
        let range = if header { 0x1f1..0x26c } else { 0x800..bytes.len() };
        mutate(&mut bytes[range], &mutations);
        let dir = tempdir().unwrap();
        survives(&boots_files(&put(dir.path(), "kernel", &bytes), None));
    }

    #[test]
    fn mutated_image_never_panics(mutations in mutations(), part in 0..3usize) {
        let mut bytes = good_image();
        let end = bytes.len();
        // The superblock and the metadata at the end are where structure is.
        let range = [0..96, end.saturating_sub(5000)..end, 0..end][part].clone();
        mutate(&mut bytes[range], &mutations);
        let dir = tempdir().unwrap();
        survives(&boots(&put(dir.path(), "image", &bytes)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let dir = tempdir().unwrap();
        let path = put(dir.path(), "file", &bytes);
        survives(&boots(&path));
        survives(&boots_files(&path, None));
        let _ = unpack_kernel(&bytes);
    }
}
