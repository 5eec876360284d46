//! A backend that somebody else runs.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use devices::vhost_user::Connect;

/// A backend's socket.
#[derive(Debug)]
pub(super) struct Listening {
    path: PathBuf,
    /// Made before there is a machine, so that an absent backend is noticed then.
    first: Option<UnixStream>,
}

impl Listening {
    /// Connects for the first time.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            first: Some(UnixStream::connect(path)?),
        })
    }
}

impl Connect for Listening {
    fn connect(&mut self) -> io::Result<UnixStream> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => UnixStream::connect(&self.path),
        }
    }
}
