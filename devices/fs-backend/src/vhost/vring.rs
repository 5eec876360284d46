//! A queue whose thread waits for its kicks by itself, and is called back for what the frontend changes.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::kicks::{Kicks, Waiter};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// A queue, as a thread of the crate's serves it.
#[derive(Clone)]
pub struct Vring {
    state: VringMutex,
    kicks: Arc<Mutex<Option<Arc<Kicks>>>>,
}

impl Vring {
    /// What its thread may wait with by itself; nothing for a queue that has no kicks, or kicks of
    /// another kind than events.
    pub(super) fn waiter(&self) -> Option<Waiter> {
        self.kicks().as_ref().map(Kicks::waiter)
    }

    /// Has its thread wait for everything that may happen, with the crate.
    fn call_back(&self) {
        if let Some(kicks) = &*self.kicks() {
            kicks.call_back();
        }
    }

    fn kicks(&self) -> MutexGuard<'_, Option<Arc<Kicks>>> {
        self.kicks.lock().unwrap_or_else(PoisonError::into_inner)
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
            kicks: Arc::default(),
        })
    }

    fn read_kick(&self) -> io::Result<bool> {
        let kicks = self.kicks();
        let heard = self.state.read_kick();
        if kicks.is_some() {
            // The bell may be another one than the one that was heard, and silent.
            return Ok(self.state.get_ref().is_enabled());
        }
        heard
    }

    // After each of these the crate may have something to tell the thread.

    fn set_enabled(&self, enabled: bool) {
        self.state.set_enabled(enabled);
        self.call_back();
    }

    fn set_queue_ready(&self, ready: bool) {
        self.state.set_queue_ready(ready);
        self.call_back();
    }

    fn set_kick(&self, file: Option<File>) {
        let (kicks, heard) = match file.as_ref().map(Kicks::of) {
            Some(Ok((kicks, bell))) => (Some(Arc::new(kicks)), Some(bell)),
            Some(Err(error)) => {
                tracing::debug!(%error, "Kicks of a queue are no event");
                (None, file)
            }
            None => (None, None),
        };
        // Held until the end: nobody becomes a waiter for the old ones after that.
        let mut current = self.kicks();
        self.state.set_kick(heard);
        if let Some(before) = std::mem::replace(&mut *current, kicks) {
            before.call_back();
        }
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
