//! A backend's own state on its way through a pipe, with a limit to its length and to the wait.
//!
//! Whoever sends closes its end when it is done; how it went is asked for on the socket afterwards
//! (`CHECK_DEVICE_STATE`), since nothing in the pipe tells an end from a failure.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

use super::VhostUserError;

/// What a transfer may take at most.
#[derive(Debug, Clone, Copy)]
pub struct TransferLimits {
    /// Longest state, in bytes.
    pub bytes: usize,
    /// Longest wait from the first byte to the last.
    pub time: Duration,
}

/// How much is taken from the pipe at once: what a pipe holds by default.
const PIECE: usize = 64 << 10;

/// Reads until the other end is closed.
pub(super) fn receive(
    mut pipe: PipeReader,
    limits: TransferLimits,
) -> Result<Vec<u8>, VhostUserError> {
    let until = Instant::now().checked_add(limits.time);
    ioctl_fionbio(&pipe, true).map_err(|error| VhostUserError::Transfer(error.into()))?;
    let mut state = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        wait(PollFd::new(&pipe, PollFlags::IN), until)?;
        let count = match pipe.read(&mut piece) {
            Ok(0) => return Ok(state),
            Ok(count) => count,
            Err(error) if is_early(&error) => continue,
            Err(error) => return Err(VhostUserError::Transfer(error)),
        };
        if count > limits.bytes.saturating_sub(state.len()) {
            return Err(VhostUserError::StateTooLong {
                limit: limits.bytes,
            });
        }
        state.extend(piece.iter().take(count));
    }
}

/// Writes `state` and closes the pipe.
pub(super) fn send(
    mut pipe: PipeWriter,
    mut state: &[u8],
    limits: TransferLimits,
) -> Result<(), VhostUserError> {
    let until = Instant::now().checked_add(limits.time);
    ioctl_fionbio(&pipe, true).map_err(|error| VhostUserError::Transfer(error.into()))?;
    while !state.is_empty() {
        wait(PollFd::new(&pipe, PollFlags::OUT), until)?;
        match pipe.write(state) {
            Ok(count) => state = state.get(count..).unwrap_or_default(),
            Err(error) if is_early(&error) => {}
            Err(error) => return Err(VhostUserError::Transfer(error)),
        }
    }
    Ok(())
}

/// Whether an error only says to come again.
fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Waits until `end` is ready, or closed at the other end, but not for longer than `until`.
fn wait(end: PollFd<'_>, until: Option<Instant>) -> Result<(), VhostUserError> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // A limit too far away to be represented is none.
    let left = left.map(Timespec::try_from).and_then(Result::ok);
    match poll(&mut [end], left.as_ref()) {
        Ok(0) => Err(VhostUserError::Transfer(io::ErrorKind::TimedOut.into())),
        // Whoever waits tries, and comes back when it was too early.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(VhostUserError::Transfer(error.into())),
    }
}
