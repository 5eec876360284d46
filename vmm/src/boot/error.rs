//! Why a boot source could not be opened.

use std::io;
use std::path::PathBuf;

use super::kernel::KernelError;

/// Why [`super::open`] found nothing to boot. Each case names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The image cannot be opened.
    #[error("Bootstrap {path}: cannot be opened; expected a readable squashfs image", path = path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The image is something else.
    #[error("Bootstrap {path}: is no squashfs image, it starts with {found}; make one with mksquashfs", path = path.display())]
    NotSquashfs {
        /// The image.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },
    /// The image is a squashfs that cannot be read here.
    #[error("Bootstrap {path}: {found} is not supported; expected squashfs 4.0 packed with gzip, xz, zstd or lz4", path = path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// What it uses.
        found: String,
    },
    /// The image is shorter than it says.
    #[error("Bootstrap {path}: truncated, expected {expected} bytes, found {actual}; copy or build it again", path = path.display())]
    Truncated {
        /// The image.
        path: PathBuf,
        /// Bytes its superblock promises.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// The image's metadata is larger than any real one's.
    #[error("Bootstrap {path}: has over {limit} MiB of metadata or too many or too deep directories; put fewer files into it", path = path.display())]
    Oversized {
        /// The image.
        path: PathBuf,
        /// The limit, in MiB.
        limit: u64,
    },
    /// The image's metadata is damaged.
    #[error("Bootstrap {path}: damaged squashfs; copy or build it again", path = path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// A file in the source cannot be read.
    #[error("{path}: cannot read {member}; copy or build it again", path = path.display())]
    Member {
        /// The image or directory.
        path: PathBuf,
        /// The file in it.
        member: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A file in the source is too large for what it is.
    #[error("{path}: {member} has {size} bytes, expected at most {limit}; put the right file there", path = path.display())]
    MemberTooLarge {
        /// The image or directory.
        path: PathBuf,
        /// The file in it.
        member: String,
        /// Its size in bytes.
        size: u64,
        /// The most it may have.
        limit: u64,
    },
    /// Symlinks in the image go in circles or too deep.
    #[error("{path}: too many symlinks while following {member}; point it at the file itself", path = path.display())]
    SymlinkLoop {
        /// The image.
        path: PathBuf,
        /// The path that was followed.
        member: String,
    },
    /// There is no kernel.
    #[error("{path}: holds no kernel; expected boot.json, a NixOS toplevel, or /boot with vmlinuz, bzImage, vmlinux or kernel", path = path.display())]
    NoKernel {
        /// The image or directory.
        path: PathBuf,
    },
    /// Something names a file that is not there.
    #[error("{path}: {named_by} needs {member}, which is not there; add it or build the source again", path = path.display())]
    Missing {
        /// The image or directory.
        path: PathBuf,
        /// The missing file.
        member: String,
        /// What needs it.
        named_by: String,
    },
    /// The image holds several systems.
    #[error("{path}: holds several NixOS systems ({candidates}); choose one with `boot.toplevel`", path = path.display(), candidates = candidates.join(", "))]
    Ambiguous {
        /// The image.
        path: PathBuf,
        /// The systems.
        candidates: Vec<String>,
    },
    /// A bootspec cannot be used.
    #[error("{path}: {member} is no bootspec, expected JSON with org.nixos.bootspec.v1 holding kernel, init and kernelParams", path = path.display())]
    Bootspec {
        /// The image or directory.
        path: PathBuf,
        /// The bootspec.
        member: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Kernel parameters cannot be used.
    #[error("{path}: {member} holds {found} at byte {position}, expected printable text; remove it", path = path.display())]
    Params {
        /// The image or directory.
        path: PathBuf,
        /// Where the parameters come from.
        member: String,
        /// What they hold.
        found: String,
        /// Where.
        position: usize,
    },
    /// The kernel cannot be booted.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initrd cannot be read.
    #[error("Initrd {path}: cannot be read; give the path of a readable initrd", path = path.display())]
    Initrd {
        /// The initrd.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The initrd has no bytes.
    #[error("Initrd {name}: is empty; build it again, or boot without one")]
    EmptyInitrd {
        /// The initrd's path.
        name: String,
    },
    /// The initrd is larger than could ever be loaded.
    #[error("Initrd {name}: has {size} bytes, expected at most 2 GiB")]
    InitrdTooLarge {
        /// The initrd's path.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
}
