//! The mini guest: a stock kernel, busybox and a script.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::initrd::Initrd;
use super::layout::{Layout, Parts};
use super::squashfs::{self, Compressor};
use crate::cache::{Cache, Recipe};
use crate::kernels::Kernel;
use crate::tools::Tools;

const BOOT_MODULES: [&str; 6] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "button",
    "evdev",
];

const MORE_MODULES: [&str; 11] = [
    "squashfs",
    "ext4",
    "overlay",
    "fuse",
    "virtiofs",
    "vmw_vsock_virtio_transport",
    "virtio_console",
    "virtio_balloon",
    "virtio_pci",
    "qemu_fw_cfg",
    "ptp_kvm",
];

/// Kernel parameters of the mini guest.
pub(super) const PARAMETERS: &str = "console=ttyS0 quiet panic=-1";

/// A mini guest for one kernel.
#[derive(Clone, Debug)]
pub struct Mini {
    kernel: Kernel,
    dir: PathBuf,
}

impl Mini {
    /// The guest, built when the cache has none.
    ///
    /// # Errors
    /// When the kernel lacks a module or the image cannot be written.
    pub fn ensure(cache: &Cache, tools: &Tools, kernel: &Kernel) -> Result<Self> {
        let recipe = recipe(
            Recipe::new(format!("mini-{}", kernel.id.name())),
            tools,
            kernel,
        );
        let dir = cache.entry(&recipe, |dir| {
            write_initrd(tools, kernel, &dir.join("initrd"))?;
            let parts = Parts {
                kernel: &kernel.bzimage(),
                initrd: &dir.join("initrd"),
                parameters: PARAMETERS,
            };
            pack(
                tools,
                Layout::Boot,
                &parts,
                (Compressor::Zstd, &dir.join("bootstrap.squashfs")),
            )
        })?;
        Ok(Self {
            kernel: kernel.clone(),
            dir,
        })
    }

    /// Its initrd.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// The usual bootstrap: `/boot/{vmlinuz,initrd,cmdline}`, compressed by zstd.
    #[must_use]
    pub fn bootstrap(&self) -> PathBuf {
        self.dir.join("bootstrap.squashfs")
    }

    /// A bootstrap in another arrangement or compression, built when the cache has none.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn variant(
        &self,
        cache: &Cache,
        tools: &Tools,
        how: (Layout, Compressor),
    ) -> Result<PathBuf> {
        let (layout, compressor) = how;
        let name = format!(
            "mini-{}-{}-{compressor}",
            self.kernel.id.name(),
            layout.name()
        );
        let recipe = recipe(Recipe::new(name), tools, &self.kernel);
        let dir = cache.entry(&recipe, |dir| {
            let parts = Parts {
                kernel: &self.kernel.bzimage(),
                initrd: &self.initrd(),
                parameters: PARAMETERS,
            };
            pack(
                tools,
                layout,
                &parts,
                (compressor, &dir.join("bootstrap.squashfs")),
            )
        })?;
        Ok(dir.join("bootstrap.squashfs"))
    }
}

fn recipe(recipe: Recipe, tools: &Tools, kernel: &Kernel) -> Recipe {
    recipe
        .with(&kernel.release)
        .with(tools.busybox().to_string_lossy().as_bytes())
        .with(include_str!("mini.rs"))
        .with(include_str!("mini-init.sh"))
        .with(include_str!("initrd.rs"))
        .with(include_str!("layout.rs"))
}

fn write_initrd(tools: &Tools, kernel: &Kernel, path: &Path) -> Result<()> {
    let initrd = Initrd {
        boot_modules: &BOOT_MODULES,
        more_modules: &MORE_MODULES,
        init: include_bytes!("mini-init.sh"),
    };
    initrd.write(kernel, tools, path)
}

fn pack(tools: &Tools, layout: Layout, parts: &Parts<'_>, to: (Compressor, &Path)) -> Result<()> {
    let (compressor, image) = to;
    let tree = image.with_extension("tree");
    layout.write(parts, &tree)?;
    squashfs::pack(tools, &tree, compressor, image)?;
    fs::remove_dir_all(tree)?;
    Ok(())
}
