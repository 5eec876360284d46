//! The exit codes of `slotvmm`, documented in `docs/exit-codes.md`. Scripts and unit files rely on
//! them: a number never changes its meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The guest powered off, or the command did what it was asked.
    Success = 0,
    /// An error that no other code names.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The guest asked for a reboot.
    Reboot = 10,
    /// The guest's kernel panicked.
    Panic = 20,
    /// The guest's processor gave up.
    TripleFault = 21,
    /// The guest was stopped hard.
    Stopped = 22,
    /// The guest did not become ready.
    NotReady = 23,
    /// The configuration or the bootstrap is not usable.
    Config = 30,
    /// The host lacks something, or withholds it.
    Host = 31,
    /// Someone else uses a disk.
    DiskLocked = 32,
    /// KVM on this host cannot run the guest.
    CannotRun = 33,
}

/// All of them.
const ALL: [Exit; 12] = [
    Exit::Success,
    Exit::Failed,
    Exit::Usage,
    Exit::Reboot,
    Exit::Panic,
    Exit::TripleFault,
    Exit::Stopped,
    Exit::NotReady,
    Exit::Config,
    Exit::Host,
    Exit::DiskLocked,
    Exit::CannotRun,
];

impl Exit {
    /// The exit that a process ended with; nothing when it is none of ours.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        ALL.into_iter().find(|exit| *exit as u8 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_documented_table() {
        let table = include_str!("../../docs/exit-codes.md");
        for exit in ALL {
            let row = format!("| {} |", exit as u8);
            assert!(
                table.contains(&row),
                "docs/exit-codes.md has no row for {exit:?}"
            );
        }
        let rows = table
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| code"));
        assert_eq!(rows.count(), ALL.len());
    }
}
