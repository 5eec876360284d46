//! A command to run in the lab, with its surroundings.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::emulator::Emulator;
use crate::process::quoted;

/// How big the emulated machine is and how long it may run. A real machine is as big as it is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processors. One is fastest for one guest.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Time after which the job is killed.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory_mib: 4096,
            timeout: Duration::from_secs(600),
        }
    }
}

/// What time means in the emulated machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// The wall clock.
    #[default]
    Wall,
    /// One instruction is one nanosecond, on one processor: repeatable counts.
    Instructions,
}

/// What the job's standard streams are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminal {
    /// Output passed on as it comes, no input.
    #[default]
    Stream,
    /// Output only to the transcript, and to [`Job::errors`], no input.
    Quiet,
    /// The lab's own terminal.
    Interactive,
}

/// A command to run in the lab.
#[derive(Clone, Debug)]
pub struct Job {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Working directory.
    pub directory: PathBuf,
    /// Environment, in place of the lab's own.
    pub environment: Vec<(String, String)>,
    /// Size and time limits.
    pub limits: Limits,
    /// What time means.
    pub timing: Timing,
    /// Which program emulates the host.
    pub emulator: Emulator,
    /// Where input and output go.
    pub terminal: Terminal,
    /// A file that gets a copy of standard output.
    pub transcript: Option<PathBuf>,
    /// A file that standard error goes to, when the terminal is [`Terminal::Quiet`].
    pub errors: Option<PathBuf>,
    /// A directory that gets the files which the job leaves in `$LAB_RESULTS`.
    pub results: Option<PathBuf>,
    /// Kernel modules that the emulated host inserts, in this order.
    pub modules: Vec<PathBuf>,
}

/// Names the directory for files that outlive the job in its environment.
pub const RESULTS_VARIABLE: &str = "LAB_RESULTS";

/// Variables that describe the caller's shell rather than the job.
const NOT_PASSED: [&str; 5] = ["PWD", "OLDPWD", "SHLVL", "_", "TMPDIR"];

impl Job {
    /// A job that runs `command` in the current directory and environment.
    ///
    /// # Errors
    /// When there is no current directory.
    pub fn new<W: Into<OsString>>(command: impl IntoIterator<Item = W>) -> Result<Self> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !NOT_PASSED.contains(&name.as_str()) && is_identifier(name))
            .collect();
        Ok(Self {
            command: command.into_iter().map(Into::into).collect(),
            directory: std::env::current_dir().context("Cannot tell the current directory")?,
            environment,
            limits: Limits::default(),
            timing: Timing::default(),
            emulator: Emulator::default(),
            terminal: Terminal::default(),
            transcript: None,
            errors: None,
            results: None,
            modules: Vec::new(),
        })
    }

    /// Counts instructions instead of time, in the emulator that bears it.
    pub fn count_instructions(&mut self) {
        self.timing = Timing::Instructions;
        self.emulator = Emulator::Mended;
    }

    /// The job with the variable `name` set to `value`.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The value of the variable `name`.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Where the job's standard output goes: ours, unless it is quiet, and the transcript.
    pub(super) fn output(&self) -> Result<Output> {
        Ok(Output {
            copy: create(self.transcript.as_deref())?,
            shown: (self.terminal != Terminal::Quiet).then(|| Box::new(io::stdout()) as _),
        })
    }

    /// Where the job's standard error goes: ours, or a file when it is quiet.
    pub(super) fn error_output(&self) -> Result<Output> {
        let quiet = self.terminal == Terminal::Quiet;
        Ok(Output {
            copy: create(self.errors.as_deref().filter(|_| quiet))?,
            shown: (!quiet).then(|| Box::new(io::stderr()) as _),
        })
    }

    /// The job as a shell script: environment, directory, then the command in the shell's place.
    #[must_use]
    pub fn script(&self) -> String {
        let exports: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        let words: Vec<String> = self
            .command
            .iter()
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        let directory = quoted(&self.directory.to_string_lossy());
        format!(
            "{exports}cd {directory} || exit 125\nexec {}\n",
            words.join(" ")
        )
    }
}

fn create(path: Option<&Path>) -> Result<Option<File>> {
    let file = |path: &Path| {
        File::create(path).with_context(|| format!("Cannot create {}", path.display()))
    };
    path.map(file).transpose()
}

/// A stream of a job: shown, kept in a file, or both.
pub(super) struct Output {
    copy: Option<File>,
    shown: Option<Box<dyn Write + Send>>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.copy {
            file.write_all(bytes)?;
        }
        if let Some(shown) = &mut self.shown {
            shown.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shown.as_mut().map_or(Ok(()), |shown| shown.flush())
    }
}

/// True when a shell can export a variable of this name.
fn is_identifier(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process;

    #[test]
    fn script_runs_the_command_with_its_environment() {
        let mut job = Job::new(["sh", "-c", "printf '%s|%s' \"$GREETING\" \"$PWD\""])
            .unwrap()
            .with_variable("GREETING", "it's me\n");
        job.directory = "/".into();
        let printed = process::output(Command::new("sh").args(["-c", &job.script()])).unwrap();
        assert_eq!(printed, "it's me\n|/");
    }

    #[test]
    fn later_value_of_a_variable_wins() {
        let job = Job::new(["true"])
            .unwrap()
            .with_variable("A", "1")
            .with_variable("A", "2");
        assert_eq!(job.variable("A"), Some("2"));
        assert!(!job.script().contains("A='1'"));
    }
}
