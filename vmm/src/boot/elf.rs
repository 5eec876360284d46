//! ELF kernels: which bytes go where, and where to enter. Nothing is read but headers and notes.

use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use vm_memory::ByteValued;

use super::blob::Blob;

/// First bytes of an ELF file.
pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";
/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;
/// Most program headers looked at; a vmlinux has five. Bounds the work a damaged header causes.
const MAX_HEADERS: u16 = 64;
/// Largest note segment searched for the PVH entry.
const MAX_NOTES: u64 = 1 << 20;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the note that holds the PVH entry point.
const PVH_NOTE: u32 = 18;

/// One loadable part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where its bytes start in the file.
    pub(super) offset: u64,
    /// Bytes in the file.
    pub(super) file_bytes: u64,
    /// Guest-physical address of the first byte.
    pub(super) address: u64,
    /// Bytes in memory; what the file does not fill is zero.
    pub(super) memory_bytes: u64,
}

impl Segment {
    /// First address after the segment. Does not overflow: [`Plan::read`] checked it.
    pub(super) fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }
}

/// Where an ELF kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElfEntry {
    /// 64-bit entry of Linux: long mode, `rsi` points at the zero page.
    Linux64(u64),
    /// 32-bit entry of PVH: `ebx` points at the start info.
    Pvh(u64),
}

/// What of an ELF kernel goes where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The loadable segments, by address, without overlaps.
    pub(super) segments: Vec<Segment>,
    /// Where to start.
    pub(super) entry: ElfEntry,
}

/// Why an ELF file cannot be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ElfFault {
    /// It is for another processor.
    Architecture(&'static str),
    /// Something in it is wrong.
    Malformed(&'static str),
}

use ElfFault::Malformed;

impl Plan {
    /// Reads and checks the headers of `blob`.
    pub(super) fn read(blob: &Blob) -> Result<Self, ElfFault> {
        let header = read_header(blob)?;
        let headers = read_program_headers(blob, &header)?;
        let segments = segments(blob.len(), &headers)?;
        let entry = entry(blob, &header, &headers, &segments)?;
        Ok(Self { segments, entry })
    }

    /// First guest-physical address used.
    pub(super) fn start(&self) -> u64 {
        self.segments.first().map_or(0, |s| s.address)
    }

    /// First guest-physical address after the kernel.
    pub(super) fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }
}

fn read_header(blob: &Blob) -> Result<Elf64_Ehdr, ElfFault> {
    let mut header = Elf64_Ehdr::default();
    blob.read_exact_at(header.as_mut_slice(), 0)
        .map_err(|_| Malformed("it ends inside the ELF header"))?;
    let [m0, m1, m2, m3, class, data, ..] = header.e_ident;
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(Malformed("the ELF magic is missing"));
    }
    // Class and byte order first: the fields below mean nothing otherwise.
    match (class, data) {
        (2, 1) => {}
        (1, 1) => return Err(ElfFault::Architecture("32-bit")),
        (_, 2) => return Err(ElfFault::Architecture("big-endian")),
        _ => return Err(Malformed("ELF class or byte order is unknown")),
    }
    if header.e_machine != EM_X86_64 {
        return Err(ElfFault::Architecture(machine_name(header.e_machine)));
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(Malformed("its program headers have an unknown size"));
    }
    Ok(header)
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "i386",
        40 => "arm",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        20 | 21 => "powerpc",
        22 => "s390",
        _ => "another processor's",
    }
}

fn read_program_headers(blob: &Blob, header: &Elf64_Ehdr) -> Result<Vec<Elf64_Phdr>, ElfFault> {
    if header.e_phnum > MAX_HEADERS {
        return Err(Malformed("it has too many program headers"));
    }
    let mut headers = vec![Elf64_Phdr::default(); usize::from(header.e_phnum)];
    let mut offset = header.e_phoff;
    for entry in &mut headers {
        blob.read_exact_at(entry.as_mut_slice(), offset)
            .map_err(|_| Malformed("it ends inside the program headers"))?;
        offset = offset
            .checked_add(size_of::<Elf64_Phdr>() as u64)
            .ok_or(Malformed("its program header offset is out of range"))?;
    }
    Ok(headers)
}

fn segments(file_len: u64, headers: &[Elf64_Phdr]) -> Result<Vec<Segment>, ElfFault> {
    let mut segments: Vec<Segment> = headers
        .iter()
        .filter(|h| h.p_type == PT_LOAD && h.p_memsz != 0)
        .map(|h| Segment {
            offset: h.p_offset,
            file_bytes: h.p_filesz,
            address: h.p_paddr,
            memory_bytes: h.p_memsz,
        })
        .collect();
    segments.sort_by_key(|s| s.address);
    if segments.is_empty() {
        return Err(Malformed("it has nothing to load"));
    }
    for segment in &segments {
        if segment.file_bytes > segment.memory_bytes {
            return Err(Malformed("a segment has more bytes than memory"));
        }
        if segment.address.checked_add(segment.memory_bytes).is_none() {
            return Err(Malformed("a segment wraps around the address space"));
        }
        match segment.offset.checked_add(segment.file_bytes) {
            Some(end) if end <= file_len => {}
            _ => return Err(Malformed("it ends inside a segment")),
        }
    }
    let overlap = |pair: &[Segment]| matches!(pair, [a, b] if a.end() > b.address);
    if segments.windows(2).any(overlap) {
        return Err(Malformed("two segments overlap"));
    }
    Ok(segments)
}

/// The 64-bit entry when it lies in the kernel's bytes, else the PVH entry.
fn entry(
    blob: &Blob,
    header: &Elf64_Ehdr,
    headers: &[Elf64_Phdr],
    segments: &[Segment],
) -> Result<ElfEntry, ElfFault> {
    let loaded = |address: u64| {
        segments
            .iter()
            .any(|s| (s.address..s.address.saturating_add(s.file_bytes)).contains(&address))
    };
    if loaded(header.e_entry) {
        return Ok(ElfEntry::Linux64(header.e_entry));
    }
    let notes = headers.iter().filter(|h| h.p_type == PT_NOTE);
    for note in notes.filter(|h| h.p_filesz <= MAX_NOTES) {
        let mut bytes = vec![0; usize::try_from(note.p_filesz).unwrap_or(0)];
        if blob.read_exact_at(&mut bytes, note.p_offset).is_err() {
            return Err(Malformed("it ends inside a note"));
        }
        if let Some(address) = pvh_entry(&bytes).filter(|a| loaded(*a)) {
            return Ok(ElfEntry::Pvh(address));
        }
    }
    Err(Malformed(
        "neither its entry point nor a PVH entry lies in a segment",
    ))
}

/// Finds the PVH entry in a note segment: `namesz`, `descsz`, `type`, then name and descriptor,
/// each padded to four bytes.
fn pvh_entry(notes: &[u8]) -> Option<u64> {
    let mut rest = notes;
    loop {
        let name_len = usize::try_from(word(rest, 0)?).ok()?;
        let desc_len = usize::try_from(word(rest, 4)?).ok()?;
        let kind = word(rest, 8)?;
        let body = rest.get(12..)?;
        let desc = body.get(name_len.checked_next_multiple_of(4)?..)?;
        if kind == PVH_NOTE && body.get(..name_len)? == b"Xen\0" && desc_len >= 4 {
            return word(desc, 0).map(u64::from);
        }
        rest = desc.get(desc_len.checked_next_multiple_of(4)?..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}
