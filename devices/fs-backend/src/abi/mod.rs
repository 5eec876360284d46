//! The FUSE wire format, as `include/uapi/linux/fuse.h` of Linux 6.18 has it (protocol 7.45).
//!
//! Only layout: what a message looks like, not what it does. Names are those of the header without
//! their prefix. Everything is in the byte order of the machine, which virtio-fs requires to be the
//! guest's (virtio 1.2, section 5.11.6.1: the FUSE session's endianness is detected by the opcode
//! of its first request; guests here share the host's).

pub mod attr;
pub mod entry;
pub mod init;
pub mod mapping;
pub mod opcode;
pub mod requests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Node of the directory that is shared, `FUSE_ROOT_ID`.
pub const ROOT_ID: u64 = 1;

/// Longest name of a directory entry, `FUSE_NAME_MAX` of the driver: Linux's own `NAME_MAX`
/// applies to what the host can hold.
pub const NAME_MAX: usize = 255;

/// Head of every request, `struct fuse_in_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InHeader {
    /// Length of the request with this header, in bytes.
    pub len: u32,
    /// What is asked for: see [`opcode::Opcode`].
    pub opcode: u32,
    /// The request's number, which its reply repeats.
    pub unique: u64,
    /// The inode that is meant.
    pub nodeid: u64,
    /// Who asks; not used, permissions are the guest's business.
    pub uid: u32,
    /// Who asks.
    pub gid: u32,
    /// Who asks.
    pub pid: u32,
    /// Length of extensions, in units of eight bytes; none is asked for.
    pub total_extlen: u16,
    /// Not used.
    pub padding: u16,
}

/// Head of every reply, `struct fuse_out_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OutHeader {
    /// Length of the reply with this header, in bytes.
    pub len: u32,
    /// Zero, or the negative error number.
    pub error: i32,
    /// Number of the request.
    pub unique: u64,
}

/// Length of [`InHeader`], in bytes.
pub const IN_HEADER_LEN: usize = size_of::<InHeader>();
/// Length of [`OutHeader`], in bytes.
pub const OUT_HEADER_LEN: usize = size_of::<OutHeader>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_kernels_header() {
        assert_eq!(IN_HEADER_LEN, 40);
        assert_eq!(OUT_HEADER_LEN, 16);
        assert_eq!(size_of::<attr::Attr>(), 88);
        assert_eq!(size_of::<attr::AttrOut>(), 104);
        assert_eq!(size_of::<attr::StatxOut>(), 288);
        assert_eq!(size_of::<attr::StatfsOut>(), 80);
        assert_eq!(size_of::<entry::EntryOut>(), 128);
        assert_eq!(size_of::<entry::Dirent>(), 24);
        assert_eq!(size_of::<init::InitIn>(), 64);
        assert_eq!(size_of::<init::InitOut>(), 64);
        assert_eq!(size_of::<requests::ReadIn>(), 40);
        assert_eq!(size_of::<requests::OpenOut>(), 16);
        assert_eq!(size_of::<requests::LseekIn>(), 24);
        assert_eq!(size_of::<requests::StatxIn>(), 24);
    }
}
