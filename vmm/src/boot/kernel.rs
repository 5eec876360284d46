//! A kernel that can be booted: recognises bzImage and ELF, and unpacks the former.

use std::io;

use super::blob::Blob;
use super::bzimage::{self, PREFIX, Setup, SetupFault};
use super::elf::{self, ElfFault, Plan};
use super::unpack::{UnpackError, unpack_kernel};

/// Largest kernel file, in bytes. Distribution kernels have 5 to 80 MiB, packed or not; the limit
/// keeps a wrong path from filling memory.
pub(super) const MAX_KERNEL: u64 = 256 << 20;

/// Why a file cannot be booted as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It could not be read.
    #[error("Kernel {name}: cannot be read; give the path of a readable bzImage or ELF vmlinux")]
    Read {
        /// The kernel's path.
        name: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It is larger than any kernel.
    #[error("Kernel {name}: has {size} bytes, expected at most 256 MiB; is it a kernel?")]
    TooLarge {
        /// The kernel's path.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// It is something else.
    #[error(
        "Kernel {name}: is neither a bzImage nor an ELF file, but {found}; give a Linux kernel for x86-64"
    )]
    NotKernel {
        /// The kernel's path.
        name: String,
        /// What it seems to be.
        found: String,
    },
    /// It is for another processor.
    #[error(
        "Kernel {name}: wrong architecture, expected x86-64, found a kernel for {found}; build the image for x86_64-linux"
    )]
    Architecture {
        /// The kernel's path.
        name: String,
        /// The architecture it is for.
        found: &'static str,
    },
    /// It has no 64-bit entry yet.
    #[error(
        "Kernel {name}: too old for the 64-bit boot protocol, expected 2.12 or later (Linux 3.8), found {major}.{minor:02}; use a newer kernel"
    )]
    TooOld {
        /// The kernel's path.
        name: String,
        /// Major version of its boot protocol.
        major: u8,
        /// Minor version of its boot protocol.
        minor: u8,
    },
    /// It is an ELF or bzImage with something wrong in it.
    #[error("Kernel {name}: damaged, {reason}; copy or build it again")]
    Malformed {
        /// The kernel's path.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A kernel with its headers checked.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Path the user knows it by.
    pub(super) name: String,
    /// Its bytes: of the ELF file, or of the bzImage.
    pub(super) blob: Blob,
    /// How it is loaded.
    pub(super) image: Image,
}

/// How a kernel is loaded.
#[derive(Debug)]
pub(super) enum Image {
    /// An ELF file; with the setup header when it came out of a bzImage.
    Elf {
        /// What goes where.
        plan: Plan,
        /// What the bzImage around it said.
        setup: Option<Setup>,
    },
    /// A bzImage, which unpacks itself in the guest.
    BzImage {
        /// Its header.
        setup: Setup,
    },
}

impl Kernel {
    /// Recognises what `blob` holds. A bzImage stays one; see [`Kernel::unpacked`].
    pub(super) fn recognise(name: &str, blob: Blob) -> Result<Self, KernelError> {
        let size = blob.len();
        if size > MAX_KERNEL {
            let name = name.to_owned();
            return Err(KernelError::TooLarge { name, size });
        }
        let prefix = blob.prefix(PREFIX).map_err(|source| KernelError::Read {
            name: name.to_owned(),
            source,
        })?;
        let image = if prefix.starts_with(elf::MAGIC) {
            let plan = Plan::read(&blob).map_err(|fault| elf_error(name, fault))?;
            Image::Elf { plan, setup: None }
        } else if bzimage::is_bzimage(&prefix) {
            let setup = Setup::parse(&prefix).map_err(|fault| setup_error(name, fault))?;
            Image::BzImage { setup }
        } else {
            return Err(foreign(name, &prefix));
        };
        Ok(Self::new(name, blob, image))
    }

    /// Takes an ELF kernel that came out of a bzImage with this header.
    pub(super) fn from_elf(
        name: &str,
        blob: Blob,
        setup: Option<Setup>,
    ) -> Result<Self, KernelError> {
        let plan = Plan::read(&blob).map_err(|fault| elf_error(name, fault))?;
        Ok(Self::new(name, blob, Image::Elf { plan, setup }))
    }

    fn new(name: &str, blob: Blob, image: Image) -> Self {
        Self {
            name: name.to_owned(),
            blob,
            image,
        }
    }

    /// The ELF kernel inside `bzimage`, the whole file of a kernel recognised as bzImage.
    pub(super) fn unpacked(&self, bzimage: &[u8]) -> Result<Self, UnpackError> {
        let blob = Blob::Memory(unpack_kernel(bzimage)?);
        let length = blob.len();
        let setup = self.setup().cloned();
        Self::from_elf(&self.name, blob, setup).map_err(|_| UnpackError::NotElf { length })
    }

    /// The setup header, when there is one.
    pub(super) fn setup(&self) -> Option<&Setup> {
        match &self.image {
            Image::Elf { setup, .. } => setup.as_ref(),
            Image::BzImage { setup } => Some(setup),
        }
    }
}

fn elf_error(name: &str, fault: ElfFault) -> KernelError {
    let name = name.to_owned();
    match fault {
        ElfFault::Architecture(found) => KernelError::Architecture { name, found },
        ElfFault::Malformed(reason) => KernelError::Malformed { name, reason },
    }
}

fn setup_error(name: &str, fault: SetupFault) -> KernelError {
    let name = name.to_owned();
    match fault {
        SetupFault::TooOld(major, minor) => KernelError::TooOld { name, major, minor },
        SetupFault::No64BitEntry => KernelError::Architecture {
            name,
            found: "32-bit x86",
        },
        SetupFault::NoMagic | SetupFault::Truncated => KernelError::Malformed {
            name,
            reason: "it ends inside the setup header",
        },
    }
}

/// Says what a file that is no kernel for this machine seems to be.
fn foreign(name: &str, prefix: &[u8]) -> KernelError {
    let name = name.to_owned();
    // The Image formats of other architectures have their magic at 56 (boot/image.h).
    match prefix.get(56..60) {
        Some(b"ARM\x64") => {
            let found = "aarch64";
            return KernelError::Architecture { name, found };
        }
        Some(b"RSC\x05") => {
            let found = "riscv";
            return KernelError::Architecture { name, found };
        }
        _ => {}
    }
    let found = match prefix {
        [] => "an empty file".to_owned(),
        [0x1f, 0x8b, ..] => "gzip data".to_owned(),
        [b'h', b's', b'q', b's', ..] => "a squashfs image".to_owned(),
        [b'M', b'Z', ..] => "an EFI program without a Linux header".to_owned(),
        other => format!("data starting {:02x?}", other.get(..4).unwrap_or(other)),
    };
    KernelError::NotKernel { name, found }
}
