//! The steps of the test command.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::abreast::abreast;
use super::place::{Place, Ran};
use super::programs::{self, TestProgram};
use super::{Tally, broken_links, nix};
use crate::commands::workspace::{self, cargo};
use crate::host::Terminal;
use crate::progress::{heading, note};

/// The package of system tests.
pub(super) const SYSTEM_TESTS: &str = "system-tests";

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
    pub(super) root: PathBuf,
    tests: Vec<String>,
    pub(super) tally: Tally,
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
        let place = Place::ensure("System tests")?;
        let programs = self.test_programs()?;
        let lanes = place.lanes().min(programs.len());
        if lanes > 1 {
            return self.system_abreast(&place, &programs, lanes);
        }
        for test in &programs {
            heading(&format!("System tests: {}", test.name));
            let ran = place.run(test, self.arguments(), Terminal::Stream)?;
            self.count(&format!("system tests {}", test.name), &ran);
        }
        Ok(())
    }

    /// Runs so many programs at a time, and shows what each printed when it has ended.
    fn system_abreast(
        &mut self,
        place: &Place,
        programs: &[TestProgram],
        lanes: usize,
    ) -> Result<()> {
        note(&format!("{lanes} programs at a time"));
        let mut broken = Ok(());
        let arguments = self.arguments();
        let run = |test| place.run(test, arguments, Terminal::Quiet);
        abreast(programs, lanes, run, |test, ran| {
            heading(&format!("System tests: {}", test.name));
            match ran {
                Ok(ran) => {
                    print!("{}", ran.printed);
                    eprint!("{}", ran.errors);
                    self.count(&format!("system tests {}", test.name), &ran);
                }
                Err(error) if broken.is_ok() => broken = Err(error),
                Err(_) => {}
            }
        });
        broken
    }

    /// What every program is told: whoever asks for one of them by its name wants to see what it prints.
    fn arguments(&self) -> &'static [&'static str] {
        if self.tests.is_empty() {
            &[]
        } else {
            &["--nocapture"]
        }
    }

    /// Counts the tests of a program of this `name`.
    pub(super) fn count(&mut self, name: &str, ran: &Ran) {
        self.tally.tests(name, &ran.printed, ran.succeeded);
    }

    /// Builds the programs of system tests.
    fn test_programs(&self) -> Result<Vec<TestProgram>> {
        let mut programs = programs::built(&self.root, (SYSTEM_TESTS, "test"))?;
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
