//! The demo guest: a Debian with systemd and an SSH server, its root the read-only image with the
//! slot's data disk over it. Its address follows from its MAC; `root` logs in by a key made here.

mod files;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::initrd::Initrd;
use super::squashfs::{self, Compressor};
use crate::cache::{Cache, Recipe};
use crate::kernels::{Flavour, Kernel, KernelId};
use crate::packages::{Apt, Suite, unpack};
use crate::process;
use crate::progress::Step;
use crate::sys;
use crate::tools::Tools;

/// Beyond what every system has: an init, device handling, a network, an SSH server, apt, and what a
/// host of slots needs, since tests under systemd run slots in this system.
const PACKAGES: [&str; 16] = [
    "?essential",
    "apt",
    "dbus",
    "debian-archive-keyring",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netbase",
    "nftables",
    "openssh-server",
    "procps",
    "systemd-sysv",
    "udev",
    "vim-tiny",
];

const BOOT_MODULES: [&str; 8] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "squashfs",
    "overlay",
    "ext4",
];

/// Modules that the initrd inserts when `rd.driver.pre=` names them: systemd looks for sockets before it
/// loads modules itself.
const EARLY_MODULES: [&str; 1] = ["vmw_vsock_virtio_transport"];

/// Kernel parameters of the demo guest.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 net.ifnames=0";

/// A demo guest.
#[derive(Clone, Debug)]
pub struct Demo {
    dir: PathBuf,
    key: PathBuf,
}

impl Demo {
    /// The guest made of `suite`, built when the cache has none. Needs root.
    ///
    /// # Errors
    /// When a package cannot be fetched or installed, or the image cannot be written.
    pub fn ensure(cache: &Cache, tools: &Tools, suite: Suite) -> Result<Self> {
        let key = login_key(cache, tools)?;
        let kernel = Kernel::ensure(
            cache,
            tools,
            KernelId {
                suite,
                flavour: Flavour::Cloud,
            },
        )?;
        let recipe = Recipe::new(format!("demo-{suite}"))
            .with(&kernel.release)
            .with(key.to_string_lossy().as_bytes())
            .with(include_str!("mod.rs"))
            .with(include_str!("files.rs"))
            .with(include_str!("install.sh"))
            .with(include_str!("init.sh"))
            .with(include_str!("../initrd.rs"));
        let dir = cache.entry(&recipe, |dir| {
            let root = dir.join("root");
            install(cache, suite, &root)?;
            add_kernel(tools, &kernel, &root)?;
            let public = fs::read_to_string(key.with_extension("pub"))?;
            files::write(&root, &public)?;
            let _step = Step::start("Packing the demo guest");
            squashfs::pack(
                tools,
                &root,
                Compressor::Zstd,
                &dir.join("bootstrap.squashfs"),
            )?;
            fs::remove_dir_all(&root).context("Cannot remove the unpacked guest")
        })?;
        Ok(Self { dir, key })
    }

    /// The bootstrap.
    #[must_use]
    pub fn bootstrap(&self) -> PathBuf {
        self.dir.join("bootstrap.squashfs")
    }

    /// The private key that logs in as root.
    #[must_use]
    pub fn key(&self) -> &Path {
        &self.key
    }
}

/// The key pair of this cache.
fn login_key(cache: &Cache, tools: &Tools) -> Result<PathBuf> {
    let dir = cache.entry(&Recipe::new("login-key"), |dir| {
        let mut keygen = tools.command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "slotvmm-lab", "-f"]);
        process::output(keygen.arg(dir.join("id")))?;
        Ok(())
    })?;
    Ok(dir.join("id"))
}

fn install(cache: &Cache, suite: Suite, root: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("Installing a guest needs root: run this as root once, it is kept in the cache");
    }
    let archives = root.with_extension("archives");
    Apt::open(cache, suite)?.download_closure(&PACKAGES, &archives)?;
    let _step = Step::start(format!("Installing a Debian guest ({suite})"));
    fs::create_dir(root)?;
    unpack(&archives, root)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
    command
        .arg(include_str!("install.sh"))
        .arg("install")
        .arg(root)
        .arg(&archives);
    process::output(sys::die_with_parent(&mut command))?;
    fs::remove_dir_all(archives)?;
    Ok(())
}

/// Puts the kernel where a bootstrap has it, and its modules where the system looks for them.
fn add_kernel(tools: &Tools, kernel: &Kernel, root: &Path) -> Result<()> {
    let boot = root.join("boot");
    fs::copy(kernel.bzimage(), boot.join("vmlinuz")).context("Cannot copy the kernel")?;
    fs::write(boot.join("cmdline"), format!("{PARAMETERS}\n"))?;
    let initrd = Initrd {
        boot_modules: &BOOT_MODULES,
        more_modules: &EARLY_MODULES,
        init: include_bytes!("init.sh"),
    };
    initrd.write(kernel, tools, &boot.join("initrd"))?;
    let modules = root.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    process::output(
        Command::new("cp")
            .arg("-a")
            .arg(kernel.modules_dir())
            .arg(&modules),
    )?;
    // The kernel package's links into its source package lead nowhere here.
    for link in ["build", "source"] {
        let _absent = fs::remove_file(modules.join(&kernel.release).join(link));
    }
    if root.join("sbin/init").symlink_metadata().is_err() {
        symlink("/lib/systemd/systemd", root.join("usr/sbin/init"))?;
    }
    Ok(())
}
