//! `creds fetch`: every credential of the host into a directory where systemd finds them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::print_chain;
use crate::request::{RequestError, get, list};

/// Only root sees which credentials there are.
const DIR_MODE: u32 = 0o700;
/// Only root reads them.
const FILE_MODE: u32 = 0o400;

/// Why not everything was fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The host does not tell what there is.
    #[error("Failed to ask for the names of credentials")]
    List(#[source] RequestError),
    /// There is no directory for them.
    #[error("Failed to make {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Some are missing; each was reported.
    #[error("{failed} of {all} credentials were not fetched")]
    Some {
        /// How many are missing.
        failed: usize,
        /// How many there are.
        all: usize,
    },
}

/// Why one was not fetched.
#[derive(Debug, thiserror::Error)]
enum OneError {
    #[error("Credential {name} was not fetched")]
    Request {
        name: String,
        #[source]
        source: RequestError,
    },
    #[error("Credential {name} was not written")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// Fetches everything. One that fails does not keep the others out.
///
/// # Errors
/// When there is no list, no directory, or one was not fetched.
pub(crate) fn fetch(directory: &Path) -> Result<(), FetchError> {
    let names = list().map_err(FetchError::List)?;
    make(directory).map_err(|source| FetchError::Directory {
        path: directory.to_owned(),
        source,
    })?;
    let mut failed = 0usize;
    for name in &names {
        if let Err(error) = fetch_one(directory, name) {
            print_chain(&error);
            failed = failed.saturating_add(1);
        }
    }
    if failed > 0 {
        let all = names.len();
        return Err(FetchError::Some { failed, all });
    }
    println!("{} credentials in {}", names.len(), directory.display());
    Ok(())
}

fn make(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE).create(directory)
}

fn fetch_one(directory: &Path, name: &str) -> Result<(), OneError> {
    let value = get(name).map_err(|source| OneError::Request {
        name: name.to_owned(),
        source,
    })?;
    put(directory, name, &value).map_err(|source| OneError::Write {
        name: name.to_owned(),
        source,
    })
}

/// Writes a file in one step: whoever reads it gets the old value or the new one.
fn put(directory: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    // Hidden, so that no pattern of a unit finds it, and never the name of a credential's file.
    let temporary = directory.join(format!(".#slotvmm-guest:{}", std::process::id()));
    let written =
        write_new(&temporary, value).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        let _absent = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, value: &[u8]) -> io::Result<()> {
    // Of another process with this number, which is gone.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_replaced_and_only_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("run/credstore");
        make(&store).unwrap();
        make(&store).unwrap();
        put(&store, "HOST-KEY", b"old").unwrap();
        put(&store, "HOST-KEY", b"new\0").unwrap();
        let path = store.join("HOST-KEY");
        assert_eq!(fs::read(&path).unwrap(), b"new\0");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&store)), (0o400, 0o700));
        assert_eq!(
            fs::read_dir(&store).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn file_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(put(dir.path(), "taken", b"value").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
