//! What was measured, kept for `cargo lab report`: one file per measurement in `target/measurements`, with
//! the machine it was made on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::workspace;
use crate::host::{Choice, Mode};
use crate::process;

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The command that makes it again.
    pub command: String,
    /// Version of slotvmm.
    pub version: String,
    /// Day it was made, as YYYY-MM-DD in UTC.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Its values.
    pub values: Value,
}

/// A machine, in words that say nothing of whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What its processor calls itself.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Its kernel's version, without what its builder added.
    pub kernel: String,
    /// Whether its processors run guests.
    pub hardware_virtualisation: bool,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When it cannot be told whether its processors run guests.
    pub fn look() -> Result<Self> {
        let host = boot_bench::report::Host::look();
        let kernel = host.kernel.split('-').next().unwrap_or_default().to_owned();
        Ok(Self {
            processor: host.processor,
            processors: host.processors,
            kernel,
            hardware_virtualisation: Choice::detect()?.mode == Mode::Direct,
        })
    }
}

impl Record {
    /// What `command` has just measured here.
    ///
    /// # Errors
    /// When the values are no JSON or the machine cannot be described.
    pub fn now(command: &str, values: &impl Serialize) -> Result<Self> {
        Ok(Self {
            command: command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date: process::output(Command::new("date").args(["-u", "+%F"]))?
                .trim()
                .to_owned(),
            machine: Machine::look()?,
            values: serde_json::to_value(values)?,
        })
    }

    /// Keeps it as `NAME.json` in `dir`, in place of an older one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("Cannot create {}", dir.display()))?;
        let path = dir.join(name).with_extension("json");
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("Cannot write {}", path.display()))
    }

    /// The one that was kept as `NAME.json` in `dir`, if any.
    ///
    /// # Errors
    /// When there is a file which is none.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name).with_extension("json");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        let record = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no measurement", path.display()))?;
        Ok(Some(record))
    }
}

/// Where measurements are kept.
///
/// # Errors
/// When the workspace is not found.
pub fn dir() -> Result<PathBuf> {
    Ok(workspace::target()?.join("measurements"))
}

/// Keeps what `command` has just measured as `NAME.json`.
///
/// # Errors
/// When it cannot be written.
pub fn keep(name: &str, command: &str, values: &impl Serialize) -> Result<()> {
    Record::now(command, values)?.save(&dir()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::now("cargo lab x", &[1.5, 2.0]).unwrap();
        record.save(dir.path(), "x").unwrap();
        assert_eq!(Record::load(dir.path(), "x").unwrap(), Some(record));
        assert_eq!(Record::load(dir.path(), "y").unwrap(), None);
        fs::write(dir.path().join("y.json"), "{}").unwrap();
        assert!(Record::load(dir.path(), "y").is_err());
    }

    #[test]
    fn machine_is_described_without_its_builders_name() {
        let machine = Machine::look().unwrap();
        assert!(machine.processors > 0 && !machine.kernel.contains('-'));
    }
}
