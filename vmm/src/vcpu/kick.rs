//! Getting a vCPU thread out of the guest.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::sys::{ImmediateExit, signal_thread};

/// Makes one vCPU thread return from `KVM_RUN`, now or at its next try: the flag covers the moment
/// before entry, the signal everything after it.
#[derive(Default)]
pub(super) struct Kicker {
    target: Mutex<Option<Target>>,
}

struct Target {
    flag: ImmediateExit,
    thread: libc::pthread_t,
}

impl Kicker {
    /// Called by the vCPU's thread before its first entry.
    pub(super) fn arm(&self, flag: ImmediateExit) {
        let target = Target {
            flag,
            thread: super::sys::this_thread(),
        };
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Called by the vCPU's thread before it ends: no kick reaches it from then on.
    pub(super) fn disarm(&self) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Kicks the thread, if it runs.
    pub(super) fn kick(&self) {
        if let Some(target) = &*self.target.lock().unwrap_or_else(PoisonError::into_inner) {
            target.flag.store(1, Ordering::SeqCst);
            signal_thread(target.thread);
        }
    }
}
