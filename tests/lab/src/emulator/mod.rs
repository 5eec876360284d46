//! The emulator built of Debian's source, with a fault mended for which counted runs stand still.
//!
//! QEMU 10.0 and 11.1 deliver an interrupt that VMRUN injects a second time when the loop of translated
//! code is left at the wrong moment. With counted instructions each timer of the emulated host leaves
//! it, and a guest with many interrupts soon waits for a lock that the code below its interrupt holds.
//! With a thread for each processor that is rare.
//!
//! Built only for what needs it: that takes some minutes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Recipe};
use crate::packages::{Apt, Suite, unpack};
use crate::process;
use crate::progress::Step;
use crate::sys;
use crate::tools::Tools;

/// The program.
const NAME: &str = "qemu-system-x86_64";

/// Chooses the emulator (`packaged` or `mended`) of jobs that do not need the mended one.
const VARIABLE: &str = "SLOTVMM_LAB_EMULATOR";

/// The release whose libraries the tools have, which the emulator runs with.
const SUITE: Suite = Suite::Trixie;

/// What it is built with.
const BUILD_PACKAGES: [&str; 12] = [
    "?essential",
    "gcc",
    "libc6-dev",
    "meson",
    "ninja-build",
    "pkgconf",
    "python3-venv",
    "python3-pycotap",
    "ca-certificates",
    "libglib2.0-dev",
    "libfdt-dev",
    "zlib1g-dev",
];

/// Which program emulates the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emulator {
    /// As Debian ships it, unless `$SLOTVMM_LAB_EMULATOR` says `mended`.
    #[default]
    Packaged,
    /// Built with the fault mended.
    Mended,
}

impl Emulator {
    /// A command that starts it, built when the cache has none. Building it needs root.
    ///
    /// # Errors
    /// When the variable has another value, the source cannot be fetched, or it does not build.
    pub fn command(self, cache: &Cache, tools: &Tools) -> Result<Command> {
        match self.or_variable(env::var_os(VARIABLE))? {
            Self::Packaged => Ok(tools.command(NAME)),
            Self::Mended => {
                let mut command = tools.command_of(&ensure(cache)?);
                command.args(tools.qemu_data());
                Ok(command)
            }
        }
    }

    fn or_variable(self, value: Option<OsString>) -> Result<Self> {
        match value.as_ref().and_then(|value| value.to_str()) {
            Some("mended") => Ok(Self::Mended),
            Some("packaged" | "") | None => Ok(self),
            Some(other) => bail!("{VARIABLE} is {other:?}: use packaged or mended"),
        }
    }
}

/// The program, built when the cache has none.
fn ensure(cache: &Cache) -> Result<PathBuf> {
    let recipe = Recipe::new("emulator")
        .with(SUITE.to_string())
        .with(BUILD_PACKAGES.join(" "))
        .with(include_str!("build.sh"));
    let dir = cache.entry(&recipe, |dir| build(cache, dir))?;
    Ok(dir.join(NAME))
}

fn build(cache: &Cache, dir: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("Building QEMU needs root: run this as root once, it is kept in the cache");
    }
    let (archives, root) = (dir.join("archives"), dir.join("root"));
    let apt = Apt::open(cache, SUITE)?;
    apt.download_closure(&BUILD_PACKAGES, &archives)?;
    let source = apt.download_source("qemu", &archives)?;
    let _step = Step::start("Building QEMU");
    unpack(&archives, &root)?;
    let to = root.join("usr/src/qemu");
    fs::create_dir_all(&to).with_context(|| format!("Cannot create {}", to.display()))?;
    let mut extract = Command::new("tar");
    extract.args(["--extract", "--strip-components=1", "--file"]);
    process::output(extract.arg(source).arg("-C").arg(&to))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
    command.args([include_str!("build.sh"), "build"]).arg(&root);
    process::output(sys::die_with_parent(&mut command))?;
    fs::copy(to.join("build").join(NAME), dir.join(NAME)).context("Cannot copy the emulator")?;
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(&root).context("Cannot remove what QEMU was built in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_mends_what_does_not_need_it() {
        let chosen = |value: Option<&str>| Emulator::Packaged.or_variable(value.map(Into::into));
        assert_eq!(chosen(None).unwrap(), Emulator::Packaged);
        assert_eq!(chosen(Some("mended")).unwrap(), Emulator::Mended);
        assert!(chosen(Some("other")).is_err());
    }

    #[test]
    fn variable_does_not_take_from_what_needs_it() {
        let chosen = Emulator::Mended.or_variable(Some("packaged".into()));
        assert_eq!(chosen.unwrap(), Emulator::Mended);
    }
}
