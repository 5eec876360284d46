//! Where test programs run: the lab, with everything they need built.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::programs::TestProgram;
use crate::cache::Cache;
use crate::commands::workspace::{self, GUEST_VARIABLE, PROBE_VARIABLE};
use crate::guest::{IMAGES_VARIABLE, Images};
use crate::host::{Host, Job, Limits};
use crate::progress::heading;
use crate::tools::Tools;
use crate::zfs::Zfs;

/// Time for one test program, in seconds.
const PROGRAM_SECONDS: u64 = 1200;

/// The variable that says otherwise.
const SECONDS_VARIABLE: &str = "LAB_TEST_SECONDS";

/// The lab, and what a job in it finds.
#[derive(Debug)]
pub(super) struct Place {
    host: Host,
    timeout: Duration,
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
        let timeout = program_timeout()?;
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

    /// Runs a test program, or those of its tests that `arguments` say, and returns what it printed
    /// and whether it succeeded.
    pub(super) fn run(&self, test: &TestProgram, arguments: &[&str]) -> Result<(String, bool)> {
        let transcript = tempfile::NamedTempFile::new()?;
        let mut job = Job::new([test.executable.as_os_str(), "--test-threads=1".as_ref()])?;
        let arguments = arguments.iter().map(|argument| OsStr::new(argument).into());
        job.command.extend(arguments);
        for (name, value) in &self.variables {
            job = job.with_variable(name, value.to_string_lossy());
        }
        job = job.with_variable("CARGO_MANIFEST_DIR", test.directory.to_string_lossy());
        job.directory.clone_from(&test.directory);
        job.limits = Limits {
            timeout: self.timeout,
            memory_mib: 8192,
            ..Limits::default()
        };
        job.transcript = Some(transcript.path().to_owned());
        job.results.clone_from(&self.results);
        if let Some(zfs) = &self.zfs {
            job = zfs.equip(job);
        }
        let status = self.host.run(&job)?;
        let printed = fs::read(transcript.path())?;
        Ok((String::from_utf8_lossy(&printed).into_owned(), status == 0))
    }
}

/// How long one test program may take.
fn program_timeout() -> Result<Duration> {
    let set = std::env::var_os(SECONDS_VARIABLE);
    let seconds = set.map_or(Ok(PROGRAM_SECONDS), |set| set.to_string_lossy().parse());
    let seconds =
        seconds.with_context(|| format!("{SECONDS_VARIABLE} is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}
