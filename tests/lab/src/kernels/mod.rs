//! Stock distribution kernels: image, the ELF inside it, modules.

mod modules;
mod payload;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::cache::{Cache, Recipe};
use crate::packages::{Apt, Suite, unpack};
use crate::process;
use crate::progress::Step;
use crate::tools::Tools;

pub use modules::{Module, Modules};
pub use payload::vmlinux;

/// Which build of a suite's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// Few drivers, for virtual machines.
    Cloud,
    /// Everything, for any machine.
    Generic,
}

/// A distribution kernel, by suite and flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelId {
    /// The release it comes from.
    pub suite: Suite,
    /// Its build.
    pub flavour: Flavour,
}

impl FromStr for KernelId {
    type Err = anyhow::Error;

    /// The kernel of this short name.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .with_context(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("There is no kernel {name}, expected one of {names}")
            })
    }
}

impl KernelId {
    /// Every kernel the lab knows: Debian 12's and 13's, both flavours.
    pub const ALL: [Self; 4] = [
        Self {
            suite: Suite::Bookworm,
            flavour: Flavour::Cloud,
        },
        Self {
            suite: Suite::Bookworm,
            flavour: Flavour::Generic,
        },
        Self {
            suite: Suite::Trixie,
            flavour: Flavour::Cloud,
        },
        Self {
            suite: Suite::Trixie,
            flavour: Flavour::Generic,
        },
    ];

    /// Its short name, such as `6.1-cloud`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.suite, self.flavour) {
            (Suite::Bookworm, Flavour::Cloud) => "6.1-cloud",
            (Suite::Bookworm, Flavour::Generic) => "6.1-generic",
            (Suite::Trixie, Flavour::Cloud) => "6.12-cloud",
            (Suite::Trixie, Flavour::Generic) => "6.12-generic",
        }
    }

    const fn package(self) -> &'static str {
        match self.flavour {
            Flavour::Cloud => "linux-image-cloud-amd64",
            Flavour::Generic => "linux-image-amd64",
        }
    }
}

/// A fetched kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Which one.
    pub id: KernelId,
    /// What `uname -r` says in it.
    pub release: String,
    dir: PathBuf,
}

impl Kernel {
    /// The kernel, fetched when the cache has none.
    ///
    /// # Errors
    /// When the package cannot be fetched or is not what a kernel package is.
    pub fn ensure(cache: &Cache, tools: &Tools, id: KernelId) -> Result<Self> {
        let recipe = Recipe::new(format!("kernel-{}", id.name()))
            .with(id.package())
            .with(include_str!("mod.rs"))
            .with(include_str!("payload.rs"));
        let dir = cache.entry(&recipe, |dir| build(cache, tools, id, dir))?;
        let release = fs::read_to_string(dir.join("release"))?;
        Ok(Self { id, release, dir })
    }

    /// The compressed image, as the distribution ships it.
    #[must_use]
    pub fn bzimage(&self) -> PathBuf {
        self.dir.join(format!("root/boot/vmlinuz-{}", self.release))
    }

    /// The ELF image from inside it.
    #[must_use]
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The directory that belongs at `/lib/modules/<release>`.
    #[must_use]
    pub fn modules_dir(&self) -> PathBuf {
        self.dir.join("root/usr/lib/modules").join(&self.release)
    }

    /// The modules and what they need.
    ///
    /// # Errors
    /// When the module index cannot be read.
    pub fn modules(&self) -> Result<Modules> {
        Modules::open(&self.modules_dir())
    }
}

fn build(cache: &Cache, tools: &Tools, id: KernelId, dir: &Path) -> Result<()> {
    let archives = dir.join("archives");
    Apt::open(cache, id.suite)?.download_one(id.package(), "linux-image-", &archives)?;
    let _step = Step::start(format!("Unpacking kernel {}", id.name()));
    let root = dir.join("root");
    unpack(&archives, &root)?;
    fs::remove_dir_all(&archives)?;
    let release = release_in(&root)?;
    process::output(tools.command("depmod").arg("-b").arg(&root).arg(&release))?;
    let image = root.join(format!("boot/vmlinuz-{release}"));
    let bytes = fs::read(&image).with_context(|| format!("Cannot read {}", image.display()))?;
    let elf = vmlinux(&bytes).with_context(|| format!("Cannot unpack {}", image.display()))?;
    fs::write(dir.join("vmlinux"), elf)?;
    fs::write(dir.join("release"), release)?;
    Ok(())
}

/// The release of the one kernel in `root`.
fn release_in(root: &Path) -> Result<String> {
    fs::read_dir(root.join("boot"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
        .context("No boot/vmlinuz-* in the kernel package")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_name() {
        for kernel in KernelId::ALL {
            assert_eq!(kernel.name().parse::<KernelId>().unwrap(), kernel);
        }
        let error = "5.10".parse::<KernelId>().unwrap_err().to_string();
        assert!(
            error.contains("no kernel 5.10, expected one of 6.1-cloud, "),
            "{error}"
        );
    }
}
