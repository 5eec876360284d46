//! A kernel with its initrd and parameters, ready to be loaded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use devices::device::Memory;
use serde::Serialize;

use super::BootConfig;
use super::initrd::Initrd;
use super::kernel::{Image, Kernel};
use super::load::{self, Entry, LoadContext, LoadError};
use super::open::open_uncached;

/// A kernel with its initrd and parameters, opened and checked, not yet in guest memory.
#[derive(Debug)]
pub struct Payload {
    pub(super) kernel: Kernel,
    pub(super) initrd: Option<Initrd>,
    pub(super) params: String,
    pub(super) found_by: String,
    pub(super) cache: CacheUse,
    pub(super) config: BootConfig,
}

impl Payload {
    /// The kernel parameters: those the source brings, `init=`, then the configuration's. What
    /// the machine needs is not in it; add that with [`super::params::insert`].
    pub fn params(&self) -> &str {
        &self.params
    }

    /// What was found, for people.
    pub fn describe(&self) -> PayloadSummary {
        PayloadSummary {
            kernel: self.kernel.name.clone(),
            format: match self.kernel.image {
                Image::Elf { .. } => KernelFormat::Elf,
                Image::BzImage { .. } => KernelFormat::BzImage,
            },
            version: self
                .kernel
                .setup()
                .and_then(|setup| setup.version())
                .map(str::to_owned),
            found_by: self.found_by.clone(),
            initrd: self.initrd.as_ref().map(|initrd| InitrdSummary {
                path: initrd.name.clone(),
                bytes: initrd.len(),
            }),
            cache: self.cache.clone(),
        }
    }

    /// Copies kernel and initrd as plain files to `dir`, for others to boot.
    ///
    /// # Errors
    /// When they cannot be read any more, or not be written.
    pub fn export(&self, dir: &Path) -> io::Result<Exported> {
        let kernel = dir.join("vmlinux");
        self.kernel.blob.copy_to_file(&kernel)?;
        let initrd = self.initrd.as_ref().map(|initrd| {
            let path = dir.join("initrd");
            initrd.copy_to_file(&path).map(|()| path)
        });
        Ok(Exported {
            kernel,
            initrd: initrd.transpose()?,
        })
    }

    /// Writes kernel, initrd, `cmdline` and the boot information into `memory`, which must be
    /// zero, and says where to enter the kernel. Registers are the caller's.
    ///
    /// A file of the cache that cannot be read any more is taken from the source again.
    pub fn load(
        &self,
        memory: &Memory,
        cmdline: &str,
        machine: &LoadContext,
    ) -> Result<Entry, LoadError> {
        let parts = (&self.kernel, self.initrd.as_ref());
        match load::load(parts, memory, cmdline, machine) {
            Err(LoadError::Read { path, source }) if self.cache.has_files() => {
                tracing::warn!(%path, error = %source, "Cached file cannot be read, using the source");
                let Ok(fresh) = open_uncached(&self.config) else {
                    return Err(LoadError::Read { path, source });
                };
                let parts = (&fresh.kernel, fresh.initrd.as_ref());
                load::load(parts, memory, cmdline, machine)
            }
            loaded => loaded,
        }
    }
}

/// Plain files of a payload; see [`Payload::export`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The kernel: ELF, unless its bzImage cannot be unpacked.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: Option<PathBuf>,
}

/// What a payload is made of; see [`Payload::describe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayloadSummary {
    /// Path of the kernel, inside the image when there is one.
    pub kernel: String,
    /// What is loaded.
    pub format: KernelFormat,
    /// The kernel's release and build, when it is known without searching for it.
    pub version: Option<String>,
    /// How kernel and parameters were found, such as `bootspec /boot.json`.
    pub found_by: String,
    /// The initrd.
    pub initrd: Option<InitrdSummary>,
    /// What the cache did.
    pub cache: CacheUse,
}

/// An initrd; see [`PayloadSummary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitrdSummary {
    /// Its path, inside the image when there is one.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What is loaded into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// A bzImage that unpacks itself in the guest.
    BzImage,
    /// An ELF vmlinux.
    Elf,
}

impl fmt::Display for KernelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BzImage => "bzImage",
            Self::Elf => "ELF",
        })
    }
}

/// What the cache did for a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheUse {
    /// Everything came from the cache.
    Hit,
    /// The cache knew nothing and was filled.
    Filled,
    /// The cache is not used, for this reason.
    Unused(String),
}

impl CacheUse {
    fn has_files(&self) -> bool {
        matches!(self, Self::Hit | Self::Filled)
    }
}

impl fmt::Display for CacheUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit => f.write_str("hit"),
            Self::Filled => f.write_str("filled"),
            Self::Unused(reason) => write!(f, "unused: {reason}"),
        }
    }
}
