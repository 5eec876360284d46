//! From "a bootstrap" to bytes in guest memory: finds a kernel, its initrd and its parameters,
//! and writes them where the x86 boot protocols want them.
//!
//! The steps, each in its own file:
//!
//! 1. [`open`] looks the image up in the [`cache`] index; a hit needs no squashfs metadata at all.
//! 2. On a miss, [`bootstrap`] searches a [`source`] (a squashfs image or a host directory) for a
//!    bootspec, a NixOS toplevel or a `/boot` directory, and [`unpack`] takes the ELF kernel out of
//!    a bzImage, once. Both end up as plain files in the cache.
//! 3. [`Payload::load`] reads the files straight into guest memory and writes the command line and
//!    the zero page (Linux/x86 boot protocol 2.15) or the PVH start info.
//!
//! A damaged, foreign or unwritable cache costs time, never a boot: every cached byte can be had
//! from the image again, and a bzImage whose payload cannot be unpacked is booted as it is.
//!
//! Not here: registers and page tables of the boot vCPU, ACPI, and what the machine adds to the
//! command line.

mod blob;
mod bootspec;
mod bootstrap;
mod bzimage;
mod cache;
mod elf;
mod error;
mod identity;
mod initrd;
mod kernel;
mod load;
mod open;
mod parallel;
pub mod params;
mod payload;
mod pvh;
mod source;
mod squashfs;
mod sys;
mod toplevel;
mod unpack;
mod version;
mod zero_page;

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers in tests are small"
)]
mod testing;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers in tests are small"
)]
mod tests;

use std::path::PathBuf;

pub use error::OpenError;
pub use kernel::KernelError;
pub use load::{Entry, LoadContext, LoadError, Protocol};
pub use open::{inspect, open};
pub use payload::{CacheUse, Exported, InitrdSummary, KernelFormat, Payload, PayloadSummary};
pub use unpack::{UnpackError, unpack_kernel};

/// What to boot and with which parameters.
#[derive(Debug, Clone)]
pub struct BootConfig {
    /// Where kernel and initrd come from.
    pub source: BootSource,
    /// Kernel parameters appended to those the source brings, one or more words each.
    pub params: Vec<String>,
    /// Kernel parameters added only where neither the source nor `params` sets the same one.
    pub defaults: Vec<DefaultParam>,
    /// Path of the guest's init, instead of the one the source names.
    pub init: Option<String>,
    /// Directory of unpacked kernels and initrds; created when missing. `None` boots without.
    pub cache_dir: Option<PathBuf>,
}

/// A kernel parameter that is added only where nothing speaks against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultParam {
    /// The parameter, one word.
    pub text: String,
    /// Names of other parameters where each, when it is set, leaves this one out.
    pub unless: Vec<String>,
}

impl From<&str> for DefaultParam {
    /// A parameter that only itself speaks against.
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            unless: Vec::new(),
        }
    }
}

/// Where kernel and initrd come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootSource {
    /// A squashfs image that holds them.
    Bootstrap {
        /// The image file.
        image: PathBuf,
        /// NixOS toplevel inside the image, such as `/nix/store/<hash>-nixos-system-…`; needed
        /// only when the image holds several.
        toplevel: Option<String>,
    },
    /// A NixOS toplevel directory on the host.
    Toplevel {
        /// The directory, or a symlink to it.
        path: PathBuf,
    },
    /// Plain files on the host.
    Files {
        /// A bzImage or an ELF vmlinux.
        kernel: PathBuf,
        /// The initrd, if the kernel wants one.
        initrd: Option<PathBuf>,
    },
}
