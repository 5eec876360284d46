//! Reads files for a thread that must not wait: the socket device's, which would hold up every
//! other socket, and the end of the machine, behind a file system that does not answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::value::{ValueError, read};

/// Longest wait for a file. From a local file system, a megabyte takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of a read.
type Outcome = Result<Zeroizing<Vec<u8>>, ValueError>;

/// Reads a value. Replaced in tests.
type ReadFile = fn(&Path) -> Outcome;

/// Reads one file at a time, in a thread that it waits for no longer than [`PATIENCE`].
pub(super) struct Reader {
    read: ReadFile,
    patience: Duration,
    /// What a thread has not answered in time.
    late: Option<Receiver<Outcome>>,
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The file system does not answer.
    #[error("{} was not read within {} s; keep credentials on a local file system", path.display(), PATIENCE.as_secs())]
    Slow {
        /// The file.
        path: PathBuf,
    },
    /// An earlier one is still being read.
    #[error("The file system has not answered an earlier request yet")]
    Busy,
    /// The host gives no thread.
    #[error("Failed to start a thread to read {}", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

impl Reader {
    /// A reader with nothing to do.
    pub(super) fn new() -> Self {
        Self {
            read,
            patience: PATIENCE,
            late: None,
        }
    }

    /// The value in a file.
    ///
    /// # Errors
    /// When it cannot be read, or not in time.
    pub(super) fn read(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        // However often the guest asks, one thread hangs at most.
        if let Some(late) = &self.late {
            match late.try_recv() {
                Err(TryRecvError::Empty) => return Err(ReadError::Busy),
                Ok(_) | Err(TryRecvError::Disconnected) => self.late = None,
            }
        }
        // With room for the outcome, so that a thread that is late ends.
        let (sender, receiver) = sync_channel(1);
        let (read, file) = (self.read, path.to_owned());
        thread::Builder::new()
            .name("credential".to_owned())
            .spawn(move || drop(sender.send(read(&file))))
            .map_err(|source| ReadError::Thread {
                path: path.to_owned(),
                source,
            })?;
        match receiver.recv_timeout(self.patience) {
            Ok(outcome) => Ok(outcome?),
            Err(RecvTimeoutError::Timeout) => {
                self.late = Some(receiver);
                Err(ReadError::Slow {
                    path: path.to_owned(),
                })
            }
            // It panicked, which the panic said.
            Err(RecvTimeoutError::Disconnected) => Err(ReadError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;

    use super::*;

    /// Opens a pipe, which waits for somebody to open the other end: as a file system that does
    /// not answer.
    fn wait_for_writer(path: &Path) -> Outcome {
        let mut value = Vec::new();
        File::open(path).unwrap().read_to_end(&mut value).unwrap();
        Ok(Zeroizing::new(value))
    }

    #[test]
    fn file_that_hangs_holds_nobody_up_and_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = Reader {
            read: wait_for_writer,
            patience: Duration::from_millis(1),
            late: None,
        };
        assert!(matches!(reader.read(&pipe), Err(ReadError::Slow { .. })));
        assert!(matches!(reader.read(&pipe), Err(ReadError::Busy)));
        assert!(matches!(reader.read(&pipe), Err(ReadError::Busy)));

        // It answers at last, and the late value is nobody's.
        fs::write(&pipe, "late").unwrap();
        let late = reader.late.take().unwrap();
        assert_eq!(*late.recv().unwrap().unwrap(), b"late");
    }

    #[test]
    fn reader_goes_on_once_a_late_file_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        fs::write(&path, "value").unwrap();
        let (sender, late) = sync_channel(1);
        sender.send(Ok(Zeroizing::new(Vec::new()))).unwrap();
        let mut reader = Reader {
            late: Some(late),
            ..Reader::new()
        };
        assert_eq!(*reader.read(&path).unwrap(), b"value");
        assert!(reader.late.is_none());
    }
}
