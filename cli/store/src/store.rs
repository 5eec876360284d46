//! A store: where it is, and the lock under which decisions are made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::assignments::{self, Assignments};
use crate::building::{self, beside};
use crate::copy::Method;
use crate::durable;
use crate::error::StoreError;
use crate::holder::Holder;
use crate::layout::{Layout, NEW, PART};
use crate::name::Name;
use crate::snapshot;
use crate::zfs::DataSets;

/// A store of states.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
    method: Method,
    waiting: Option<fn(&Holder)>,
    sets: Option<DataSets>,
}

impl Store {
    /// The store at these places. Looks at nothing yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            method: Method::Auto,
            waiting: None,
            sets: None,
        }
    }

    /// Makes copies of images in this way.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Has states that are data sets among these.
    #[must_use]
    pub fn with_data_sets(mut self, sets: Option<DataSets>) -> Self {
        self.sets = sets;
        self
    }

    /// The data sets of states, if they are kept so.
    pub(crate) fn data_sets(&self) -> Option<&DataSets> {
        self.sets.as_ref()
    }

    /// The data sets among which new states and snapshots are made; nothing if those are files.
    ///
    /// # Errors
    /// When they are to be data sets and cannot.
    pub(crate) fn new_in_data_sets(&self) -> Result<Option<&DataSets>, StoreError> {
        match (self.method, &self.sets) {
            (Method::Auto | Method::Zfs, Some(sets)) => Ok(Some(sets)),
            (Method::Zfs, None) => Err(StoreError::NoDataSet {
                states: self.layout.states(),
            }),
            _ => Ok(None),
        }
    }

    /// How copies of images are made.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Has `tell` called with whoever holds the store's lock when a command has to wait for it.
    #[must_use]
    pub fn when_waiting(mut self, tell: fn(&Holder)) -> Self {
        self.waiting = Some(tell);
        self
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The state of `slot`, or nothing if it has an image of its own, or none.
    ///
    /// # Errors
    /// When the assignments cannot be read.
    pub fn state_of(&self, slot: &Name) -> Result<Option<Name>, StoreError> {
        Ok(Assignments::read(&self.layout)?.state_of(&self.layout, slot))
    }

    /// The slot that has `state`, if one has.
    ///
    /// # Errors
    /// When the assignments cannot be read.
    pub fn slot_of(&self, state: &Name) -> Result<Option<Name>, StoreError> {
        Assignments::read(&self.layout)?.owner_of(&self.layout, state)
    }

    /// Waits for the store's lock, and finishes what a command that was killed had decided.
    ///
    /// # Errors
    /// When the store is not there, or the host refuses.
    pub(crate) fn lock(&self) -> Result<Locked<'_>, StoreError> {
        let locked = self.lock_as_it_is()?;
        durable::ensure_dir(&self.layout.states())?;
        recover(&locked)?;
        Ok(locked)
    }

    /// Waits for the store's lock and changes nothing.
    pub(crate) fn lock_as_it_is(&self) -> Result<Locked<'_>, StoreError> {
        let path = self.layout.lock();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o660)
            .open(&path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => StoreError::NoStore {
                    root: self.layout.root.clone(),
                },
                _ => StoreError::at("open", &path)(source),
            })?;
        durable::inherit_owner(&path, &self.layout.root)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                if let Some(tell) = self.waiting {
                    tell(&Holder::find(&file));
                }
                flock(&file, FlockOperation::LockExclusive)
            }
            result => result,
        }
        .map_err(|errno| StoreError::at("lock", &path)(errno.into()))?;
        Ok(Locked {
            store: self,
            _file: file,
        })
    }
}

/// Finishes what killed commands had decided, and removes what they left.
pub(crate) fn recover(locked: &Locked<'_>) -> Result<(), StoreError> {
    let layout = locked.layout();
    // An unmounted data set would be taken for a state without an image.
    if let Some(sets) = locked.store().data_sets() {
        sets.recover()?;
    }
    assignments::recover(locked)?;
    for path in [&layout.assignments, &layout.journal()] {
        durable::remove_file(&beside(path, NEW))?;
    }
    building::clear_leftovers(locked, &layout.states())?;
    for slot in layout.slots()? {
        building::clear_leftovers(locked, &layout.slot(&slot))?;
    }
    for state in layout.all_states()? {
        snapshot::recover(locked, &state)?;
    }
    Ok(())
}

/// A store whose lock is held: nobody else decides anything.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    /// Locked as long as it is open.
    _file: File,
}

impl Locked<'_> {
    /// Where everything lies.
    pub(crate) fn layout(&self) -> &Layout {
        &self.store.layout
    }

    /// The store itself.
    pub(crate) fn store(&self) -> &Store {
        self.store
    }

    /// The data sets, if `state` is one of them.
    pub(crate) fn data_set_of(&self, state: &Name) -> Result<Option<&DataSets>, StoreError> {
        match &self.store.sets {
            Some(sets) => Ok(sets.of(state)?.map(|_| sets)),
            None => Ok(None),
        }
    }

    /// Fails while somebody is making the state, by an import that can be interrupted as well. Nobody
    /// begins to while the store is locked.
    pub(crate) fn require_unmade(&self, state: &Name) -> Result<(), StoreError> {
        let place = self.layout().state(state);
        [NEW, PART]
            .into_iter()
            .try_for_each(|prefix| building::refuse_while_alive(&beside(&place, prefix)))
    }

    /// Fails when the name of a new state is taken, or is about to be.
    pub(crate) fn require_free(&self, state: &Name) -> Result<(), StoreError> {
        self.require_unmade(state)?;
        if fs::symlink_metadata(self.layout().state(state)).is_err() {
            return Ok(());
        }
        Err(StoreError::StateExists {
            state: state.clone(),
        })
    }

    /// Fails when there is no such state.
    pub(crate) fn require_state(&self, state: &Name) -> Result<(), StoreError> {
        if self.layout().state(state).is_dir() {
            return Ok(());
        }
        Err(StoreError::NoState {
            state: state.clone(),
        })
    }
}
