//! The setup header of a bzImage (Linux/x86 boot protocol): what the kernel says about itself.

use linux_loader::bootparam::{XLF_KERNEL_64, setup_header};
use vm_memory::ByteValued;

use crate::arch::layout;

/// Bytes at the start of a bzImage that hold everything read here: the real-mode setup, at most
/// 64 sectors of 512 bytes, whose last part may hold the version string.
pub(super) const PREFIX: usize = 65 * 512;
/// Offset of the setup header in a bzImage and in the zero page.
pub(super) const HEADER_OFFSET: usize = 0x1f1;
/// Offset of the header's magic.
const MAGIC_OFFSET: usize = 0x202;
/// The magic of a kernel with a setup header.
pub(super) const MAGIC: &[u8; 4] = b"HdrS";
/// First protocol whose header says whether there is a 64-bit entry (`xloadflags`).
const PROTOCOL_64: u16 = 0x20c;
/// Distance from the load address to the 64-bit entry (boot protocol, "64-bit boot protocol").
const ENTRY_64: u64 = 0x200;
/// Sectors of setup when the header says zero, for history's sake.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// Longest version string kept.
const MAX_VERSION: usize = 127;

/// A setup header whose kernel can be entered in 64-bit mode.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    header: setup_header,
    version: Option<String>,
}

/// Why there is no usable setup header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetupFault {
    /// Not a bzImage at all.
    NoMagic,
    /// It ends inside the header.
    Truncated,
    /// The protocol version, `(major, minor)`, is below 2.12.
    TooOld(u8, u8),
    /// A 32-bit kernel.
    No64BitEntry,
}

/// Whether `prefix` starts a bzImage.
pub(super) fn is_bzimage(prefix: &[u8]) -> bool {
    prefix.get(MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()) == Some(MAGIC)
}

impl Setup {
    /// Reads the header from the first [`PREFIX`] bytes of a bzImage.
    pub(super) fn parse(prefix: &[u8]) -> Result<Self, SetupFault> {
        if !is_bzimage(prefix) {
            return Err(SetupFault::NoMagic);
        }
        let mut header = setup_header::default();
        let size = size_of::<setup_header>();
        let raw = prefix
            .get(HEADER_OFFSET..HEADER_OFFSET + size)
            .ok_or(SetupFault::Truncated)?;
        header.as_mut_slice().copy_from_slice(raw);
        let [minor, major] = header.version.to_le_bytes();
        if header.version < PROTOCOL_64 {
            return Err(SetupFault::TooOld(major, minor));
        }
        if header.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(SetupFault::No64BitEntry);
        }
        let version = version_text(prefix, header.kernel_version);
        Ok(Self { header, version })
    }

    /// Rebuilds the header from [`Self::raw`], as the cache keeps it.
    pub(super) fn from_raw(raw: &[u8], version: Option<String>) -> Option<Self> {
        let mut header = setup_header::default();
        if raw.len() != size_of::<setup_header>() {
            return None;
        }
        header.as_mut_slice().copy_from_slice(raw);
        let sane = header.version >= PROTOCOL_64 && header.header == u32::from_le_bytes(*MAGIC);
        sane.then_some(Self { header, version })
    }

    /// The header's bytes.
    pub(super) fn raw(&self) -> &[u8] {
        self.header.as_slice()
    }

    /// The header, to be copied into the zero page.
    pub(super) fn header(&self) -> setup_header {
        self.header
    }

    /// The kernel's release and build, such as `6.1.0-18-amd64 (…) #1 SMP …`.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Most bytes of command line the kernel keeps, without the NUL.
    pub(super) fn cmdline_limit(&self) -> usize {
        usize::try_from(self.header.cmdline_size).unwrap_or(usize::MAX)
    }

    /// Highest address an initrd byte may have.
    pub(super) fn initrd_addr_max(&self) -> u64 {
        u64::from(self.header.initrd_addr_max)
    }

    /// Offset of the protected-mode kernel in the file.
    pub(super) fn setup_bytes(&self) -> u64 {
        let sectors = match self.header.setup_sects {
            0 => DEFAULT_SETUP_SECTORS,
            n => n,
        };
        (u64::from(sectors) + 1) * 512
    }

    /// Where the compressed kernel lies in the file, as `(offset, length)`.
    pub(super) fn payload(&self) -> (u64, u64) {
        let offset = self.setup_bytes() + u64::from(self.header.payload_offset);
        (offset, u64::from(self.header.payload_length))
    }

    /// Where the kernel is loaded and what it needs there, as `(start, length)`: the address it
    /// prefers, which spares it a move, unless that is too low.
    pub(super) fn placement(&self) -> (u64, u64) {
        let align = u64::from(self.header.kernel_alignment).max(4096);
        let preferred = self.header.pref_address;
        let start = if preferred >= layout::HIGH_RAM_START {
            preferred
        } else {
            layout::KERNEL_START.next_multiple_of(align)
        };
        (start, u64::from(self.header.init_size))
    }

    /// The 64-bit entry of a kernel loaded at `start`.
    pub(super) fn entry(start: u64) -> u64 {
        start.saturating_add(ENTRY_64)
    }
}

/// The NUL-terminated text at `pointer + 0x200`; zero means there is none.
fn version_text(prefix: &[u8], pointer: u16) -> Option<String> {
    let start = usize::from(pointer).checked_add(0x200)?;
    if pointer == 0 {
        return None;
    }
    let text = prefix.get(start..)?;
    let len = text.iter().take(MAX_VERSION).position(|b| *b == 0)?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    let printable = !text.is_empty() && text.chars().all(|c| !c.is_control());
    printable.then(|| text.to_owned())
}
