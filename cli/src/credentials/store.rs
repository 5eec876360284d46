//! Answers the guest's requests out of files, which are read anew for each.

use std::path::PathBuf;

use devices::credentials::{Name, Refusal, Store};
use devices::log_limit::LogLimit;
use zeroize::Zeroizing;

use super::reader::Reader;
use super::value::{Places, size};
use super::{CredentialError, ValueError};
use crate::resolve::Credential;

/// The files of a slot's credentials.
pub(super) struct FileStore {
    entries: Vec<Entry>,
    reader: Reader,
}

struct Entry {
    name: Name,
    key: String,
    path: PathBuf,
    uses: Uses,
    failures: LogLimit,
}

/// How often a value is given out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uses {
    Any,
    One,
    None,
}

impl FileStore {
    /// Checks that each can be read now; the guest is told little when one cannot be.
    pub(super) fn open(list: &[&Credential], places: &Places) -> Result<Self, CredentialError> {
        let entry = |credential: &&Credential| {
            let path = path(credential, places).map_err(|source| CredentialError {
                name: credential.name.clone(),
                source,
            })?;
            Ok(Entry {
                name: credential.name.clone(),
                key: credential.key.clone(),
                path,
                uses: if credential.once {
                    Uses::One
                } else {
                    Uses::Any
                },
                failures: LogLimit::new(),
            })
        };
        Ok(Self {
            entries: list.iter().map(entry).collect::<Result<_, _>>()?,
            reader: Reader::new(),
        })
    }
}

fn path(credential: &Credential, places: &Places) -> Result<PathBuf, ValueError> {
    let path = places.path(&credential.place)?;
    size(&path)?;
    Ok(path)
}

impl Store for FileStore {
    fn names(&self) -> Vec<Name> {
        let entries = self.entries.iter().filter(|entry| entry.uses != Uses::None);
        entries.map(|entry| entry.name.clone()).collect()
    }

    fn read(&mut self, name: &Name) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let mut entries = self.entries.iter_mut();
        let entry = entries
            .find(|entry| entry.name == *name || entry.key == name.as_str())
            .ok_or(Refusal::Unknown)?;
        if entry.uses == Uses::None {
            return Err(Refusal::Spent);
        }
        match self.reader.read(&entry.path) {
            Ok(value) => {
                if entry.uses == Uses::One {
                    entry.uses = Uses::None;
                }
                Ok(value)
            }
            Err(error) => {
                if let Some(count) = entry.failures.next() {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(count, credential = %entry.name, %error, cause, "Credentials: a value cannot be read");
                }
                Err(Refusal::Unreadable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Transport;
    use crate::resolve::Place;

    fn credential(path: PathBuf, once: bool) -> Credential {
        Credential {
            name: "HOST-KEY".parse().unwrap(),
            key: "key".to_owned(),
            place: Place::File(path),
            transport: Transport::Vsock,
            once,
        }
    }

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn value_is_that_of_the_moment_by_either_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        let credential = credential(path.clone(), false);
        let mut store = FileStore::open(&[&credential], &Places::of_process()).unwrap();
        assert_eq!(*store.read(&name("HOST-KEY")).unwrap(), b"old");
        fs::write(&path, "new").unwrap();
        assert_eq!(*store.read(&name("key")).unwrap(), b"new");
        fs::remove_file(&path).unwrap();
        assert_eq!(
            store.read(&name("HOST-KEY")).unwrap_err(),
            Refusal::Unreadable
        );
        assert_eq!(store.read(&name("other")).unwrap_err(), Refusal::Unknown);
        assert_eq!(store.names(), [name("HOST-KEY")]);
    }

    #[test]
    fn one_shot_is_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "value").unwrap();
        let credential = credential(path, true);
        let mut store = FileStore::open(&[&credential], &Places::of_process()).unwrap();
        assert_eq!(store.names().len(), 1);
        assert_eq!(*store.read(&name("HOST-KEY")).unwrap(), b"value");
        assert!(store.names().is_empty());
        assert_eq!(store.read(&name("HOST-KEY")).unwrap_err(), Refusal::Spent);
    }

    #[test]
    fn missing_file_is_noticed_at_the_start() {
        let credential = credential("/nonexistent/key".into(), false);
        let error = FileStore::open(&[&credential], &Places::of_process()).map(drop);
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "Credential HOST-KEY cannot be used");
        assert!(matches!(error.source, ValueError::Missing { .. }));
    }
}
