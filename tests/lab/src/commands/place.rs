//! Where verbs measure: the lab, with what they have in common. What they do inside it prints a line of
//! JSON for each value.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::guest::Images;
use crate::host::{Host, Job, Mode};
use crate::kernels::KernelId;
use crate::progress::heading;
use crate::tools::Tools;

/// What time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// That of the machine.
    Real,
    /// Instructions, where the host is emulated.
    Counted,
}

impl Clock {
    /// Instructions if they are `counted`.
    pub(super) fn of(counted: bool) -> Self {
        if counted { Self::Counted } else { Self::Real }
    }
}

/// The lab, about to measure.
pub(super) struct Place {
    pub(super) cache: Cache,
    tools: Tools,
    images: Images,
    host: Host,
    clock: Clock,
}

impl Place {
    /// Opens the lab, and prints `title` and which one it is.
    pub(super) fn open(title: &str, clock: Clock) -> Result<Self> {
        let cache = Cache::open()?;
        let tools = Tools::ensure(&cache)?;
        let images = Images::ensure(&cache, &tools)?;
        let host = Host::open(&cache, &tools)?;
        let (mode, reason) = (host.choice().mode, &host.choice().reason);
        let time = match clock {
            Clock::Counted if mode == Mode::Emulated => "instructions counted",
            Clock::Real | Clock::Counted => "real time",
        };
        heading(&format!("{title}, {mode}, {time}: {reason}"));
        Ok(Self {
            cache,
            tools,
            images,
            host,
            clock,
        })
    }

    /// A stock kernel's directory.
    pub(super) fn kernel(&self, kernel: KernelId) -> PathBuf {
        self.images.dir().join("kernels").join(kernel.name())
    }

    /// The file `name` among the images.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.images.dir().join(name)
    }

    /// The root directory of the lab's tools, which has QEMU.
    pub(super) fn tools(&self) -> PathBuf {
        self.tools.root()
    }

    /// The part of `verb` inside the lab, with these arguments.
    pub(super) fn job<W: Into<OsString>>(
        &self,
        verb: &str,
        paths: impl IntoIterator<Item = (&'static str, PathBuf)>,
        more: impl IntoIterator<Item = W>,
    ) -> Result<Job> {
        let lab = std::env::current_exe().context("Cannot tell where the lab's program is")?;
        let mut job = Job::new([lab.into_os_string()])?;
        job.command.extend(["inside", verb].map(Into::into));
        for (option, path) in paths {
            job.command.extend([option.into(), path.into()]);
        }
        job.command.extend(more.into_iter().map(Into::into));
        if self.clock == Clock::Counted {
            job.count_instructions();
        }
        Ok(job)
    }

    /// Runs it; returns its exit status.
    pub(super) fn run(&self, job: &Job) -> Result<u8> {
        self.host.run(job)
    }

    /// Runs it; returns its exit status and what it measured.
    pub(super) fn values<T: DeserializeOwned>(&self, mut job: Job) -> Result<(u8, Vec<T>)> {
        let transcript = tempfile::NamedTempFile::new()?;
        job.transcript = Some(transcript.path().to_owned());
        let status = self.host.run(&job)?;
        let printed = fs::read_to_string(transcript.path())?;
        let values = printed
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok((status, values.collect()))
    }
}
