//! What is booted: one machine, described once for every monitor.

use std::path::PathBuf;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// vCPUs.
    pub vcpus: u8,
    /// Guest RAM in MiB.
    pub memory_mib: u64,
    /// The kernel: an ELF file, so that no monitor unpacks it.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// Kernel parameters.
    pub cmdline: String,
    /// Disks, in the order in which the guest is to find them.
    pub disks: Vec<Disk>,
    /// The guest's address on its socket device, when it has one.
    pub cid: Option<u32>,
}

/// A raw image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether the guest may write to it.
    pub access: Access,
}

/// Whether a guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may not.
    ReadOnly,
    /// It may: the image is a copy that is thrown away.
    ReadWrite,
}
