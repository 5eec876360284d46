//! OpenZFS for the emulated host, which stock kernels do not have: the module, built of Debian's
//! `zfs-dkms` for the host's kernel, and the programs that drive it.
//!
//! Made only when it is asked for (`cargo lab zfs`): building the module takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Recipe};
use crate::host::Job;
use crate::kernels::Kernel;
use crate::packages::{Apt, Suite, unpack};
use crate::process;
use crate::progress::Step;
use crate::sys;
use crate::tools::write_wrapper;

/// Names the version of OpenZFS in the environment of jobs that have one.
const VERSION_VARIABLE: &str = "LAB_ZFS";

/// The release that OpenZFS is taken from: it builds for older kernels as well.
const SUITE: Suite = Suite::Trixie;

/// Programs that get a wrapper in `bin`.
const PROGRAMS: [&str; 2] = ["zfs", "zpool"];

/// The modules, in the order in which they are inserted.
const MODULES: [&str; 2] = ["spl", "zfs"];

/// What a module is built with, besides the kernel's headers.
const BUILD_PACKAGES: [&str; 4] = ["?essential", "gcc", "make", "libc6-dev"];

/// OpenZFS for one kernel.
#[derive(Clone, Debug)]
pub struct Zfs {
    version: String,
    packages: PathBuf,
    modules: PathBuf,
}

impl Zfs {
    /// OpenZFS for `kernel`, fetched and built when the cache has none. Building it needs root.
    ///
    /// # Errors
    /// When a package cannot be fetched, or the module does not build.
    pub fn ensure(cache: &Cache, kernel: &Kernel) -> Result<Self> {
        let recipe = Recipe::new("zfs")
            .with(PROGRAMS.join(" "))
            .with(include_str!("mod.rs"));
        let target = cache.root().join(recipe.key());
        let packages = cache.entry(&recipe, |dir| fetch(cache, dir, &target))?;
        let version = source_version(&packages)?;
        let recipe = Recipe::new("zfs-module")
            .with(&kernel.release)
            .with(&version)
            .with(BUILD_PACKAGES.join(" "))
            .with(include_str!("build.sh"));
        let modules = cache.entry(&recipe, |dir| build(cache, (&packages, kernel), dir))?;
        Ok(Self {
            version,
            packages,
            modules,
        })
    }

    /// Its version, such as `2.3.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The job, on a host whose kernel has ZFS and with its programs.
    #[must_use]
    pub fn equip(&self, job: Job) -> Job {
        let path = job.variable("PATH").unwrap_or("/usr/sbin:/usr/bin");
        let path = format!("{path}:{}", self.packages.join("bin").display());
        let mut job = job
            .with_variable("PATH", path)
            .with_variable(VERSION_VARIABLE, &self.version);
        job.modules = MODULES
            .map(|name| self.modules.join(format!("{name}.ko")))
            .to_vec();
        job
    }
}

/// Unpacks the programs with all they need, and the source of the modules.
fn fetch(cache: &Cache, dir: &Path, target: &Path) -> Result<()> {
    let archives = dir.join("archives");
    let apt = Apt::open(cache, SUITE)?;
    apt.download_closure(&["zfsutils-linux"], &archives)?;
    apt.download_alone("zfs-dkms", &archives)?;
    unpack(&archives, &dir.join("root"))?;
    fs::remove_dir_all(&archives)?;
    fs::create_dir(dir.join("bin"))?;
    PROGRAMS
        .iter()
        .try_for_each(|name| write_wrapper(dir, target, name))
}

/// The version in the name of the source's directory, `zfs-<version>`.
fn source_version(packages: &Path) -> Result<String> {
    let sources = packages.join("root/usr/src");
    fs::read_dir(&sources)
        .with_context(|| format!("Cannot read {}", sources.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find_map(|name| name.strip_prefix("zfs-").map(str::to_owned))
        .with_context(|| format!("No source of ZFS in {}", sources.display()))
}

/// Builds the modules in a system of the release that the kernel is of.
fn build(cache: &Cache, (packages, kernel): (&Path, &Kernel), dir: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("Building ZFS needs root: run this as root once, it is kept in the cache");
    }
    let (archives, root) = (dir.join("archives"), dir.join("root"));
    let headers = format!("linux-headers-{}", kernel.release);
    let names = [&BUILD_PACKAGES[..], &[&headers]].concat();
    Apt::open(cache, kernel.id.suite)?.download_closure(&names, &archives)?;
    let _step = Step::start(format!("Building ZFS for {}", kernel.release));
    unpack(&archives, &root)?;
    let source = format!("usr/src/zfs-{}", source_version(packages)?);
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(packages.join("root").join(&source));
    process::output(copy.arg(root.join("usr/src")))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
    command.args([include_str!("build.sh"), "build"]);
    command.arg(&root).arg(&kernel.release);
    process::output(sys::die_with_parent(&mut command))?;
    for name in MODULES {
        let module = format!("{name}.ko");
        let built = root.join(&source).join("module").join(&module);
        fs::copy(&built, dir.join(&module))
            .with_context(|| format!("Cannot copy {}", built.display()))?;
    }
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(&root).context("Cannot remove what ZFS was built in")
}
