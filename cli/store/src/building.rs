//! A directory that is being made: `.new-<name>` beside its place, locked by its maker.
//!
//! The lock tells a directory that is being made from one whose maker died. Nothing of the second
//! kind is ever looked into, except by [`clear_leftovers`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::durable;
use crate::error::StoreError;
use crate::fault;
use crate::holder::Holder;
use crate::kept;
use crate::layout::{NEW, OLD};
use crate::name::Name;
use crate::store::{Locked, Store};
use crate::zfs::DataSets;

/// What becomes of a directory that is dropped.
#[derive(Debug, PartialEq, Eq)]
enum Drops {
    Remove,
    Keep,
}

/// A directory that is being made; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Building {
    dir: PathBuf,
    place: PathBuf,
    drops: Drops,
    /// The data set that is mounted at `dir`, if that is one.
    set: Option<(DataSets, Name)>,
    /// Locked as long as it is open.
    lock: File,
}

impl Building {
    /// Begins a state: a data set where states are made as such, else a directory.
    ///
    /// # Errors
    /// As [`Self::begin`], and when ZFS refuses.
    pub(crate) fn begin_state(locked: &Locked<'_>, state: &Name) -> Result<Self, StoreError> {
        let place = locked.layout().state(state);
        let Some(sets) = locked.store().new_in_data_sets()? else {
            return Self::begin(locked, &place);
        };
        refuse_while_alive(&beside(&place, NEW))?;
        sets.create(state)?;
        Self::in_data_set(sets, state, place)
    }

    /// Begins a state that has what a snapshot of a data set has.
    ///
    /// # Errors
    /// As [`Self::begin_state`].
    pub(crate) fn begin_clone(
        locked: &Locked<'_>,
        (sets, source): (&DataSets, (&Name, &str)),
        state: &Name,
    ) -> Result<Self, StoreError> {
        let place = locked.layout().state(state);
        refuse_while_alive(&beside(&place, NEW))?;
        sets.clone_of(source, state)?;
        let building = Self::in_data_set(sets, state, place)?;
        kept::clear_files(&building.dir)?;
        Ok(building)
    }

    fn in_data_set(sets: &DataSets, state: &Name, place: PathBuf) -> Result<Self, StoreError> {
        let dir = beside(&place, NEW);
        let building = Self {
            place,
            drops: Drops::Remove,
            set: Some((sets.clone(), state.clone())),
            lock: locked_dir(&dir)?,
            dir,
        };
        building.inherit_owner()?;
        Ok(building)
    }

    /// Begins a directory that will be at `place`. The store is locked, so nobody else begins it.
    ///
    /// # Errors
    /// When somebody else is making it, or the host refuses.
    pub(crate) fn begin(locked: &Locked<'_>, place: &Path) -> Result<Self, StoreError> {
        let dir = beside(place, NEW);
        refuse_while_alive(&dir)?;
        durable::remove_tree(&dir)?;
        Self::go_on(locked, place, dir)
    }

    /// As [`Self::begin`], in the directory `dir` with what is in it.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(crate) fn go_on(
        _locked: &Locked<'_>,
        place: &Path,
        dir: PathBuf,
    ) -> Result<Self, StoreError> {
        refuse_while_alive(&dir)?;
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(StoreError::at("create directory", &dir))?,
        }
        let building = Self {
            place: place.to_owned(),
            drops: Drops::Remove,
            set: None,
            lock: locked_dir(&dir)?,
            dir,
        };
        building.inherit_owner()?;
        fault::point("a new directory is empty");
        Ok(building)
    }

    fn inherit_owner(&self) -> Result<(), StoreError> {
        match self.dir.parent() {
            Some(parent) => durable::inherit_owner(&self.dir, parent),
            None => Ok(()),
        }
    }

    /// Where it is being made.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is in it now is nowhere else: it stays even if it does not get its name.
    pub(crate) fn keep(mut self) -> Self {
        self.drops = Drops::Keep;
        self
    }

    /// Gives the directory its name; its files are durable already, and none is open. Locks the
    /// store if that is needed.
    ///
    /// # Errors
    /// When the host refuses; then the directory is gone.
    pub(crate) fn finish(self, store: &Store) -> Result<(), StoreError> {
        if self.set.is_none() {
            return self.finish_as_directory();
        }
        self.finish_locked(&store.lock_as_it_is()?)
    }

    /// As [`Self::finish`], for a command that holds the store's lock.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) fn finish_locked(mut self, _locked: &Locked<'_>) -> Result<(), StoreError> {
        let Some((sets, state)) = self.set.clone() else {
            return self.finish_as_directory();
        };
        durable::sync_dir(&self.dir)?;
        // A data set with an open file cannot be mounted elsewhere. Nobody looks whether this is
        // being made while the store is locked.
        self.lock = File::open("/dev/null").map_err(StoreError::at("leave", &self.dir))?;
        sets.publish(&state)?;
        self.drops = Drops::Keep;
        Ok(())
    }

    /// As [`Self::finish`], where it is no data set.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(crate) fn finish_as_directory(mut self) -> Result<(), StoreError> {
        durable::sync_dir(&self.dir)?;
        durable::rename_new(&self.dir, &self.place)?;
        self.drops = Drops::Keep;
        Ok(())
    }
}

fn locked_dir(dir: &Path) -> Result<File, StoreError> {
    let lock = File::open(dir).map_err(StoreError::at("open", dir))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|errno| StoreError::at("lock", dir)(errno.into()))?;
    Ok(lock)
}

impl Drop for Building {
    fn drop(&mut self) {
        if self.drops == Drops::Keep {
            return;
        }
        // What cannot be removed now is a leftover like that of a maker who died.
        if let Some((sets, state)) = &self.set {
            if let Ok(null) = File::open("/dev/null") {
                self.lock = null;
            }
            let _ = sets.abandon(state, &self.dir);
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// `path` with something before its name.
pub(crate) fn beside(path: &Path, prefix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}"))
}

/// Whether somebody is making the directory `dir`.
pub(crate) fn is_alive(dir: &Path) -> Result<bool, StoreError> {
    refuse_while_alive(dir).map_or_else(
        |error| match error {
            StoreError::BeingMade { .. } => Ok(true),
            error => Err(error),
        },
        |()| Ok(false),
    )
}

/// Fails when somebody is making the directory `dir`.
pub(crate) fn refuse_while_alive(dir: &Path) -> Result<(), StoreError> {
    let file = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(StoreError::at("open", dir))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(StoreError::BeingMade {
            path: dir.to_owned(),
            holder: Holder::find(&file),
        }),
        Err(errno) => Err(StoreError::at("lock", dir)(errno.into())),
    }
}

/// What dead makers and removers left in `dir`.
pub(crate) fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    for name in durable::entries(dir)? {
        let path = dir.join(&name);
        if name.starts_with(OLD) || (name.starts_with(NEW) && !is_alive(&path)?) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes what dead makers and removers left in `dir`.
pub(crate) fn clear_leftovers(_locked: &Locked<'_>, dir: &Path) -> Result<(), StoreError> {
    for path in leftovers(dir)? {
        if path.is_dir() {
            durable::remove_tree(&path)?;
        } else {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}
