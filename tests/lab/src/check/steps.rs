//! The steps of the test command.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use super::{Tally, broken_links, nix};
use crate::cache::Cache;
use crate::commands::workspace::{self, GUEST_VARIABLE, PROBE_VARIABLE, cargo};
use crate::guest::{IMAGES_VARIABLE, Images};
use crate::host::{Host, Job, Limits};
use crate::progress::heading;
use crate::tools::Tools;

/// The package of system tests.
const SYSTEM_TESTS: &str = "system-tests";

/// Time for one program of system tests, in seconds.
const PROGRAM_SECONDS: u64 = 1200;

/// The variable that says otherwise.
const SECONDS_VARIABLE: &str = "LAB_TEST_SECONDS";

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Formatting.
    Fmt,
    /// Lints.
    Clippy,
    /// Links and paths in the documents.
    Docs,
    /// The flake parses, where there is a Nix.
    Nix,
    /// Unit and integration tests, on this machine.
    Unit,
    /// System tests, in the lab.
    System,
}

impl Step {
    /// What the test command runs unless told otherwise: quick steps first.
    pub const DEFAULT: [Self; 6] = [
        Self::Fmt,
        Self::Clippy,
        Self::Docs,
        Self::Nix,
        Self::Unit,
        Self::System,
    ];
}

/// A run of the test command.
#[derive(Debug)]
pub struct Check {
    root: PathBuf,
    tests: Vec<String>,
    tally: Tally,
}

impl Check {
    /// A run that takes all programs of system tests, or only those called `tests`.
    ///
    /// # Errors
    /// When the workspace cannot be found.
    pub fn new(tests: Vec<String>) -> Result<Self> {
        Ok(Self {
            root: workspace::root()?,
            tests,
            tally: Tally::default(),
        })
    }

    /// What passed and failed so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Runs one step. What fails in it is counted.
    ///
    /// # Errors
    /// When the step cannot be run at all.
    pub fn run(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Fmt => self.cargo_step("Formatting", &["fmt", "--all", "--check"]),
            Step::Clippy => {
                let args = [
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ];
                self.cargo_step("Lints", &args)
            }
            Step::Docs => self.docs(),
            Step::Nix => self.nix(),
            Step::Unit => self.unit(),
            Step::System => self.system(),
        }
    }

    fn cargo_step(&mut self, name: &str, args: &[&str]) -> Result<()> {
        heading(name);
        let passed = crate::process::succeeds(cargo().args(args).current_dir(&self.root))?;
        self.tally.step(name, passed);
        Ok(())
    }

    fn docs(&mut self) -> Result<()> {
        heading("Links and paths in documents");
        let broken = broken_links(&self.root)?;
        broken.iter().for_each(|link| eprintln!("broken: {link}"));
        self.tally
            .step("Links and paths in documents", broken.is_empty());
        Ok(())
    }

    fn nix(&mut self) -> Result<()> {
        heading("Flake");
        match nix::unparsable(&self.root)? {
            Some(broken) => self.tally.step("Flake", broken.is_empty()),
            None => println!("skipped: there is no nix-instantiate to parse the flake with"),
        }
        Ok(())
    }

    fn unit(&mut self) -> Result<()> {
        heading("Unit and integration tests, on this machine");
        let mut command = cargo();
        command.args([
            "test",
            "--workspace",
            "--exclude",
            SYSTEM_TESTS,
            "--no-fail-fast",
        ]);
        let (printed, succeeded) = tee(command.current_dir(&self.root))?;
        self.tally
            .tests("Unit and integration tests", &printed, succeeded);
        Ok(())
    }

    fn system(&mut self) -> Result<()> {
        let cache = Cache::open()?;
        let tools = Tools::ensure(&cache)?;
        let host = Host::open(&cache, &tools)?;
        heading(&format!(
            "System tests, {}: {}",
            host.choice().mode,
            host.choice().reason
        ));
        let timeout = program_timeout()?;
        host.prepare()?;
        let images = Images::ensure(&cache, &tools)?;
        let program = workspace::build_release()?;
        let guest_program = workspace::build_guest()?;
        let probe = workspace::build_probe()?;
        for test in self.test_programs()? {
            heading(&format!("System tests: {}", test.name));
            let transcript = tempfile::NamedTempFile::new()?;
            let mut job = Job::new([test.executable.as_os_str(), "--test-threads=1".as_ref()])?
                .with_variable("SLOTVMM_BIN", program.to_string_lossy())
                .with_variable(GUEST_VARIABLE, guest_program.to_string_lossy())
                .with_variable(PROBE_VARIABLE, probe.to_string_lossy())
                .with_variable(IMAGES_VARIABLE, images.dir().to_string_lossy())
                .with_variable("CARGO_MANIFEST_DIR", test.directory.to_string_lossy());
            job.directory = test.directory;
            job.limits = Limits {
                timeout,
                memory_mib: 8192,
                ..Limits::default()
            };
            job.transcript = Some(transcript.path().to_owned());
            let status = host.run(&job)?;
            let printed = String::from_utf8_lossy(&fs::read(transcript.path())?).into_owned();
            self.tally.tests(
                &format!("system tests {}", test.name),
                &printed,
                status == 0,
            );
        }
        Ok(())
    }

    /// Builds the programs of system tests.
    fn test_programs(&self) -> Result<Vec<TestProgram>> {
        let mut command = cargo();
        command.args([
            "test",
            "-p",
            SYSTEM_TESTS,
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        let output = command
            .current_dir(&self.root)
            .stderr(Stdio::inherit())
            .output()
            .context("Cannot start cargo")?;
        if !output.status.success() {
            anyhow::bail!("The system tests do not build");
        }
        let mut programs = test_programs(&String::from_utf8_lossy(&output.stdout));
        for name in &self.tests {
            anyhow::ensure!(
                programs.iter().any(|program| program.name == *name),
                "There are no system tests called {name}"
            );
        }
        programs.retain(|program| self.tests.is_empty() || self.tests.contains(&program.name));
        Ok(programs)
    }
}

/// How long one program of system tests may take.
fn program_timeout() -> Result<Duration> {
    let set = std::env::var_os(SECONDS_VARIABLE);
    let seconds = set.map_or(Ok(PROGRAM_SECONDS), |set| set.to_string_lossy().parse());
    let seconds =
        seconds.with_context(|| format!("{SECONDS_VARIABLE} is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// A program of tests.
#[derive(Debug, PartialEq, Eq)]
struct TestProgram {
    name: String,
    executable: PathBuf,
    directory: PathBuf,
}

/// The part of cargo's messages that names test programs.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Integration tests among cargo's messages, by name.
fn test_programs(messages: &str) -> Vec<TestProgram> {
    let mut programs: Vec<TestProgram> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| {
            let target = message.target?;
            let wanted = message.profile?.test && target.kind.iter().any(|kind| kind == "test");
            let directory = message
                .manifest_path
                .as_deref()
                .and_then(Path::parent)?
                .to_owned();
            let executable = message.executable?;
            wanted.then_some(TestProgram {
                name: target.name,
                executable,
                directory,
            })
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

/// Runs `command`, passing on and returning its standard output, and whether it succeeded.
fn tee(command: &mut Command) -> Result<(String, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("Cannot start cargo")?;
    let mut printed = String::new();
    if let Some(pipe) = child.stdout.take() {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(std::io::stdout(), "{line}")?;
            printed.extend([line.as_str(), "\n"]);
        }
    }
    Ok((printed, child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_found_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"boot","kind":["test"]},"profile":{"test":true},"executable":"/t/boot-1"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"name":"fixture","kind":["lib"]},"profile":{"test":true},"executable":"/t/fixture-1"}
{"reason":"build-finished","success":true}"#;
        let expected = TestProgram {
            name: "boot".into(),
            executable: "/t/boot-1".into(),
            directory: "/w/tests".into(),
        };
        assert_eq!(test_programs(messages), [expected]);
    }
}
