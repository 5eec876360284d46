//! Makes kernels, images and memory for the tests of this folder.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use backhand::compression::{CompressionOptions, Compressor, Lz4};
use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader};
use devices::device::Memory;
use vm_memory::{Bytes, GuestAddress};

use super::{BootConfig, BootSource, LoadContext};
use crate::arch::layout;

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1 << 20;
/// Where the kernels made here are linked.
pub(super) const KERNEL_AT: u64 = layout::KERNEL_START;
/// What the first bytes of the kernels made here are.
pub(super) const KERNEL_TEXT: &[u8] = b"kernel text";
/// The version in the bzImages made here.
pub(super) const VERSION: &str = "6.1.0-test (builder) #1";

/// How an ELF kernel differs from a good one.
#[derive(Clone, Copy)]
pub(super) struct Elf {
    pub(super) machine: u16,
    pub(super) class: u8,
    pub(super) entry: u64,
    pub(super) address: u64,
    pub(super) memory_bytes: u64,
    pub(super) pvh: Option<u32>,
}

impl Default for Elf {
    fn default() -> Self {
        Self {
            machine: 62,
            class: 2,
            entry: KERNEL_AT,
            address: KERNEL_AT,
            memory_bytes: 0x5000,
            pvh: None,
        }
    }
}

impl Elf {
    /// The file: two segments, the second a page after the first's end, and perhaps a PVH note.
    pub(super) fn build(self) -> Vec<u8> {
        let text: Vec<u8> = (0..0x2000)
            .map(|i| KERNEL_TEXT[i % KERNEL_TEXT.len()])
            .collect();
        let data = vec![0xda; 0x1000];
        let notes = self.pvh.map(pvh_note).unwrap_or_default();
        let mut headers = vec![
            (
                1u32,
                0x1000u64,
                text.len() as u64,
                self.address,
                self.memory_bytes,
            ),
            (1, 0x3000, 0x1000, self.address + self.memory_bytes, 0x8000),
        ];
        if !notes.is_empty() {
            headers.push((4, 0x4000, notes.len() as u64, 0, 0));
        }
        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1];
        file.resize(16, 0);
        file.extend(2u16.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend([0; 12]);
        file.extend(64u16.to_le_bytes());
        file.extend(56u16.to_le_bytes());
        file.extend((headers.len() as u16).to_le_bytes());
        file.extend([0; 6]);
        for (kind, offset, bytes, address, memory) in headers {
            file.extend(kind.to_le_bytes());
            file.extend(7u32.to_le_bytes());
            for field in [offset, address, address, bytes, memory, 0x1000] {
                file.extend(field.to_le_bytes());
            }
        }
        file.resize(0x1000, 0);
        file.extend(text);
        file.extend(data);
        file.extend(notes);
        file
    }
}

fn pvh_note(entry: u32) -> Vec<u8> {
    // Another vendor's note first, with a name that needs padding.
    let mut notes = Vec::new();
    for (kind, name, value) in [(18u32, &b"Xenon\0"[..], 0), (18, b"Xen\0", entry)] {
        notes.extend((name.len() as u32).to_le_bytes());
        notes.extend(4u32.to_le_bytes());
        notes.extend(kind.to_le_bytes());
        notes.extend(name);
        notes.resize(notes.len().next_multiple_of(4), 0);
        notes.extend(value.to_le_bytes());
    }
    notes
}

/// How a kernel is packed into a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Zstd,
    Lz4,
    /// A method that cannot be unpacked here.
    Bzip2,
}

/// All methods that can be unpacked.
pub(super) const PACKINGS: [Packing; 4] = [Packing::Gzip, Packing::Xz, Packing::Zstd, Packing::Lz4];

/// Packs `kernel` as the kernel build does, its size noted after it.
pub(super) fn pack(kernel: &[u8], packing: Packing) -> Vec<u8> {
    let mut packed = match packing {
        Packing::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(kernel).unwrap();
            return encoder.finish().unwrap();
        }
        Packing::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(kernel).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(kernel, 1).unwrap(),
        Packing::Lz4 => {
            let mut out = vec![0x02, 0x21, 0x4c, 0x18];
            for block in kernel.chunks(8 << 20) {
                let block = lz4_flex::block::compress(block);
                out.extend((block.len() as u32).to_le_bytes());
                out.extend(block);
            }
            out
        }
        Packing::Bzip2 => b"BZh91AY&SY and so on".to_vec(),
    };
    packed.extend((kernel.len() as u32).to_le_bytes());
    packed
}

/// A bzImage around `payload`.
pub(super) fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 2 * 512;
    const PAYLOAD_OFFSET: usize = 0x400;
    let mut file = vec![0x90; SETUP + PAYLOAD_OFFSET];
    file[0x1f1..0x26c].fill(0);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x20e, &0x100u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &100u32.to_le_bytes());
    put(0x248, &(PAYLOAD_OFFSET as u32).to_le_bytes());
    put(0x24c, &(payload.len() as u32).to_le_bytes());
    put(0x258, &KERNEL_AT.to_le_bytes());
    put(0x260, &(4 * MIB as u32).to_le_bytes());
    put(0x300, VERSION.as_bytes());
    put(0x300 + VERSION.len(), &[0]);
    file.extend(payload);
    file
}

/// A good bzImage with a good kernel in it.
pub(super) fn good_bzimage() -> Vec<u8> {
    bzimage(&pack(&Elf::default().build(), Packing::Zstd))
}

/// An entry of an image.
pub(super) enum Item<'a> {
    File(&'a [u8]),
    Link(&'a str),
}

/// A squashfs image with these entries; directories are made as needed.
pub(super) fn image(compressor: Compressor, items: &[(&str, Item<'_>)]) -> Vec<u8> {
    let mut writer = FilesystemWriter::default();
    let options = (compressor == Compressor::Lz4).then_some(CompressionOptions::Lz4(Lz4 {
        version: 1,
        flags: 0,
    }));
    writer.set_compressor(FilesystemCompressor::new(compressor, options).unwrap());
    let header = NodeHeader::new(0o755, 0, 0, 0);
    for (path, item) in items {
        let parent = Path::new(path).parent().unwrap();
        if parent != Path::new("/") {
            writer.push_dir_all(parent, header).unwrap();
        }
        match item {
            Item::File(bytes) => writer
                .push_file(Cursor::new(bytes.to_vec()), path, header)
                .unwrap(),
            Item::Link(target) => writer.push_symlink(target, path, header).unwrap(),
        }
    }
    let mut out = Cursor::new(Vec::new());
    writer.write(&mut out).unwrap();
    out.into_inner()
}

/// Writes `bytes` to `name` in `dir`.
pub(super) fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A configuration that boots an image, with no cache.
pub(super) fn boots(image: &Path) -> BootConfig {
    BootConfig {
        source: BootSource::Bootstrap {
            image: image.to_owned(),
            toplevel: None,
        },
        params: Vec::new(),
        defaults: Vec::new(),
        init: None,
        cache_dir: None,
    }
}

/// A configuration that boots plain files, with no cache.
pub(super) fn boots_files(kernel: &Path, initrd: Option<&Path>) -> BootConfig {
    BootConfig {
        source: BootSource::Files {
            kernel: kernel.to_owned(),
            initrd: initrd.map(Path::to_owned),
        },
        ..boots(kernel)
    }
}

/// Guest memory with `mib` MiB of RAM, and what goes with it.
pub(super) fn machine(mib: u64) -> (Memory, LoadContext) {
    let ram_bytes = mib * MIB;
    let ranges: Vec<_> = layout::ram_ranges(ram_bytes)
        .into_iter()
        .map(|(start, length)| (GuestAddress(start), length as usize))
        .collect();
    let context = LoadContext {
        ram_bytes,
        rsdp: layout::ACPI_START,
    };
    (Memory::from_ranges(&ranges).unwrap(), context)
}

/// Bytes of guest memory.
pub(super) fn peek(memory: &Memory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

/// An error with everything it stands for, as users see it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
