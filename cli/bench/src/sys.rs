//! System calls that no crate wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes the process that `command` starts die with the thread that starts it, so that a killed
/// benchmark leaves no machine behind.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let ask = || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Whoever makes benchmarks may wait for signals; a monitor is to be ended by them.
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes two
    // system calls and neither allocates nor takes a lock.
    unsafe { command.pre_exec(ask) }
}

/// How a process ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// Waits for `child`, as `wait` does, and says what it used besides (wait4(2)). Takes the child,
/// because its number may be another process's afterwards.
///
/// # Errors
/// When the child was waited for before.
pub(crate) fn wait4(child: Child) -> io::Result<Ended> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: `rusage` consists of integers only, for which zeroes are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the types that the call writes.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(Ended {
        status: ExitStatus::from_raw(status),
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
    })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let micros = u64::try_from(time.tv_usec).unwrap_or_default();
    Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::thread;

    use super::*;

    #[test]
    fn process_dies_with_the_thread_that_started_it() {
        let started = thread::spawn(|| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            die_with_parent(&mut command).spawn().unwrap()
        });
        let mut child = started.join().unwrap();
        // With its input open it would not end by itself, and `wait` would close it.
        let input = child.stdin.take();
        let ended = wait4(child).unwrap();
        drop(input);
        assert_eq!(ended.status.signal(), Some(libc::SIGKILL));
    }
}
