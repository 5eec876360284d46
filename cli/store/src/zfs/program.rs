//! Runs the program `zfs`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::StoreError;

/// How the complaint of a command ends that needs more space than there is.
const FULL: &str = "out of space";

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It did what it was asked.
    Done(String),
    /// It refused, and said why.
    Refused(String),
}

/// Whatever understands the arguments of `zfs`.
pub(crate) trait Runner: fmt::Debug + Send + Sync {
    /// Runs one command to its end.
    fn run(&self, arguments: &[&str]) -> io::Result<Answer>;
}

/// The program of the host.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it is.
    path: PathBuf,
}

impl Program {
    /// The one that this host has.
    pub(crate) fn of_host() -> Self {
        Self { path: find() }
    }

    /// Runs one command to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> io::Result<Output> {
        Command::new(&self.path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
    }
}

impl Runner for Program {
    fn run(&self, arguments: &[&str]) -> io::Result<Answer> {
        self.output(arguments).map(Answer::from)
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Self::Done(text(&output.stdout));
        }
        let said = text(&output.stderr);
        let said = said.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        if said.is_empty() {
            return Self::Refused(output.status.to_string());
        }
        Self::Refused(said)
    }
}

/// Runs a command, and says which one it was when it fails.
pub(super) fn run(runner: &dyn Runner, arguments: &[&str]) -> Result<String, StoreError> {
    let command = || arguments.join(" ");
    match runner.run(arguments) {
        Ok(Answer::Done(printed)) => Ok(printed),
        Ok(Answer::Refused(said)) if said.ends_with(FULL) => Err(StoreError::PoolFull {
            verb: arguments.first().copied().unwrap_or_default().to_owned(),
            name: arguments.last().copied().unwrap_or_default().to_owned(),
        }),
        Ok(Answer::Refused(said)) => Err(StoreError::Zfs {
            command: command(),
            said,
        }),
        Err(source) => Err(StoreError::NoZfs {
            command: command(),
            source,
        }),
    }
}

/// Where `zfs` is. A service's PATH often lacks the sbin directories.
fn find() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(sbin);
    let found = places.find_map(|dir| Some(dir.join("zfs")).filter(|program| program.is_file()));
    // The error of starting it says that it is missing.
    found.unwrap_or_else(|| PathBuf::from("zfs"))
}
