//! Where a command runs: on this machine when its processor can run guests, else in an emulated
//! machine whose processor can. Commands cannot tell the difference: they run as root, in their
//! directory, with `/dev/kvm`, a network of their own and scratch space at `$LAB_SCRATCH`.

mod direct;
mod emulated;
mod job;
mod l1;
mod qemu;
mod run_dir;
mod scratch;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::tools::Tools;
use crate::zfs::Zfs;

pub use job::{Job, Limits, RESULTS_VARIABLE, Terminal, Timing};

/// Where commands run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On this machine.
    Direct,
    /// In an emulated machine with nested virtualisation.
    Emulated,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Emulated => "emulated",
        })
    }
}

/// A mode and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where commands run.
    pub mode: Mode,
    /// One sentence for people.
    pub reason: String,
}

/// Forces a mode (`direct` or `emulated`).
pub const MODE_VARIABLE: &str = "SLOTVMM_LAB_MODE";

impl Choice {
    /// Chooses by `$SLOTVMM_LAB_MODE`, else by what the processor and `/dev/kvm` offer.
    ///
    /// # Errors
    /// When the variable has another value or the processor's flags cannot be read.
    pub fn detect() -> Result<Self> {
        let forced = |mode| Self {
            mode,
            reason: format!("{MODE_VARIABLE} says so"),
        };
        match std::env::var(MODE_VARIABLE).as_deref() {
            Ok("direct") => return Ok(forced(Mode::Direct)),
            Ok("emulated") => return Ok(forced(Mode::Emulated)),
            Ok("") | Err(_) => {}
            Ok(other) => bail!("{MODE_VARIABLE} is {other:?}: use direct or emulated"),
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("Cannot read /proc/cpuinfo")?;
        let usable = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        Ok(Self::from_facts(
            &cpuinfo,
            Path::new("/dev/kvm").exists(),
            usable,
        ))
    }

    fn from_facts(cpuinfo: &str, device_exists: bool, device_opens: bool) -> Self {
        let flags = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags"))
            .unwrap_or_default();
        let flag = flags
            .split_whitespace()
            .find(|flag| ["vmx", "svm"].contains(flag));
        let emulated = |reason: &str| Self {
            mode: Mode::Emulated,
            reason: reason.to_owned(),
        };
        match flag {
            None => emulated("the processor has no hardware virtualisation (neither vmx nor svm)"),
            Some(_) if !device_exists => emulated("there is no /dev/kvm"),
            Some(_) if !device_opens => emulated("/dev/kvm cannot be opened"),
            Some(flag) => Self {
                mode: Mode::Direct,
                reason: format!("the processor has {flag} and /dev/kvm is usable"),
            },
        }
    }
}

/// A place to run commands in.
#[derive(Debug)]
pub struct Host {
    choice: Choice,
    cache: Cache,
    tools: Tools,
}

impl Host {
    /// The host that suits this machine.
    ///
    /// # Errors
    /// When the mode cannot be chosen.
    pub fn open(cache: &Cache, tools: &Tools) -> Result<Self> {
        Ok(Self {
            choice: Choice::detect()?,
            cache: cache.clone(),
            tools: tools.clone(),
        })
    }

    /// Where it is, and why.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Runs `job`, passing on what it prints, and returns its exit status (124 after the timeout).
    ///
    /// # Errors
    /// When the host itself fails; what the job returns is no error.
    pub fn run(&self, job: &Job) -> Result<u8> {
        match self.choice.mode {
            Mode::Direct => direct::run(&self.cache, &self.tools, job),
            Mode::Emulated => emulated::run(&self.cache, &self.tools, job),
        }
    }

    /// OpenZFS for the kernel that jobs run on, built when the cache has none.
    ///
    /// # Errors
    /// When this machine is the host, whose kernel is not the lab's; when it cannot be built.
    pub fn zfs(&self) -> Result<Zfs> {
        if self.choice.mode == Mode::Direct {
            bail!(
                "ZFS is built for the emulated host's kernel and this machine runs jobs itself: set \
                 {MODE_VARIABLE}=emulated"
            );
        }
        let image = l1::Image::ensure(&self.cache, &self.tools)?;
        Zfs::ensure(&self.cache, &image.kernel)
    }

    /// Fetches what running needs.
    ///
    /// # Errors
    /// When a download fails.
    pub fn prepare(&self) -> Result<()> {
        match self.choice.mode {
            Mode::Direct => Ok(()),
            Mode::Emulated => l1::Image::ensure(&self.cache, &self.tools).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_SVM: &str = "processor: 0\nflags\t\t: fpu svm sse\n";

    #[test]
    fn hardware_virtualisation_with_a_device_runs_directly() {
        assert_eq!(Choice::from_facts(WITH_SVM, true, true).mode, Mode::Direct);
    }

    #[test]
    fn anything_missing_is_emulated_and_named() {
        let named = |choice: Choice, part: &str| {
            assert_eq!(choice.mode, Mode::Emulated);
            assert!(choice.reason.contains(part), "{}", choice.reason);
        };
        named(
            Choice::from_facts("flags: fpu svmx\n", true, true),
            "neither vmx nor svm",
        );
        named(Choice::from_facts(WITH_SVM, false, false), "no /dev/kvm");
        named(
            Choice::from_facts(WITH_SVM, true, false),
            "cannot be opened",
        );
    }
}
