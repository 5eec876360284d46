//! Backends of our own: this program once more, as a process that serves one directory.
//!
//! Each has a thread that starts it and waits for it. So a dead one never stays a zombie, and a
//! host that ties a process to the thread that started it does not end it too early. A backend
//! ends by itself when the connection to it closes. What the guest knows of the files is in a journal
//! that each backend appends to, and that the next one starts from.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use devices::vhost_user::Connect;
use fs_backend::SpawnError;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::{Cache, Poll};
use crate::resolve::{cache_word, poll_word};

/// The running program, whatever has become of its file since.
const OURSELVES: &str = "/proc/self/exe";

/// What a backend serves.
#[derive(Debug, Clone)]
pub(super) struct Served {
    /// The share's tag, for the log.
    pub(super) tag: String,
    /// The directory.
    pub(super) source: PathBuf,
    /// What the guest may keep.
    pub(super) cache: Cache,
    /// Size of the guest's window, in MiB.
    pub(super) dax_mib: Option<u64>,
    /// How long to look for the next request.
    pub(super) poll: Poll,
    /// Request queues.
    pub(super) queues: u16,
    /// A directory of ours, in which the socket has a name for a moment.
    pub(super) place: PathBuf,
}

/// Starts backends for one directory.
#[derive(Debug)]
pub(super) struct Children {
    served: Served,
    /// What the guest knows, handed from one backend to the next.
    journal: File,
    /// The one that was started early.
    first: Option<Starting>,
}

/// A backend on its way.
type Starting = Receiver<Result<UnixStream, SpawnError>>;

impl Children {
    /// Starts the first one, without waiting for it.
    pub(super) fn start(served: Served) -> io::Result<Self> {
        let journal = memfd_create("share-journal", MemfdFlags::CLOEXEC)?;
        let journal = File::from(journal);
        let first = Some(start(served.clone(), journal.try_clone()?)?);
        Ok(Self {
            served,
            journal,
            first,
        })
    }
}

impl Connect for Children {
    fn connect(&mut self) -> io::Result<UnixStream> {
        let starting = match self.first.take() {
            Some(first) => first,
            None => start(self.served.clone(), self.journal.try_clone()?)?,
        };
        let started = starting.recv();
        let started =
            started.map_err(|_| io::Error::other("the thread that starts it panicked"))?;
        started.map_err(io::Error::other)
    }

    fn reads_wait(&self) -> bool {
        true
    }
}

fn start(served: Served, journal: File) -> io::Result<Starting> {
    let (sender, starting) = mpsc::channel();
    // The thread inherits the mask: signals to this process are not for one that only waits.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || watch(&served, journal, &sender));
    mask.thread_set_mask()?;
    thread?;
    Ok(starting)
}

/// Runs a backend to its end.
fn watch(served: &Served, journal: File, started: &Sender<Result<UnixStream, SpawnError>>) {
    let (program, place) = (Path::new(OURSELVES), &served.place);
    match fs_backend::spawn_successor(program, arguments(served), place, journal) {
        Ok(spawned) => {
            // Nobody receives when the slot has ended meanwhile; the connection closes then.
            let _ = started.send(Ok(spawned.connection));
            wait(&served.tag, spawned.child);
        }
        // Reported by whoever receives it.
        Err(error) => drop(started.send(Err(error))),
    }
}

fn arguments(served: &Served) -> Vec<OsString> {
    let mut arguments = plain(&served.source, (served.cache, served.poll), served.queues);
    arguments.insert(1, "--journal".into());
    if let Some(mib) = served.dax_mib {
        arguments.extend(["--dax".into(), mib.to_string().into()]);
    }
    arguments
}

/// What every frontend can have. The backend finds its socket as standard input.
pub(super) fn plain(source: &Path, (cache, poll): (Cache, Poll), queues: u16) -> Vec<OsString> {
    vec![
        OsString::from("fs-backend"),
        "--fd=0".into(),
        "--source".into(),
        source.into(),
        "--cache".into(),
        cache_word(cache).into(),
        "--threads".into(),
        queues.to_string().into(),
        "--poll".into(),
        poll_word(poll).into_owned().into(),
    ]
}

fn wait(tag: &str, mut child: Child) {
    match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(share = tag, %status, "the backend of a share ended"),
        Err(error) => tracing::error!(share = tag, %error, "the backend of a share is not watched"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_told_what_the_slots_file_says() {
        let served = Served {
            tag: "ro-store".to_owned(),
            source: "/nix/store".into(),
            cache: Cache::Auto,
            dax_mib: Some(64),
            poll: Poll::Micros(200),
            queues: 2,
            place: "/run".into(),
        };
        let options = "--source /nix/store --cache auto --threads 2 --poll 200 --dax 64";
        let told = arguments(&served);
        let options: Vec<OsString> = options.split(' ').map(Into::into).collect();
        assert!(told.ends_with(&options), "{told:?}");
    }
}
