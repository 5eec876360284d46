//! A queue whose kicks are noticed without being read.
//!
//! A frontend counts kicks in an event. The crate `vhost-user-backend` waits as long as there is
//! something to read in it, and reads it: a system call for each request. Who waits for the edge
//! instead (`EPOLLET`) is told of each kick that is added, and need not read
//! ([decision 013](../../../../docs/decisions/013-a-kick-is-an-edge.md)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::sys;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// A queue, as a thread of the crate's serves it.
#[derive(Clone)]
pub struct Vring {
    state: VringMutex,
    /// Whether the thread may wait for something to read: it does from each time the queue begins to be
    /// served until [`wait_for_edges`](Self::wait_for_edges).
    read: Arc<AtomicBool>,
}

impl Vring {
    /// Has `epoll`, with which the queue's thread waits, tell of kicks that are added, and of no others.
    /// `data` is what the crate's thread knows the queue by.
    ///
    /// To be called by that thread for each kick. Does nothing where that is so already.
    pub(super) fn wait_for_edges(&self, epoll: RawFd, data: u64) {
        // Whoever begins to serve the queue meanwhile says so again.
        if !self.read.swap(false, Ordering::AcqRel) {
            return;
        }
        let state = self.state.get_ref();
        let kick = state.get_kick().as_ref();
        let changed = kick.map(|kick| sys::wait_for_edges(epoll, kick.as_raw_fd(), data));
        // One that is being stopped, or about to be served, is not waited for.
        if !matches!(changed, Some(Ok(()))) {
            self.read.store(true, Ordering::Release);
        }
    }

    fn begins(&self) {
        self.read.store(true, Ordering::Release);
    }
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = <VringMutex as VringStateGuard<'a, Memory>>::G;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = <VringMutex as VringStateMutGuard<'a, Memory>>::G;
}

impl VringT<Memory> for Vring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, Error> {
        Ok(Self {
            state: VringMutex::new(memory, max_queue_size)?,
            read: Arc::new(AtomicBool::new(true)),
        })
    }

    fn read_kick(&self) -> io::Result<bool> {
        if self.read.load(Ordering::Acquire) {
            return self.state.read_kick();
        }
        Ok(self.state.get_ref().is_enabled())
    }

    // What follows may have the crate wait for the queue anew, right after.

    fn set_enabled(&self, enabled: bool) {
        self.begins();
        self.state.set_enabled(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.begins();
        self.state.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        self.begins();
        self.state.set_kick(file);
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.state.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.state.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), Error> {
        self.state.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.state.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.state.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.state.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.state.needs_notification()
    }

    fn set_queue_info(&self, descriptors: u64, available: u64, used: u64) -> Result<(), Error> {
        self.state.set_queue_info(descriptors, available, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.state.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.state.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.state.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.state.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.state.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.state.set_queue_event_idx(enabled);
    }

    fn set_call(&self, file: Option<File>) {
        self.state.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.state.set_err(file);
    }
}
