//! Reading the value of a credential.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use devices::credentials::MAX_CREDENTIAL_BYTES;
use hostnet::slot::SlotName;
use zeroize::Zeroizing;

use crate::resolve::Place;

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValueError {
    /// systemd gave the process no credentials.
    #[error(
        "$CREDENTIALS_DIRECTORY is not set: add a LoadCredential= for it to the unit that runs the \
         slot, or set `source` to an absolute path"
    )]
    NoDirectory,
    /// There is no such file.
    #[error("There is no {}: add a LoadCredential= for it, or correct `source`", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is not a file.
    #[error("{} is not a regular file", path.display())]
    Kind {
        /// What was named.
        path: PathBuf,
    },
    /// It is larger than systemd takes.
    #[error(
        "{} has {bytes} bytes, a credential has at most {MAX_CREDENTIAL_BYTES}", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Somebody wrote to it meanwhile.
    #[error(
        "{} changed while it was read; replace such a file by renaming another one", path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The host refuses.
    #[error("Failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Where `$CREDENTIALS_DIRECTORY` leads.
#[derive(Debug)]
pub(crate) struct Places(Option<PathBuf>);

impl Places {
    /// For this process, when systemd started it.
    pub(crate) fn of_process() -> Self {
        Self(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    /// For the unit that runs the slot, which root may look at from outside.
    pub(crate) fn of_unit(slot: &SlotName) -> Self {
        let Self(own) = Self::of_process();
        let unit = PathBuf::from(format!("/run/credentials/slotvmm@{slot}.service"));
        Self(own.or_else(|| unit.is_dir().then_some(unit)))
    }

    /// The file of a value.
    ///
    /// # Errors
    /// When it would be in a directory that is not there.
    pub(crate) fn path(&self, place: &Place) -> Result<PathBuf, ValueError> {
        match place {
            Place::File(path) => Ok(path.clone()),
            Place::Credential(name) => {
                let directory = self.0.as_ref().ok_or(ValueError::NoDirectory)?;
                Ok(directory.join(name.as_str()))
            }
        }
    }
}

/// The size in bytes of the value in a file that can be read.
///
/// # Errors
/// When it is no file that can be read, or too large.
pub(crate) fn size(path: &Path) -> Result<u64, ValueError> {
    open(path).map(|(_, bytes)| bytes)
}

/// The value in a file.
///
/// # Errors
/// When it is no file that can be read, too large, or being written.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ValueError> {
    let (mut file, bytes) = open(path)?;
    let failed = |source| ValueError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = usize::try_from(bytes).unwrap_or(MAX_CREDENTIAL_BYTES);
    // One more, to notice that the file grew. A vector that grows itself leaves copies behind.
    let mut value = Zeroizing::new(vec![0; bytes.saturating_add(1)]);
    let mut filled = 0usize;
    while let Some(room) = value.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if filled != bytes {
        return Err(ValueError::Changed {
            path: path.to_owned(),
        });
    }
    value.truncate(filled);
    Ok(value)
}

/// Opens a file of a permitted size. Links are followed: what deploys secrets switches between
/// generations by them.
fn open(path: &Path) -> Result<(File, u64), ValueError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ValueError::Missing {
            path: path.to_owned(),
        },
        _ => ValueError::Read {
            path: path.to_owned(),
            source,
        },
    };
    // Looked at before it is opened, because opening some devices does something.
    check(path, &fs::metadata(path).map_err(failed)?)?;
    let file = OpenOptions::new()
        .read(true)
        // Should it have become a pipe since, nobody waits for a writer.
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check(path, &metadata)?;
    Ok((file, metadata.len()))
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), ValueError> {
    let path = || path.to_owned();
    let bytes = metadata.len();
    if !metadata.is_file() {
        return Err(ValueError::Kind { path: path() });
    }
    if bytes > MAX_CREDENTIAL_BYTES as u64 {
        return Err(ValueError::TooLarge {
            path: path(),
            bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        for value in [&b""[..], b"\0\xff\n", &[9; MAX_CREDENTIAL_BYTES]] {
            fs::write(&path, value).unwrap();
            assert_eq!(size(&path).unwrap(), value.len() as u64);
            assert_eq!(read(&path).unwrap().as_slice(), value);
        }
    }

    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("v1"), "one").unwrap();
        let link = dir.path().join("current");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        assert_eq!(*read(&link).unwrap(), b"one");
    }

    #[test]
    fn what_is_no_credential_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("large"), vec![0; MAX_CREDENTIAL_BYTES + 1]).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = |name: &str| read(&path(name)).unwrap_err();
        assert!(matches!(error("none"), ValueError::Missing { .. }));
        assert!(matches!(error("pipe"), ValueError::Kind { .. }));
        assert!(matches!(error("."), ValueError::Kind { .. }));
        let large = error("large");
        assert!(matches!(
            large,
            ValueError::TooLarge {
                bytes: 1_048_577,
                ..
            }
        ));
    }

    #[test]
    fn names_need_a_directory() {
        let place = Place::Credential("key".parse().unwrap());
        let missing = Places(None).path(&place);
        assert!(matches!(missing, Err(ValueError::NoDirectory)));
        let found = Places(Some("/run/c".into())).path(&place).unwrap();
        assert_eq!(found, Path::new("/run/c/key"));
    }
}
