//! The one place with unsafe code: what a child process does between fork and exec.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes the process that `command` starts die with the thread that starts it, so that a killed lab
/// leaves no emulator and no half-built image behind.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    let ask = || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes one
    // system call and neither allocates nor takes a lock.
    unsafe { command.pre_exec(ask) }
}
