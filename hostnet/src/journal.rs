//! What this crate did to the host, so that it can be undone exactly: kept in a file, written
//! before each change and after it.
//!
//! An interrupted change leaves the file of before or of after, and either leads the next one to a
//! complete network: what was about to be made is noted, whether it was made or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use crate::policy::SlotSpec;
use crate::slot::{InterfaceName, SlotName};
use crate::sysctl::Sysctl;

/// Largest journal in bytes: 255 slots with hundreds of rules each.
const MAX_JOURNAL: u64 = 16 << 20;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Slots whose network is up.
    pub slots: BTreeMap<SlotName, SlotSpec>,
    /// Interfaces that were made.
    pub links: BTreeSet<InterfaceName>,
    /// Addresses that were added to interfaces of someone else.
    pub addresses: Vec<(InterfaceName, Ipv4Net)>,
    /// Interfaces of someone else that were brought up.
    #[serde(default)]
    pub raised: BTreeSet<InterfaceName>,
    /// Taps of someone else that were put into a bridge.
    #[serde(default)]
    pub enslaved: BTreeSet<InterfaceName>,
    /// Taps of someone else that were given to another user, and whose they were.
    #[serde(default)]
    pub owners: BTreeMap<InterfaceName, u32>,
    /// Settings that were changed on interfaces of someone else.
    pub sysctls: Vec<Changed>,
    /// The rules as they were loaded.
    pub ruleset: String,
    /// The rules as the kernel listed them then.
    pub listing: String,
}

impl Journal {
    /// Adds what `other` has made or is about to make, and takes its rules.
    pub(crate) fn include(&mut self, other: &Self) {
        let slots = other.slots.iter();
        self.slots
            .extend(slots.map(|(name, slot)| (name.clone(), slot.clone())));
        self.links.extend(other.links.iter().cloned());
        self.raised.extend(other.raised.iter().cloned());
        self.enslaved.extend(other.enslaved.iter().cloned());
        for (name, owner) in &other.owners {
            self.owners.entry(name.clone()).or_insert(*owner);
        }
        for address in &other.addresses {
            if !self.addresses.contains(address) {
                self.addresses.push(address.clone());
            }
        }
        for changed in &other.sysctls {
            if !self.sysctls.contains(changed) {
                self.sysctls.push(changed.clone());
            }
        }
        self.ruleset.clone_from(&other.ruleset);
        self.listing.clone_from(&other.listing);
    }

    /// Forgets an interface.
    pub(crate) fn forget(&mut self, name: &InterfaceName) {
        self.links.remove(name);
        self.addresses.retain(|(on, _)| on != name);
        self.raised.remove(name);
        self.enslaved.remove(name);
        self.owners.remove(name);
    }
}

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The setting.
    pub sysctl: Sysctl,
    /// Whether it was on before.
    pub was: bool,
}

/// The directory that holds the journal.
#[derive(Debug, Clone)]
pub struct JournalDir {
    path: PathBuf,
}

/// Keeps others from changing the network meanwhile; gone with the process and with the programs
/// that it started: a killed process may leave an `nft` behind that is about to load rules.
#[derive(Debug)]
pub struct JournalLock {
    _file: File,
}

impl JournalDir {
    /// The directory at `path`, usually `/run/slotvmm-net`. It need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The journal; an absent one is empty.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn read(&self) -> Result<Journal, JournalError> {
        let path = self.file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Journal::default()),
            Err(source) => return Err(JournalError::Io { path, source }),
        };
        let mut text = Vec::new();
        let read = file.take(MAX_JOURNAL).read_to_end(&mut text);
        read.map_err(|source| JournalError::Io {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| JournalError::Damaged { path, source })
    }

    /// Waits until nobody else changes the network, and keeps it so.
    ///
    /// # Errors
    /// When the directory cannot be made, or the lock not taken.
    pub fn lock(&self) -> Result<JournalLock, JournalError> {
        let path = self.path.join("lock");
        let failed = |source| JournalError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&self.path).map_err(failed)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        file.lock().map_err(failed)?;
        fcntl_setfd(&file, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        Ok(JournalLock { _file: file })
    }

    /// Replaces the journal; an empty one is removed. Whoever reads sees the one before or this.
    pub(crate) fn write(&self, journal: &Journal) -> Result<(), JournalError> {
        let path = self.file();
        let failed = |source| JournalError::Io {
            path: path.clone(),
            source,
        };
        if *journal == Journal::default() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let new = self.path.join("state.json.new");
        let text = serde_json::to_vec_pretty(journal).map_err(io::Error::from);
        let written = text.and_then(|text| File::create(&new)?.write_all(&text));
        written
            .and_then(|()| fs::rename(&new, &path))
            .map_err(failed)
    }

    fn file(&self) -> PathBuf {
        Path::new(&self.path).join("state.json")
    }
}

/// Why the journal is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The host refuses.
    #[error(
        "Failed to use {}, which remembers what was done to the network: set `net.state_dir` to a \
         directory that this user may write", path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is not what we wrote.
    #[error(
        "{} is damaged, so what was done to the network is not known: remove it and apply again; \
         interfaces with the alias slotvmm are still ours", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}
