//! Queues of a share, whose kicks a backend may be reading.

use std::mem;
use std::ops::{Deref, DerefMut};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::device::ActiveQueue;
use crate::vhost_user::borrow;

/// The queues, and whether a thread that reads one of their kicks waits for it.
///
/// That is a property of the kick, for all processes that have it: a backend of ours wants it, and
/// in this process nobody reads a kick meanwhile, nor may find it so later.
pub(super) struct Queues {
    active: Vec<ActiveQueue>,
    lent: bool,
}

impl Queues {
    pub(super) fn new(active: Vec<ActiveQueue>) -> Self {
        Self {
            active,
            lent: false,
        }
    }

    /// Has readers of the kicks wait for them.
    pub(super) fn lend(&mut self) {
        self.lent = true;
        self.change(|flags| flags.difference(OFlags::NONBLOCK));
    }

    /// Has readers of the kicks find that there are none.
    pub(super) fn take_back(&mut self) {
        if mem::take(&mut self.lent) {
            self.change(|flags| flags.union(OFlags::NONBLOCK));
        }
    }

    /// The queues, which no backend has any more.
    pub(super) fn into_inner(mut self) -> Vec<ActiveQueue> {
        self.take_back();
        mem::take(&mut self.active)
    }

    fn change(&self, change: impl Fn(OFlags) -> OFlags) {
        for queue in &self.active {
            let kick = borrow(&queue.kick);
            // Fails for what is not open.
            let changed = fcntl_getfl(kick).and_then(|flags| fcntl_setfl(kick, change(flags)));
            if let Err(error) = changed {
                tracing::error!(queue = queue.index, %error, "cannot change who waits for kicks");
            }
        }
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl Deref for Queues {
    type Target = [ActiveQueue];

    fn deref(&self) -> &[ActiveQueue] {
        &self.active
    }
}

impl DerefMut for Queues {
    fn deref_mut(&mut self) -> &mut [ActiveQueue] {
        &mut self.active
    }
}

#[cfg(test)]
mod tests {
    use virtio_queue::{Queue, QueueT as _};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    fn waits(kick: &EventFd) -> bool {
        !fcntl_getfl(borrow(kick))
            .unwrap()
            .contains(OFlags::NONBLOCK)
    }

    #[test]
    fn nobody_is_left_waiting_for_a_kick_however_a_loan_ends() {
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let ends: [fn(Queues); 3] = [
            drop,
            |mut queues| queues.take_back(),
            |queues| drop(queues.into_inner()),
        ];
        for end in ends {
            let mut queues = Queues::new(vec![ActiveQueue {
                index: 1,
                queue: Queue::new(16).unwrap(),
                kick: kick.try_clone().unwrap(),
            }]);
            assert!(!waits(&kick));
            queues.lend();
            assert!(waits(&kick));
            end(queues);
            assert!(!waits(&kick));
        }
    }
}
