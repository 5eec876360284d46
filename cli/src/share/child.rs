//! Backends of our own: this program once more, as a process that serves one directory.
//!
//! Each has a thread that starts it and waits for it. So a dead one never stays a zombie, and the
//! kernel, which kills a backend when the thread that started it ends, does so neither too early
//! nor too late. Before that, a backend ends by itself when its socket closes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use devices::vhost_user::Connect;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::config::Cache;
use crate::resolve::cache_word;

/// The running program, whatever has become of its file since.
const OURSELVES: &str = "/proc/self/exe";

/// Starts backends for one directory.
#[derive(Debug)]
pub(super) struct Children {
    tag: String,
    source: PathBuf,
    cache: Cache,
    /// The one that was started early.
    first: Option<UnixStream>,
    /// How many were started.
    started: u32,
}

impl Children {
    /// Starts the first one.
    pub(super) fn start(tag: &str, source: &Path, cache: Cache) -> io::Result<Self> {
        let mut children = Self {
            tag: tag.to_owned(),
            source: source.to_owned(),
            cache,
            first: None,
            started: 0,
        };
        children.first = Some(children.spawn()?);
        Ok(children)
    }

    fn spawn(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let command = self.command(theirs);
        let tag = self.tag.clone();
        // The thread inherits it: signals to this process are not for a thread that only waits.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let thread = thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || watch(&tag, command));
        mask.thread_set_mask()?;
        thread?;
        self.started = self.started.saturating_add(1);
        Ok(ours)
    }

    /// The backend finds its socket as standard input.
    fn command(&self, socket: UnixStream) -> Command {
        let mut command = Command::new(OURSELVES);
        command
            .arg0("slotvmm")
            .args(["fs-backend", "--fd", "0", "--source"])
            .arg(&self.source)
            .args(["--cache", cache_word(self.cache)])
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::null());
        command
    }
}

/// Runs a backend to its end. Its socket closes with it, or with `command` when there is none.
fn watch(tag: &str, mut command: Command) {
    let ended = command.spawn().and_then(|child| {
        // Holds the backend's end of the socket, which has to close when the backend dies.
        drop(command);
        wait(child)
    });
    match ended {
        Ok(()) => {}
        Err(error) => tracing::error!(share = tag, %error, "the backend of a share failed"),
    }
}

fn wait(mut child: Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("it ended with {status}")))
}

impl Connect for Children {
    fn connect(&mut self) -> io::Result<UnixStream> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.spawn(),
        }
    }
}
