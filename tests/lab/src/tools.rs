//! The programs the lab needs beyond a base system, unpacked from packages into the cache and run
//! with their own C library, so that they neither clash with nor depend on what is installed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Recipe};
use crate::packages::{Apt, Suite, unpack};
use crate::process::quoted;
use crate::progress::Step;

const PACKAGES: [&str; 11] = [
    "qemu-system-x86",
    "squashfs-tools",
    "busybox-static",
    "nftables",
    "iproute2",
    "openssh-client",
    "e2fsprogs",
    "xfsprogs",
    "btrfs-progs",
    "kmod",
    "virtiofsd",
];

/// Programs that get a wrapper in `bin`.
const PROGRAMS: [&str; 22] = [
    "qemu-system-x86_64",
    "mksquashfs",
    "unsquashfs",
    "nft",
    "ip",
    "bridge",
    "tc",
    "ss",
    "ssh",
    "ssh-keygen",
    "mkfs.ext4",
    "e2fsck",
    "dumpe2fs",
    "debugfs",
    "resize2fs",
    "mkfs.xfs",
    "mkfs.btrfs",
    "xfs_io",
    "modprobe",
    "depmod",
    "lsmod",
    "virtiofsd",
];

/// The loader of programs among the packages.
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Where the packages have QEMU's data.
const QEMU_DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// The unpacked programs.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// The tools, fetched when the cache has none.
    ///
    /// # Errors
    /// When a package cannot be fetched or unpacked.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        let recipe = Recipe::new("tools")
            .with(PACKAGES.join(" "))
            .with(include_str!("tools.rs"));
        let target = cache.root().join(recipe.key());
        let dir = cache.entry(&recipe, |dir| build(cache, dir, &target))?;
        Ok(Self { dir })
    }

    /// A command that runs the tool called `name`.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.bin().join(name))
    }

    /// A command that runs `program`, which was built for these tools' libraries, with them.
    #[must_use]
    pub fn command_of(&self, program: &Path) -> Command {
        let root = self.root();
        let mut command = Command::new(root.join(LOADER));
        command
            .arg("--library-path")
            .arg(libraries(&root))
            .arg(program);
        command
    }

    /// The arguments that tell QEMU where its data is.
    #[must_use]
    pub fn qemu_data(&self) -> Vec<OsString> {
        let dirs = QEMU_DATA.map(|dir| ["-L".into(), self.root().join(dir).into_os_string()]);
        dirs.concat()
    }

    /// The directory with the wrappers: for the end of a `PATH`.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The root directory that the packages were unpacked in.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The statically linked busybox, which runs anywhere.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        self.root().join("usr/bin/busybox")
    }
}

fn build(cache: &Cache, dir: &Path, target: &Path) -> Result<()> {
    let archives = dir.join("archives");
    // Under Debian 12's QEMU 7.2, stock 6.12 guests of any VMM crash now and then where they patch
    // their own text; under 10.0 they were not seen to.
    Apt::open(cache, Suite::Trixie)?.download_closure(&PACKAGES, &archives)?;
    let _step = Step::start("Unpacking tools");
    let root = dir.join("root");
    unpack(&archives, &root)?;
    fs::remove_dir_all(&archives)?;
    fs::create_dir(dir.join("bin"))?;
    PROGRAMS
        .iter()
        .try_for_each(|name| write_wrapper(dir, target, name))
}

/// Writes the wrapper of one program among those unpacked in `dir`. Wrappers name `target`, where the
/// entry is about to be.
///
/// # Errors
/// When there is no such program, or the wrapper cannot be written.
pub(crate) fn write_wrapper(dir: &Path, target: &Path, name: &str) -> Result<()> {
    let found = ["usr/bin", "usr/sbin", "usr/libexec"]
        .iter()
        .map(|sub| Path::new(sub).join(name))
        .find_map(|path| resolve(&dir.join("root"), path));
    let Some(program) = found else {
        bail!("No {name} among the unpacked tools")
    };
    let root = target.join("root");
    let path = |sub: &str| quoted(&root.join(sub).to_string_lossy());
    // These programs look for their data under the root they were built for.
    let extra = match name {
        "qemu-system-x86_64" => QEMU_DATA.map(|dir| format!(" -L {}", path(dir))).concat(),
        _ => String::new(),
    };
    let script = format!(
        "#!/bin/sh\nexport MKE2FS_CONFIG={} QEMU_MODULE_DIR={}\nexec {} --argv0 {name} --library-path {} {}{extra} \"$@\"\n",
        path("etc/mke2fs.conf"),
        path("usr/lib/x86_64-linux-gnu/qemu"),
        path(LOADER),
        quoted(&libraries(&root)),
        path(&program.to_string_lossy()),
    );
    let wrapper = dir.join("bin").join(name);
    fs::write(&wrapper, script).with_context(|| format!("Cannot write {}", wrapper.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Where the packages' libraries are, for the loader.
fn libraries(root: &Path) -> String {
    let dir = |sub: &str| root.join(sub).display().to_string();
    [dir("usr/lib/x86_64-linux-gnu"), dir("usr/lib")].join(":")
}

/// Follows the links that `path` is, as if `root` were the root directory. Nothing when it leads
/// nowhere.
fn resolve(root: &Path, mut path: PathBuf) -> Option<PathBuf> {
    for _ in 0..8 {
        let Ok(target) = fs::read_link(root.join(&path)) else {
            return root.join(&path).exists().then_some(path);
        };
        path = match target.strip_prefix("/") {
            Ok(absolute) => absolute.to_owned(),
            Err(_) => path.parent()?.join(target),
        };
    }
    None
}
