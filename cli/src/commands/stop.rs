//! `stop`: power button, wait, and when a deadline passes, the hard way.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmm::api::VmInfo;
use vmm::lifecycle::VmState;

use super::lifecycle::Changed;
use super::{CommandError, Context};
use crate::args::Stop;
use crate::client::{Ask, Client, ClientError};
use crate::exit::Exit;
use crate::systemd::{Job, Unit};

/// How long a process may take to end once its machine was stopped hard.
const HARD_STOP_LIMIT: Duration = Duration::from_secs(10);

/// Stops a running slot.
pub(super) fn stop(args: &Stop, context: &Context) -> Result<Exit, CommandError> {
    let client = context.client(&args.slot)?;
    let exit = stop_slot(args, &client)?;
    Changed {
        slot: client.slot(),
        state: VmState::Stopped,
    }
    .print(context)?;
    Ok(exit)
}

/// Stops a slot and waits until its process has ended.
pub(super) fn stop_slot(args: &Stop, client: &Client) -> Result<Exit, CommandError> {
    let unit = Unit::of(client.slot());
    let info: VmInfo = match (client.ask(Ask::Info), &unit) {
        // Between two runs there is no process, but systemd would start the next one.
        (Err(ClientError::NotRunning { .. }), Some(unit)) if is_up(unit) => {
            unit.run(Job::Stop)?;
            return Ok(Exit::Success);
        }
        (answer, _) => answer?,
    };
    let Some(process) = open_process(info.pid)? else {
        return Ok(Exit::Success);
    };
    if args.timeout == Some(0) {
        return stop_hard(client, &process);
    }
    // systemd presses it as well, and knows then that the end was wanted.
    if !unit.is_some_and(|unit| owns(&unit, info.pid) && unit.begin_stop()) {
        client.tell(Ask::PowerButton)?;
    }
    let limit = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    match wait(&process, limit).map_err(CommandError::on("wait for the slot"))? {
        Ended::Yes => Ok(Exit::Success),
        Ended::No => stop_hard(client, &process),
    }
}

fn is_up(unit: &Unit<'_>) -> bool {
    unit.facts().is_ok_and(|facts| facts.is_up())
}

fn owns(unit: &Unit<'_>, pid: u32) -> bool {
    unit.facts().is_ok_and(|facts| facts.owns(pid))
}

fn stop_hard(client: &Client, process: &OwnedFd) -> Result<Exit, CommandError> {
    let told = client.tell(Ask::Shutdown);
    if let Err(refused @ ClientError::Refused { .. }) = told {
        return Err(refused.into());
    }
    let ended = wait(process, Some(HARD_STOP_LIMIT));
    if ended.map_err(CommandError::on("wait for the slot"))? == Ended::Yes {
        // Without an answer, too: the process may have ended before it could give one.
        return Ok(Exit::Stopped);
    }
    told?;
    Err(CommandError::Host {
        action: "stop the slot: its process does not end; see what it waits for, then kill it",
        source: io::ErrorKind::TimedOut.into(),
    })
}

/// A handle to the process, or nothing when it has just ended. A handle, unlike a number, never
/// comes to mean another process.
fn open_process(pid: u32) -> Result<Option<OwnedFd>, CommandError> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        None | Some(Err(rustix::io::Errno::SRCH)) => Ok(None),
        Some(Ok(process)) => Ok(Some(process)),
        Some(Err(errno)) => Err(CommandError::Host {
            action: "watch the slot's process",
            source: errno.into(),
        }),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Yes,
    No,
}

/// Waits for the process to end, for at most `limit`.
fn wait(process: &OwnedFd, limit: Option<Duration>) -> io::Result<Ended> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up, so that the last wait does not spin through a fraction of a millisecond.
            Some(deadline) => {
                let left = deadline
                    .saturating_duration_since(Instant::now())
                    .as_micros();
                PollTimeout::try_from(left.div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if deadline.is_none_or(|deadline| Instant::now() >= deadline) => {
                return Ok(Ended::No);
            }
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(Ended::Yes),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn waiting_tells_an_ended_process_from_a_living_one() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = open_process(child.id()).unwrap().unwrap();
        assert_eq!(wait(&process, Some(Duration::ZERO)).unwrap(), Ended::No);
        drop(child.stdin.take());
        assert_eq!(wait(&process, None).unwrap(), Ended::Yes);
        child.wait().unwrap();
        assert!(open_process(child.id()).unwrap().is_none());
    }
}
