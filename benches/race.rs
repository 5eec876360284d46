//! One boot as a process: how long until the guest's first byte, and how long until the process is
//! gone.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boot_bench::die_with_parent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::guest::MARK;

/// A monitor that takes longer does not get there at all.
const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// How long one boot took, from just before the process was started.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// Until the guest's first output came out of the process.
    pub first_instruction: Duration,
    /// Until the process was waited for.
    pub exit: Duration,
}

/// Boots once. The exit status is not looked at: monitors differ in what they call a reset.
///
/// # Errors
/// When the process cannot be started, or the guest's mark does not appear on its standard output.
pub fn boot(command: &[OsString]) -> io::Result<Boot> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut prepared = Command::new(program);
    prepared
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    die_with_parent(&mut prepared);
    let start = Instant::now();
    let mut child = prepared.spawn()?;
    let first_instruction = watch(&mut child, start);
    if first_instruction.is_err() {
        // It hangs or has gone already; either way it is to be waited for.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let exit = start.elapsed();
    match first_instruction? {
        Some(first_instruction) => Ok(Boot {
            first_instruction,
            exit,
        }),
        None => Err(io::Error::other(format!(
            "the guest said nothing, the process ended with {status}"
        ))),
    }
}

/// Reads the child's output to its end; returns when the mark's first byte came, if the mark did: a
/// monitor may keep what follows that byte for a moment, to write it at once.
fn watch(child: &mut Child, start: Instant) -> io::Result<Option<Duration>> {
    let mut output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut seen = Seen::default();
    let mut chunk = [0; 4096];
    loop {
        let mut wait = [PollFd::new(&output, PollFlags::IN)];
        if poll(&mut wait, Some(&PATIENCE))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let bytes = output.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(seen.mark());
        }
        seen.add(chunk.get(..bytes).unwrap_or_default(), start.elapsed());
    }
}

/// What came out of a process, and when.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// For each reading, how many bytes there were after it, and when that was.
    readings: Vec<(usize, Duration)>,
}

impl Seen {
    fn add(&mut self, bytes: &[u8], at: Duration) {
        self.bytes.extend_from_slice(bytes);
        self.readings.push((self.bytes.len(), at));
    }

    /// When the first byte of the guest's mark came.
    fn mark(&self) -> Option<Duration> {
        let mut windows = self.bytes.windows(MARK.len());
        let place = windows.position(|window| window == MARK)?;
        let mut readings = self.readings.iter();
        readings
            .find(|(bytes, _)| place < *bytes)
            .map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn mark_and_end_of_a_process_are_seen() {
        let boot = boot(&shell("echo noise; echo BR; exit 3")).unwrap();
        assert!(boot.first_instruction <= boot.exit);
    }

    #[test]
    fn the_mark_came_with_its_first_byte() {
        let at = Duration::from_millis;
        let mut seen = Seen::default();
        for (bytes, time) in [("noise ", 1), ("B", 2), ("R", 3), ("BR", 4)] {
            seen.add(bytes.as_bytes(), at(time));
        }
        assert_eq!(seen.mark(), Some(at(2)));
    }

    #[test]
    fn process_without_a_mark_is_an_error() {
        assert!(boot(&shell("echo nothing")).is_err());
    }

    #[test]
    fn program_that_is_not_there_is_an_error() {
        assert!(boot(&["/nonexistent".into()]).is_err());
    }
}
