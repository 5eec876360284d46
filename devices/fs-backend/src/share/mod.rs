//! The directory that is shared, and the only ways to reach what lies in it.
//!
//! Everything is opened relative to the share's own descriptor or to one opened from it, with
//! `openat2`: never above it, never through a symbolic link, never into another mount. Names come
//! through [`Name`], which lets only single components pass. Nothing here can write.

mod descriptors;
mod directory;
mod name;
mod stat;
mod tree;

pub use self::descriptors::Budget;
pub use self::directory::{Directory, Entry, Take};
pub use self::name::Name;
pub use self::stat::{Owners, Stat};
pub use self::tree::Tree;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::inode::Kind;

/// Longest path for one call, in bytes, with its end: `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// How nothing may be reached.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("Cannot open {}, which is to be shared", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// It cannot be looked at.
    #[error("Cannot look at the directory that is to be shared")]
    Stat(#[source] Errno),
    /// It is something else.
    #[error("{} is not a directory: expected one to share", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
}

/// The directory that is shared.
#[derive(Debug)]
pub struct Share {
    root: OwnedFd,
    /// Its mount: what lies in another one is not shared.
    mount: u64,
}

impl Share {
    /// The directory at `path`.
    ///
    /// # Errors
    /// When it cannot be opened, or is no directory.
    pub fn open(path: &Path) -> Result<Self, ShareError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|source| {
            let path = path.to_owned();
            match source {
                Errno::NOTDIR => ShareError::NotADirectory { path },
                source => ShareError::Open { path, source },
            }
        })?;
        Self::new(root)
    }

    /// The directory that `root` is.
    ///
    /// # Errors
    /// When it cannot be looked at, or is no directory.
    pub fn new(root: OwnedFd) -> Result<Self, ShareError> {
        let stat = Stat::of(root.as_fd()).map_err(ShareError::Stat)?;
        if stat.kind() != Kind::Directory {
            let path = PathBuf::from("What was given");
            return Err(ShareError::NotADirectory { path });
        }
        let mount = stat.mount();
        Ok(Self { root, mount })
    }

    /// Its descriptor.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What `name` in `directory` is.
    ///
    /// # Errors
    /// `EXDEV` for what lies in another mount; what the host says.
    pub fn stat_at(&self, directory: BorrowedFd<'_>, name: Name<'_>) -> Result<Stat, Errno> {
        let stat = Stat::at(directory, name)?;
        if stat.mount() == self.mount {
            Ok(stat)
        } else {
            Err(Errno::XDEV)
        }
    }

    /// Opens the inode that `names` lead to from `base`, or from the root. A path that is too long
    /// for one call is gone in several.
    ///
    /// # Errors
    /// What the host says.
    pub fn open_beneath(
        &self,
        base: Option<BorrowedFd<'_>>,
        names: &[Box<[u8]>],
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        let mut base: Base<'_> = Base::Borrowed(base.unwrap_or(self.root.as_fd()));
        let mut path = Vec::new();
        for name in names {
            if path.len() + 1 + name.len() + 1 > MAX_PATH {
                let step = OFlags::PATH | OFlags::DIRECTORY;
                base = Base::Owned(open_at(base.fd(), &path, step)?);
                path.clear();
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'.');
        }
        open_at(base.fd(), &path, flags)
    }
}

/// Where a path begins.
enum Base<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl Base<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Owned(fd) => fd.as_fd(),
        }
    }
}

fn open_at(base: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(base, path, flags, Mode::empty(), BENEATH)
}
