//! Tests on a real OpenZFS, which the emulated host gets for them.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::place::Place;
use super::programs;
use super::steps::{Check, SYSTEM_TESTS};
use crate::host::Terminal;
use crate::progress::heading;

/// Programs of system tests with tests whose names have `zfs` in them.
const PROGRAMS: [&str; 4] = ["filesystems", "full_pool", "states", "workflow"];

/// What the store's tests leave in `$LAB_RESULTS`: what OpenZFS was asked and said.
const TRANSCRIPT: &str = "openzfs.jsonl";

/// Where it is kept.
const KEPT: &str = "cli/store/src/tests";

/// What becomes of the transcript of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transcript {
    /// The tests compare it with the one that is kept.
    Compare,
    /// It replaces the one that is kept.
    Keep,
}

impl Check {
    /// Runs the store's tests and the system tests that are for ZFS, with OpenZFS.
    ///
    /// # Errors
    /// When OpenZFS cannot be built or a program not be run.
    pub fn zfs(&mut self, transcript: Transcript) -> Result<()> {
        let results = tempfile::tempdir()?;
        let mut place = Place::ensure("Tests on OpenZFS")?.with_zfs()?;
        if transcript == Transcript::Keep {
            place = place.with_results(results.path());
        }
        println!("OpenZFS {}", place.zfs_version().unwrap_or_default());
        for test in programs::built(&self.root, ("store", "lib"))? {
            heading("The store on OpenZFS");
            let filter = ["tests::openzfs", "--nocapture"];
            let ran = place.run(&test, &filter, Terminal::Stream)?;
            self.count("store on OpenZFS", &ran);
        }
        if transcript == Transcript::Keep {
            let made = results.path().join(TRANSCRIPT);
            ensure!(made.exists(), "The store's tests left no {TRANSCRIPT}");
            let kept = self.root.join(KEPT).join(TRANSCRIPT);
            fs::copy(&made, &kept).with_context(|| format!("Cannot write {}", kept.display()))?;
            println!("{} is new", kept.display());
        }
        let programs = programs::built(&self.root, (SYSTEM_TESTS, "test"))?;
        for test in programs.iter().filter(|it| PROGRAMS.contains(&&*it.name)) {
            heading(&format!("System tests on OpenZFS: {}", test.name));
            let ran = place.run(test, &["zfs", "--nocapture"], Terminal::Stream)?;
            self.count(&format!("system tests {} on OpenZFS", test.name), &ran);
        }
        Ok(())
    }
}
