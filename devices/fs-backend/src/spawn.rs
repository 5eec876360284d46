//! Starting a backend as a child process, already connected.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no socket.
    #[error("Cannot make a socket for the file system backend")]
    Socket(#[source] io::Error),
    /// The program does not start.
    #[error("Cannot start {} as file system backend", program.display())]
    Start {
        /// The program.
        program: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A backend that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process. It ends when the connection is closed, and must be waited for.
    pub child: Child,
    /// The connection to it. Whatever is sent waits there until the child has begun: nothing has
    /// to be waited for.
    pub connection: UnixStream,
}

/// Starts `program` with `arguments` and a listening socket as its standard input, to which the
/// connection that is returned has been made already. So the arguments say `--fd 0`.
///
/// The socket has a name for a moment, in a directory in `place` that only this user can enter.
///
/// # Errors
/// When there is no socket, or no process.
pub fn spawn<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    place: &Path,
) -> Result<Spawned, SpawnError> {
    start(program, arguments, place, Stdio::null())
}

/// As [`spawn`], with a journal as its standard output: the arguments say `--journal` as well. The
/// same file is given to one backend after the other.
///
/// # Errors
/// When there is no socket, or no process.
pub fn spawn_successor<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    place: &Path,
    journal: File,
) -> Result<Spawned, SpawnError> {
    start(program, arguments, place, Stdio::from(journal))
}

fn start<A: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
    place: &Path,
    output: Stdio,
) -> Result<Spawned, SpawnError> {
    let (listener, connection) = connected(place).map_err(SpawnError::Socket)?;
    let child = Command::new(program)
        // What a list of processes shows, also when the program is started through a link.
        .arg0("slotvmm")
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(output)
        .spawn()
        .map_err(|source| SpawnError::Start {
            program: program.to_owned(),
            source,
        })?;
    Ok(Spawned { child, connection })
}

/// A listening socket, and the first connection to it.
fn connected(place: &Path) -> io::Result<(UnixListener, UnixStream)> {
    let directory = tempfile::Builder::new().prefix(".fs").tempdir_in(place)?;
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path)?;
    let connection = UnixStream::connect(&path)?;
    Ok((listener, connection))
}
