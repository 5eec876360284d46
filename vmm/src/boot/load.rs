//! Writes kernel, initrd, command line and boot information into guest memory.
//!
//! Guest memory is fresh and zero; what a segment does not fill (bss) is not touched.

use std::io;

use devices::device::Memory;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::bzimage::BzImage;
use vm_memory::{Bytes, GuestAddress};

use super::blob::{Blob, Part};
use super::elf::{ElfEntry, Plan};
use super::initrd::Initrd;
use super::kernel::{Image, Kernel};
use super::{params, pvh, zero_page};
use crate::arch::layout;

/// Length of the command line that Linux on x86 keeps, NUL included, when the kernel does not say.
const DEFAULT_CMDLINE: usize = 2048;
/// Highest address of an initrd byte when the kernel does not say; every kernel reaches it.
const DEFAULT_INITRD_MAX: u64 = 0x7fff_ffff;
/// Initrds start at a page.
const PAGE: u64 = 4096;

/// What of the machine the loaded kernel has to be told.
#[derive(Debug, Clone, Copy)]
pub struct LoadContext {
    /// Guest RAM in bytes.
    pub ram_bytes: u64,
    /// Guest-physical address of the ACPI RSDP; 0 when the machine has no ACPI.
    pub rsdp: u64,
}

/// Where and how the boot vCPU enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Guest-physical address of the first instruction.
    pub rip: u64,
    /// What the kernel expects in registers.
    pub protocol: Protocol,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Long mode with an identity map, `rsi` = `zero_page`.
    Linux64 {
        /// Guest-physical address of the zero page.
        zero_page: u64,
    },
    /// 32-bit protected mode with flat segments and paging off, `ebx` = `start_info`.
    Pvh {
        /// Guest-physical address of the start info.
        start_info: u64,
    },
}

/// Why a payload could not be written into guest memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel would cut the command line.
    #[error(
        "Command line has {length} bytes, kernel {kernel} keeps at most {limit}; remove parameters"
    )]
    CmdlineTooLong {
        /// Length of the command line, without the NUL.
        length: usize,
        /// Longest the kernel takes, without the NUL.
        limit: usize,
        /// The kernel's path.
        kernel: String,
    },
    /// The command line holds a control character.
    #[error(
        "Command line holds {character:?} at byte {position}, expected printable text; remove it"
    )]
    CmdlineCharacter {
        /// What it holds.
        character: char,
        /// Where.
        position: usize,
    },
    /// The kernel needs RAM that is not there.
    #[error(
        "Kernel {kernel}: needs {start:#x}-{end:#x}, RAM for it is {low:#x}-{high:#x}; {}",
        outside_ram_remedy(*start, *low)
    )]
    KernelOutsideRam {
        /// The kernel's path.
        kernel: String,
        /// First address it needs.
        start: u64,
        /// First address it does not need.
        end: u64,
        /// Lowest address a kernel may use.
        low: u64,
        /// End of RAM.
        high: u64,
    },
    /// The initrd does not fit between kernel and end of RAM.
    #[error(
        "Initrd {initrd}: {size} bytes do not fit between the kernel's end {low:#x} and {high:#x}; give the machine more memory"
    )]
    InitrdDoesNotFit {
        /// The initrd's path.
        initrd: String,
        /// Its size in bytes.
        size: u64,
        /// Lowest address it could have.
        low: u64,
        /// End of the room for it.
        high: u64,
    },
    /// A file could not be read into guest memory.
    #[error(
        "{path}: failed to read into guest memory; check that nothing replaced or cut the file"
    )]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Guest memory is missing where the layout says it is.
    #[error("Failed to write the {what} to guest memory at {address:#x}")]
    Write {
        /// What was written.
        what: &'static str,
        /// Where.
        address: u64,
        /// What went wrong.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// A range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// First address.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
}

/// Loads everything; see [`super::Payload::load`].
pub(super) fn load(
    (kernel, initrd): (&Kernel, Option<&Initrd>),
    memory: &Memory,
    cmdline: &str,
    machine: &LoadContext,
) -> Result<Entry, LoadError> {
    check_cmdline(kernel, cmdline)?;
    let room = place_kernel(kernel, machine)?;
    let initrd_room = initrd
        .map(|initrd| place_initrd(kernel, initrd, room, machine))
        .transpose()?;
    if let Some((initrd, place)) = initrd.zip(initrd_room) {
        initrd.copy_to_guest(memory, place.start)?;
    }
    let rip = copy_kernel(kernel, room, memory)?;
    let cmdline = write_cmdline(memory, cmdline)?;
    if let Image::Elf { plan, .. } = &kernel.image
        && let ElfEntry::Pvh(rip) = plan.entry
    {
        let start_info = pvh::write(memory, cmdline, initrd_room, machine)
            .map_err(write_error("PVH start info", layout::PVH_START_INFO))?;
        let protocol = Protocol::Pvh { start_info };
        return Ok(Entry { rip, protocol });
    }
    let zero_page = layout::ZERO_PAGE;
    let page = zero_page::build(kernel.setup(), cmdline, initrd_room, machine);
    memory
        .write_obj(page, GuestAddress(zero_page))
        .map_err(write_error("zero page", zero_page))?;
    let protocol = Protocol::Linux64 { zero_page };
    Ok(Entry { rip, protocol })
}

fn check_cmdline(kernel: &Kernel, cmdline: &str) -> Result<(), LoadError> {
    params::check(cmdline).map_err(|bad| LoadError::CmdlineCharacter {
        character: bad.character,
        position: bad.position,
    })?;
    let own = kernel
        .setup()
        .map_or(DEFAULT_CMDLINE - 1, |setup| setup.cmdline_limit());
    let limit = own.min(layout::CMDLINE_CAPACITY - 1);
    match cmdline.len() <= limit {
        true => Ok(()),
        false => Err(LoadError::CmdlineTooLong {
            length: cmdline.len(),
            limit,
            kernel: kernel.name.clone(),
        }),
    }
}

/// End of the RAM below the hole.
fn low_ram_end(machine: &LoadContext) -> u64 {
    machine.ram_bytes.min(layout::HOLE_START)
}

/// More memory lies above, never below.
fn outside_ram_remedy(start: u64, low: u64) -> &'static str {
    if start < low {
        "use a kernel that is linked at 1 MiB or above, as distributions build them"
    } else {
        "give the machine more memory"
    }
}

/// The range the kernel occupies until it has set up its own memory.
fn place_kernel(kernel: &Kernel, machine: &LoadContext) -> Result<Range, LoadError> {
    let (start, length) = match &kernel.image {
        Image::Elf { plan, .. } => (plan.start(), plan.end().saturating_sub(plan.start())),
        Image::BzImage { setup } => {
            let (start, needs) = setup.placement();
            (start, needs.max(bzimage_bytes(kernel)))
        }
    };
    let end = start.saturating_add(length);
    let (low, high) = (layout::HIGH_RAM_START, low_ram_end(machine));
    if start < low || end > high {
        return Err(LoadError::KernelOutsideRam {
            kernel: kernel.name.clone(),
            start,
            end,
            low,
            high,
        });
    }
    Ok(Range { start, length })
}

/// Bytes of a bzImage that go into memory: all but the real-mode setup.
fn bzimage_bytes(kernel: &Kernel) -> u64 {
    let setup = kernel.setup().map_or(0, |setup| setup.setup_bytes());
    kernel.blob.len().saturating_sub(setup)
}

/// As high as the kernel reaches: there nothing is in the way while it boots.
fn place_initrd(
    kernel: &Kernel,
    initrd: &Initrd,
    used: Range,
    machine: &LoadContext,
) -> Result<Range, LoadError> {
    let max = kernel
        .setup()
        .map_or(DEFAULT_INITRD_MAX, |setup| setup.initrd_addr_max());
    let high = low_ram_end(machine).min(max.saturating_add(1));
    let low = used.start.saturating_add(used.length);
    let length = initrd.len();
    let start = high.checked_sub(length).map(|start| start / PAGE * PAGE);
    match start.filter(|start| *start >= low) {
        Some(start) => Ok(Range { start, length }),
        None => Err(LoadError::InitrdDoesNotFit {
            initrd: initrd.name.clone(),
            size: length,
            low,
            high,
        }),
    }
}

/// Copies the kernel; returns the address of its entry.
fn copy_kernel(kernel: &Kernel, room: Range, memory: &Memory) -> Result<u64, LoadError> {
    let failed = |source| LoadError::Read {
        path: kernel.name.clone(),
        source,
    };
    match &kernel.image {
        Image::Elf { plan, .. } => copy_segments(&kernel.blob, plan, memory).map_err(failed),
        Image::BzImage { .. } => copy_bzimage(&kernel.blob, room, memory).map_err(failed),
    }
}

fn copy_segments(blob: &Blob, plan: &Plan, memory: &Memory) -> io::Result<u64> {
    let parts = plan.segments.iter().map(|segment| Part {
        offset: segment.offset,
        length: segment.file_bytes,
        address: segment.address,
    });
    blob.copy_to_guest(&parts.collect::<Vec<_>>(), memory)?;
    match plan.entry {
        ElfEntry::Linux64(rip) | ElfEntry::Pvh(rip) => Ok(rip),
    }
}

fn copy_bzimage(blob: &Blob, room: Range, memory: &Memory) -> io::Result<u64> {
    let at = Some(GuestAddress(room.start));
    let lowest = Some(GuestAddress(layout::HIGH_RAM_START));
    let loaded = match blob {
        Blob::File { file, .. } => BzImage::load(memory, at, &mut file.try_clone()?, lowest),
        Blob::Memory(bytes) => {
            BzImage::load(memory, at, &mut io::Cursor::new(bytes.as_slice()), lowest)
        }
    };
    let loaded = loaded.map_err(io::Error::other)?;
    Ok(super::bzimage::Setup::entry(loaded.kernel_load.0))
}

fn write_cmdline(memory: &Memory, cmdline: &str) -> Result<Range, LoadError> {
    let start = layout::CMDLINE;
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    memory
        .write_slice(&bytes, GuestAddress(start))
        .map_err(write_error("command line", start))?;
    let length = cmdline.len() as u64;
    Ok(Range { start, length })
}

fn write_error(
    what: &'static str,
    address: u64,
) -> impl FnOnce(vm_memory::GuestMemoryError) -> LoadError {
    move |source| LoadError::Write {
        what,
        address,
        source,
    }
}
