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
    /// Network cards, in the order in which the guest is to find them.
    pub nics: Vec<Nic>,
    /// Shared directories.
    pub shares: Vec<Share>,
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

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The tap that is its other end.
    pub tap: String,
    /// Its address, in hexadecimal with colons.
    pub mac: String,
    /// Pairs of queues.
    pub queues: u8,
    /// Whether the host's kernel serves them, for monitors that leave it that.
    pub vhost: bool,
}

/// A shared directory, which somebody serves at a vhost-user socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// What the guest mounts it by.
    pub tag: String,
    /// Request queues.
    pub queues: u16,
}

/// Whether a guest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may not.
    ReadOnly,
    /// It may: the image is a copy that is thrown away.
    ReadWrite,
}
