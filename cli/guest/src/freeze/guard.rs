//! The process that thaws if the one that froze is killed.
//!
//! It has the places open before anything is frozen, and the other end of a pipe. A line on the pipe
//! says that everything is thawed; its end without one, or the time limit, that the other process is
//! gone or hangs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::{frozen, guard_arguments, sys};

/// What it says once it has everything open, and is told when it is not needed any more.
const READY: &str = "ready\n";
const DONE: &[u8] = b"done\n";

/// The process, from the side that freezes.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    pipe: ChildStdin,
}

impl Guard {
    /// Starts it and waits until it can thaw all of `places`.
    pub(super) fn start(places: &[PathBuf], seconds: u64) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(guard_arguments(places, seconds))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let pipe = child.stdin.take().ok_or_else(gone)?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or_else(gone)?).read_line(&mut said)?;
        if said == READY {
            return Ok(Self { child, pipe });
        }
        drop(pipe);
        let _ = child.wait();
        Err(gone())
    }

    /// Tells it that everything is thawed.
    pub(super) fn release(mut self) {
        // One that is gone needs no telling.
        let _ = self.pipe.write_all(DONE);
        let _ = self.child.wait();
    }
}

/// The body of the process: `freeze guard SECONDS PLACE…`.
///
/// # Errors
/// When the arguments are none of [`Guard::start`]'s, or a place cannot be opened.
pub(crate) fn guard(seconds: u32, places: &[OsString]) -> io::Result<()> {
    // What stops the other process stops it first, and that thaws.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None)?;
    let opened = places.iter().map(|place| frozen::open(Path::new(place)));
    let opened = opened.collect::<io::Result<Vec<File>>>()?;
    io::stdout().write_all(READY.as_bytes())?;
    io::stdout().flush()?;
    let stdin = io::stdin();
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let limit = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let told = poll(&mut waiting, limit).is_ok_and(|ready| ready > 0);
    let mut said = [0; DONE.len()];
    if told && stdin.lock().read_exact(&mut said).is_ok() && said == DONE {
        return Ok(());
    }
    for place in opened.iter().rev() {
        // Fails for what is not frozen.
        let _ = sys::thaw(place);
    }
    Ok(())
}
