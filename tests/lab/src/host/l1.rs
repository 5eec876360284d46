//! The emulated host's system: a stock kernel and a first filesystem that mounts the real one.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cache::{Cache, Recipe};
use crate::cpio::CpioWriter;
use crate::kernels::{Flavour, Kernel, KernelId, Modules};
use crate::packages::Suite;
use crate::tools::Tools;

const KERNEL: KernelId = KernelId {
    suite: Suite::Bookworm,
    flavour: Flavour::Generic,
};

/// What mounting the machine's root needs.
const BOOT_MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// What virtual machines, networks and disk images need.
const HOST_MODULES: [&str; 30] = [
    "kvm_amd",
    "xfs",
    "tun",
    "tap",
    "vhost_net",
    "vhost_vsock",
    "bridge",
    "veth",
    "dummy",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_reject_inet",
    "nft_limit",
    "nft_log",
    "nft_fib_inet",
    "nft_redir",
    "nft_numgen",
    "nf_conntrack_netlink",
    "br_netfilter",
    "ext4",
    "squashfs",
    "loop",
    "fuse",
    "virtio_net",
    "nfnetlink_log",
    "nfnetlink",
    "vsock_loopback",
];

/// The host's parts in the cache.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kernel: Kernel,
    dir: PathBuf,
}

impl Image {
    /// The image, built when the cache has none.
    pub(super) fn ensure(cache: &Cache, tools: &Tools) -> Result<Self> {
        let kernel = Kernel::ensure(cache, tools, KERNEL)?;
        let recipe = Recipe::new("host")
            .with(&kernel.release)
            .with(tools.busybox().to_string_lossy().as_bytes())
            .with(include_str!("l1.rs"))
            .with(include_str!("l1-init.sh"));
        let dir = cache.entry(&recipe, |dir| build(tools, &kernel, dir))?;
        Ok(Self { kernel, dir })
    }

    pub(super) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// Directory of the modules to insert, uncompressed.
    pub(super) fn insmod_dir(&self) -> PathBuf {
        self.dir.join("modules")
    }

    /// Their names in order, one a line.
    pub(super) fn insmod_order(&self) -> PathBuf {
        self.dir.join("order")
    }
}

fn build(tools: &Tools, kernel: &Kernel, dir: &Path) -> Result<()> {
    let modules = kernel.modules()?;
    let boot = modules.closure(&BOOT_MODULES)?;
    write_initrd(tools, &modules, &boot, &dir.join("initrd"))?;
    let rest: Vec<String> = modules
        .closure(&HOST_MODULES)?
        .into_iter()
        .filter(|name| !boot.contains(name))
        .collect();
    fs::create_dir(dir.join("modules"))?;
    for name in &rest {
        fs::write(
            dir.join(format!("modules/{name}.ko")),
            modules.load(name)?.object,
        )?;
    }
    fs::write(dir.join("order"), rest.join("\n"))?;
    Ok(())
}

fn write_initrd(tools: &Tools, modules: &Modules, order: &[String], path: &Path) -> Result<()> {
    let mut cpio = CpioWriter::new(BufWriter::new(File::create(path)?));
    for name in ["bin", "modules"] {
        cpio.directory(name)?;
    }
    cpio.file("init", 0o755, include_bytes!("l1-init.sh"))?;
    cpio.file("bin/busybox", 0o755, &fs::read(tools.busybox())?)?;
    for name in order {
        cpio.file(
            &format!("modules/{name}.ko"),
            0o644,
            &modules.load(name)?.object,
        )?;
    }
    cpio.file("modules/order", 0o644, order.join("\n").as_bytes())?;
    cpio.finish()?;
    Ok(())
}
