//! The descriptors that are open, and how many may be.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use rustix::process::{Resource, getrlimit};

use super::Directory;
use crate::inode::NodeId;

/// How many directories, and how many files, may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(NonZeroUsize);

/// Descriptors that are needed for everything else: sockets, what 17 queues are waited for with, the regions of
/// a memory table on their way to being mapped, requests that are being served.
const RESERVED: u64 = 224;

/// More are not worth their memory in the kernel.
const MOST: usize = 8192;

/// Fewer make no sense: with those, requests contend.
const FEWEST: usize = 16;

impl Budget {
    /// What `RLIMIT_NOFILE` allows.
    pub fn of_process() -> Self {
        Self::of_limit(getrlimit(Resource::Nofile).current)
    }

    /// What a limit of `descriptors` in all allows; none is no limit.
    pub fn of_limit(descriptors: Option<u64>) -> Self {
        let left = descriptors.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED));
        let each = usize::try_from(left / 2).unwrap_or(MOST);
        Self(NonZeroUsize::new(each.clamp(FEWEST, MOST)).unwrap_or(NonZeroUsize::MIN))
    }

    /// How many of each.
    pub const fn each(self) -> usize {
        self.0.get()
    }
}

/// The most recently used of something that holds a descriptor.
#[derive(Debug)]
pub(super) struct Recent<T>(Mutex<LruCache<NodeId, Arc<T>>>)
where
    NodeId: Hash;

impl<T> Recent<T> {
    fn new(budget: Budget) -> Self {
        Self(Mutex::new(LruCache::new(budget.0)))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<NodeId, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Arc<T>> {
        self.lock().get(&id).cloned()
    }

    /// Keeps `value`; what it displaces is closed when nobody uses it any more.
    pub(super) fn put(&self, id: NodeId, value: T) -> Arc<T> {
        let value = Arc::new(value);
        // Closed after the lock is gone.
        let displaced = self.lock().push(id, Arc::clone(&value));
        drop(displaced);
        value
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn shrink(&self) {
        let mut recent = self.lock();
        let half = recent.len() / 2;
        while recent.len() > half && recent.pop_lru().is_some() {}
    }
}

/// What is open.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) directories: Recent<Directory>,
    pub(super) files: Recent<OwnedFd>,
}

impl Descriptors {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            directories: Recent::new(budget),
            files: Recent::new(budget),
        }
    }

    /// Closes what belongs to ids that mean nothing any more.
    pub(super) fn close(&self, removed: &[NodeId]) {
        for id in removed {
            self.directories.lock().pop(id);
            self.files.lock().pop(id);
        }
    }

    /// Closes everything.
    pub(super) fn clear(&self) {
        self.directories.lock().clear();
        self.files.lock().clear();
    }

    /// Closes half, because the process or the host has no descriptors left.
    pub(super) fn shrink(&self) {
        self.directories.shrink();
        self.files.shrink();
    }
}
