//! The units of slots. systemd is asked through its own programs: they know how the user proves
//! what they may do, and every host that has systemd has them.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use hostnet::slot::SlotName;

use crate::exit::Exit;

/// Is there when systemd is the host's first process (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What is asked of a unit. Values never hold a line break.
const PROPERTIES: &str =
    "--property=LoadState,ActiveState,Result,MainPID,ExecMainStatus,StatusText";

/// The unit that runs a slot.
#[derive(Debug)]
pub(crate) struct Unit<'a> {
    slot: &'a SlotName,
}

/// Something systemd does to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Start it, and wait until it is ready.
    Start,
    /// Stop it when it runs, then start it.
    Restart,
    /// Stop it, and wait until it has ended.
    Stop,
}

impl Job {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

/// What systemd knows of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    load_state: String,
    active_state: String,
    result: String,
    status_text: String,
    main_pid: u32,
    exec_main_status: u8,
}

impl Facts {
    /// From the output of `systemctl show`.
    fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "LoadState" => value.clone_into(&mut facts.load_state),
                "ActiveState" => value.clone_into(&mut facts.active_state),
                "Result" => value.clone_into(&mut facts.result),
                "StatusText" => value.clone_into(&mut facts.status_text),
                "MainPID" => facts.main_pid = value.parse().unwrap_or_default(),
                "ExecMainStatus" => facts.exec_main_status = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        facts
    }

    /// Whether the process `pid` is the unit's.
    pub(crate) fn owns(&self, pid: u32) -> bool {
        pid != 0 && self.main_pid == pid
    }

    /// Whether the unit runs or is about to: also between an end and the next start.
    pub(crate) fn is_up(&self) -> bool {
        ["active", "activating", "reloading", "deactivating"].contains(&self.active_state.as_str())
    }

    /// Why the unit does not run, for people.
    fn reason(&self) -> String {
        let reason = match self.result.as_str() {
            "exit-code" => format!("it ended with exit code {}", self.exec_main_status),
            "timeout" => "it was not ready in time".to_owned(),
            "watchdog" => "it stopped answering".to_owned(),
            "start-limit-hit" => "it ended too often in a short time".to_owned(),
            "oom-kill" => "the host ran out of memory".to_owned(),
            "success" | "" => "systemd refused".to_owned(),
            other => other.to_owned(),
        };
        if self.status_text.is_empty() {
            return reason;
        }
        format!("{reason} ({})", self.status_text)
    }
}

impl<'a> Unit<'a> {
    /// The unit of `slot`, on a host that systemd runs; nothing on any other.
    pub(crate) fn of(slot: &'a SlotName) -> Option<Self> {
        Path::new(BOOTED).is_dir().then_some(Self { slot })
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("slotvmm@{}.service", self.slot)
    }

    /// What systemd knows of it.
    ///
    /// # Errors
    /// When systemd cannot be asked, or has no such unit.
    pub(crate) fn facts(&self) -> Result<Facts, UnitError> {
        let program = "systemctl";
        let output = Command::new(program)
            .args(["show", PROPERTIES, "--", &self.name()])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| UnitError::Program { program, source })?;
        let facts = Facts::parse(&String::from_utf8_lossy(&output.stdout));
        match facts.load_state.as_str() {
            "loaded" => Ok(facts),
            "" => Err(UnitError::Unanswered {
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
            _ => Err(UnitError::NotInstalled { unit: self.name() }),
        }
    }

    /// Has systemd do it and waits until it is done. systemd may ask for a password.
    ///
    /// # Errors
    /// When it cannot be done; the error says how the slot ended.
    pub(crate) fn run(&self, job: Job) -> Result<(), UnitError> {
        let program = "systemctl";
        let status = Command::new(program)
            .args([job.word(), "--quiet", "--", &self.name()])
            .status()
            .map_err(|source| UnitError::Program { program, source })?;
        if status.success() {
            return Ok(());
        }
        let facts = self.facts()?;
        Err(UnitError::Failed {
            slot: self.slot.clone(),
            job: job.word(),
            reason: facts.reason(),
            status: (facts.result == "exit-code").then_some(facts.exec_main_status),
        })
    }

    /// Has systemd begin to stop it. False when systemd refuses, say because only root may ask;
    /// then the slot has to be asked itself.
    pub(crate) fn begin_stop(&self) -> bool {
        Command::new("systemctl")
            .args([
                "stop",
                "--no-block",
                "--no-ask-password",
                "--",
                &self.name(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    /// There is no systemd.
    #[error(
        "This host is not run by systemd, so nothing starts slots here: use `slotvmm run {slot}`"
    )]
    NoSystemd {
        /// The slot.
        slot: SlotName,
    },
    /// A program of systemd's is missing.
    #[error("Failed to run {program}, which comes with systemd")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// systemd does not answer.
    #[error("systemd does not answer: {said}")]
    Unanswered {
        /// What its program said.
        said: String,
    },
    /// The units are not installed.
    #[error("systemd knows no {unit}: install the units that come with slotvmm")]
    NotInstalled {
        /// The unit.
        unit: String,
    },
    /// Somebody else runs the slot.
    #[error(
        "{slot} runs as process {pid}, which systemd did not start: `slotvmm stop {slot}` first"
    )]
    Foreign {
        /// The slot.
        slot: SlotName,
        /// Its process.
        pid: u32,
    },
    /// The unit failed.
    #[error("Failed to {job} {slot}: {reason}; `slotvmm logs {slot}` says more")]
    Failed {
        /// The slot.
        slot: SlotName,
        /// What was asked.
        job: &'static str,
        /// How the unit ended.
        reason: String,
        /// The exit code of its process, when that was the reason.
        status: Option<u8>,
    },
}

impl UnitError {
    /// The exit code: that of the slot's process when it ended with one.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Failed {
                status: Some(status),
                ..
            } => Exit::from_code(*status).unwrap_or(Exit::Failed),
            Self::Failed { status: None, .. } => Exit::Failed,
            Self::Foreign { .. } => Exit::DiskLocked,
            Self::NoSystemd { .. }
            | Self::Program { .. }
            | Self::Unanswered { .. }
            | Self::NotInstalled { .. } => Exit::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "Result=exit-code\nMainPID=0\nLoadState=loaded\nActiveState=failed\n\
        StatusText=booting: basic.target\nExecMainStatus=30\n";

    #[test]
    fn output_of_systemctl_becomes_facts() {
        let facts = Facts::parse(FAILED);
        assert_eq!(
            facts.reason(),
            "it ended with exit code 30 (booting: basic.target)"
        );
        assert!(!facts.is_up() && !facts.owns(0));
        let facts = Facts::parse("MainPID=17\nActiveState=activating\nExecMainStatus=999\nOther\n");
        assert!(facts.is_up() && facts.owns(17) && !facts.owns(18));
        assert_eq!(facts.exec_main_status, 0);
    }

    #[test]
    fn exit_code_of_the_slot_is_passed_on() {
        let failed = |status| UnitError::Failed {
            slot: "slot1".parse().unwrap(),
            job: "start",
            reason: String::new(),
            status,
        };
        assert_eq!(failed(Some(30)).exit(), Exit::Config);
        assert_eq!(failed(Some(99)).exit(), Exit::Failed);
        assert_eq!(failed(None).exit(), Exit::Failed);
    }
}
