//! One boot as a process, watched from outside: what its console shows, what its guest reports, when
//! it ends and what it used.
//!
//! Every monitor is watched in the same way. Times count from just before the process is made.

mod helper;
mod listen;
mod process;
mod reports;
mod screen;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::helper::Helper;
pub use self::listen::Listener;
pub use self::process::run;
pub use self::reports::Origin;
pub use self::screen::Text;

/// A point of a boot that can be told from outside, in the order they are usually reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The first vCPU enters the guest. Only a monitor that says so itself shows it.
    VcpuRun,
    /// The guest's first output: the kernel's first message, unless it is told to be quiet.
    FirstOutput,
    /// The kernel starts its init process.
    Init,
    /// The guest's systemd has reached `sysinit.target`.
    Sysinit,
    /// The guest is ready.
    Ready,
    /// The benchmark has seen enough and ends the machine.
    Stop,
    /// The process is gone.
    Exit,
}

impl Mark {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::VcpuRun,
        Self::FirstOutput,
        Self::Init,
        Self::Sysinit,
        Self::Ready,
        Self::Stop,
        Self::Exit,
    ];

    /// The name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::VcpuRun => "vcpu run",
            Self::FirstOutput => "first output",
            Self::Init => "init",
            Self::Sysinit => "sysinit",
            Self::Ready => "ready",
            Self::Stop => "stop",
            Self::Exit => "exit",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a monitor is started and ended.
pub struct Launch<'a> {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What its environment has besides ours.
    pub environment: Vec<(OsString, OsString)>,
    /// Who has to run before it.
    pub helpers: Vec<Helper>,
    /// Where it, or its guest, reports.
    pub listener: Option<Listener>,
    /// How it is made to end.
    pub stop: Stop<'a>,
}

/// How a monitor is made to end.
pub enum Stop<'a> {
    /// By SIGTERM.
    Signal,
    /// By a request.
    Ask(&'a (dyn Fn() -> io::Result<()> + Sync)),
}

/// What is watched for, the same for every monitor.
#[derive(Debug, Clone)]
pub struct Watching {
    /// Texts on the console that mean something.
    pub texts: Vec<Text>,
    /// When the benchmark has seen enough.
    pub until: Until,
    /// How long a boot may take.
    pub patience: Duration,
}

/// When a boot is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// When the guest is ready: the machine is ended then.
    Ready,
    /// When the guest ends the machine.
    Exit,
}

/// Looks at a monitor while it runs; not while boots are timed.
pub trait Inspect {
    /// The process is there.
    fn look(&mut self, pid: u32);
}

/// One boot that got where it should.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// When which mark was seen, in milliseconds since the process was made.
    pub marks: BTreeMap<Mark, f64>,
    /// CPU time of the process in user space, in milliseconds.
    pub user_ms: f64,
    /// CPU time of the process in the kernel, the guest's included, in milliseconds.
    pub system_ms: f64,
    /// When the process was made, in nanoseconds of the host's monotonic clock.
    #[serde(skip)]
    pub started_ns: u64,
}

impl Run {
    /// CPU time of the process in milliseconds.
    pub fn cpu_ms(&self) -> f64 {
        self.user_ms + self.system_ms
    }
}

/// Why a boot came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The program does not start.
    #[error("Failed to start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It cannot be watched.
    #[error("Failed to watch the process")]
    Watch(#[source] io::Error),
    /// It ended too early.
    #[error("The process ended ({status}) before its guest showed `{missing}`{}", tail(.said))]
    Ended {
        /// How.
        status: String,
        /// What was waited for.
        missing: Mark,
        /// The last lines of its console and of its standard error.
        said: Vec<String>,
    },
    /// It hangs.
    #[error("The guest did not show `{missing}` within {seconds} s and was ended{}", tail(.said))]
    TimedOut {
        /// How long it had.
        seconds: u64,
        /// What was waited for.
        missing: Mark,
        /// The last lines of its console and of its standard error.
        said: Vec<String>,
    },
    /// The user wants no more.
    #[error("Interrupted")]
    Interrupted,
}

fn tail(lines: &[String]) -> String {
    match lines {
        [] => "; it printed nothing".to_owned(),
        lines => format!("; it printed last:\n    {}", lines.join("\n    ")),
    }
}
