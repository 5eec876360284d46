//! Where test programs run: the lab, with everything they need built.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::programs::TestProgram;
use crate::cache::Cache;
use crate::commands::workspace::{self, GUEST_VARIABLE, PROBE_VARIABLE};
use crate::guest::{IMAGES_VARIABLE, Images};
use crate::host::{Host, Job, Limits, Mode, Terminal};
use crate::progress::heading;
use crate::tools::Tools;
use crate::zfs::Zfs;

/// Time for one test program, in seconds.
const PROGRAM_SECONDS: u64 = 1200;

/// The variable that says otherwise.
const SECONDS_VARIABLE: &str = "LAB_TEST_SECONDS";

/// The variable that says how many processors an emulated host has; one unless told.
const CPUS_VARIABLE: &str = "LAB_TEST_CPUS";

/// The variable that has instructions counted instead of time where the host is emulated, when it is 1.
const COUNTED_VARIABLE: &str = "LAB_TEST_ICOUNT";

/// Memory of an emulated host, in MiB.
const MEMORY_MIB: u32 = 8192;

/// What a test program did.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its standard output.
    pub(super) printed: String,
    /// Its standard error, where it was kept.
    pub(super) errors: String,
    /// Whether its exit status was 0.
    pub(super) succeeded: bool,
}

/// The lab, and what a job in it finds.
#[derive(Debug)]
pub(super) struct Place {
    host: Host,
    timeout: Duration,
    cpus: u8,
    counted: bool,
    variables: Vec<(&'static str, PathBuf)>,
    zfs: Option<Zfs>,
    results: Option<PathBuf>,
}

impl Place {
    /// Prints `title` and which lab it is, and fetches and builds what test programs need.
    pub(super) fn ensure(title: &str) -> Result<Self> {
        let cache = Cache::open()?;
        let tools = Tools::ensure(&cache)?;
        let host = Host::open(&cache, &tools)?;
        let choice = host.choice();
        heading(&format!("{title}, {}: {}", choice.mode, choice.reason));
        let timeout = Duration::from_secs(setting(SECONDS_VARIABLE, PROGRAM_SECONDS)?);
        let cpus = setting(CPUS_VARIABLE, Limits::default().cpus)?;
        let counted = setting(COUNTED_VARIABLE, 0)? != 0;
        host.prepare()?;
        let images = Images::ensure(&cache, &tools)?;
        let variables = vec![
            ("SLOTVMM_BIN", workspace::build_release()?),
            (GUEST_VARIABLE, workspace::build_guest()?),
            (PROBE_VARIABLE, workspace::build_probe()?),
            (IMAGES_VARIABLE, images.dir().to_owned()),
        ];
        Ok(Self {
            host,
            timeout,
            cpus,
            counted,
            variables,
            zfs: None,
            results: None,
        })
    }

    /// The same place with OpenZFS.
    pub(super) fn with_zfs(self) -> Result<Self> {
        Ok(Self {
            zfs: Some(self.host.zfs()?),
            ..self
        })
    }

    /// The same place, where what programs leave in `$LAB_RESULTS` comes to `results`.
    pub(super) fn with_results(self, results: &Path) -> Self {
        Self {
            results: Some(results.to_owned()),
            ..self
        }
    }

    /// The version of OpenZFS, where there is one.
    pub(super) fn zfs_version(&self) -> Option<&str> {
        self.zfs.as_ref().map(Zfs::version)
    }

    /// How many programs can run at a time: one for each processor and each 8 GiB of free memory where
    /// the host is emulated, since an emulated host has one processor. A real host is given to one.
    pub(super) fn lanes(&self) -> usize {
        if self.host.choice().mode == Mode::Direct {
            return 1;
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mib = available_mib(&meminfo).unwrap_or(0);
        let affordable = usize::try_from(mib / u64::from(MEMORY_MIB)).unwrap_or(usize::MAX);
        processors.min(affordable).max(1)
    }

    /// Runs a test program, or those of its tests that `arguments` say. Shows what it prints as it
    /// comes, or keeps it when `terminal` is quiet.
    pub(super) fn run(
        &self,
        test: &TestProgram,
        arguments: &[&str],
        terminal: Terminal,
    ) -> Result<Ran> {
        let transcript = tempfile::NamedTempFile::new()?;
        let errors = tempfile::NamedTempFile::new()?;
        let mut job = Job::new([test.executable.as_os_str(), "--test-threads=1".as_ref()])?;
        let arguments = arguments.iter().map(|argument| OsStr::new(argument).into());
        job.command.extend(arguments);
        for (name, value) in &self.variables {
            job = job.with_variable(name, value.to_string_lossy());
        }
        job = job.with_variable("CARGO_MANIFEST_DIR", test.directory.to_string_lossy());
        job.directory.clone_from(&test.directory);
        job.limits = Limits {
            cpus: self.cpus,
            timeout: self.timeout,
            memory_mib: MEMORY_MIB,
        };
        if self.counted {
            job.count_instructions();
        }
        job.terminal = terminal;
        job.transcript = Some(transcript.path().to_owned());
        job.errors = Some(errors.path().to_owned());
        job.results.clone_from(&self.results);
        if let Some(zfs) = &self.zfs {
            job = zfs.equip(job);
        }
        let status = self.host.run(&job)?;
        Ok(Ran {
            printed: String::from_utf8_lossy(&fs::read(transcript.path())?).into_owned(),
            errors: String::from_utf8_lossy(&fs::read(errors.path())?).into_owned(),
            succeeded: status == 0,
        })
    }
}

/// Memory that can be had without swapping, by the kernel's estimate, in MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = kib.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// The number that the variable `name` says, or `usual`.
fn setting<N: FromStr>(name: &str, usual: N) -> Result<N> {
    let Some(set) = std::env::var_os(name) else {
        return Ok(usual);
    };
    let number = set.to_string_lossy().parse().ok();
    number.with_context(|| format!("{name} is not a number that can be used"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_told() {
        let meminfo = "MemTotal:  24684096 kB\nMemAvailable:   20480 kB\n";
        assert_eq!(available_mib(meminfo), Some(20));
        assert_eq!(available_mib("nothing"), None);
    }
}
