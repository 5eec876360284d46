//! A configured slot: files as an administrator would write them, and `slotvmm` to work on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::sys;

/// Name of the slot that the lab boots.
pub(super) const SLOT: &str = "slot1";

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);

/// `slots/slot1.toml`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct SlotFile {
    pub(super) boot: BootTable,
    pub(super) machine: MachineTable,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<DataTable>,
}

/// Its `[boot]`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct BootTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bootstrap: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initrd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) params: Vec<String>,
}

/// Its `[machine]`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct MachineTable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vcpus: Option<u32>,
    /// In MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<u32>,
}

/// Its `[data]`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct DataTable {
    /// In MiB.
    pub(super) size: u32,
}

/// `host.toml`.
#[derive(Debug, Serialize)]
struct HostFile {
    state_dir: PathBuf,
    run_dir: PathBuf,
    cache_dir: PathBuf,
}

/// A configured slot.
#[derive(Debug)]
pub(super) struct Slot {
    program: PathBuf,
    config: PathBuf,
}

impl Slot {
    /// Writes the configuration, with all that belongs to the slot below `dir`.
    pub(super) fn configure(program: &Path, dir: &Path, file: &SlotFile) -> Result<Self> {
        let config = dir.join("config");
        let host = HostFile {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            cache_dir: dir.join("cache"),
        };
        for made in [
            &config.join("slots"),
            &host.state_dir,
            &host.run_dir,
            &host.cache_dir,
        ] {
            fs::create_dir_all(made)
                .with_context(|| format!("Cannot create {}", made.display()))?;
        }
        fs::write(config.join("host.toml"), toml::to_string(&host)?)?;
        fs::write(
            config.join(format!("slots/{SLOT}.toml")),
            toml::to_string(file)?,
        )?;
        Ok(Self {
            program: program.to_owned(),
            config,
        })
    }

    /// `slotvmm VERB… slot1`, to which options may be added.
    pub(super) fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(verb)
            .arg(SLOT);
        command
    }

    /// Makes the slot's bridge and tap.
    pub(super) fn make_network(&self) -> Result<()> {
        let mut apply = self.command(&["net", "apply"]);
        let status = apply.status().context("Cannot start slotvmm")?;
        if !status.success() {
            bail!("slotvmm net apply {SLOT} failed ({status})");
        }
        Ok(())
    }
}

/// A program that does not outlive this value.
#[derive(Debug)]
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Starts `command`.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        sys::die_with_parent(&mut command)
            .spawn()
            .map(Self)
            .context("Cannot start slotvmm")
    }

    /// How the program ended, or nothing when it still runs at `deadline`.
    pub(super) fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let ended = self.0.try_wait().context("Cannot wait for slotvmm")?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _gone = self.0.kill().and_then(|()| self.0.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_holds_what_is_set_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = SlotFile {
            boot: BootTable {
                bootstrap: Some("/b".into()),
                ..BootTable::default()
            },
            machine: MachineTable {
                vcpus: Some(2),
                memory: None,
            },
            data: None,
        };
        Slot::configure(Path::new("/slotvmm"), dir.path(), &file).unwrap();
        let text = fs::read_to_string(dir.path().join("config/slots/slot1.toml")).unwrap();
        assert_eq!(text, "[boot]\nbootstrap = \"/b\"\n\n[machine]\nvcpus = 2\n");
    }

    #[test]
    fn running_program_ends_with_its_value() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut running = Running::start(command).unwrap();
        assert!(running.wait_until(Instant::now()).unwrap().is_none());
        let id = running.0.id();
        drop(running);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
