//! What the crate `vhost-user-backend` calls.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vhost::vhost_user::Backend as Frontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
    VhostUserShMemConfig, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringState, VringT as _};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{QueueOwnedT as _, QueueT as _};
use vm_memory::{
    GuestAddress, GuestAddressSpace as _, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap,
};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::chain::serve;
use super::kicks::Waiter;
use super::mapper::{ToFrontend, WINDOW_REGIONS};
use super::near::Near;
use super::pace::Pace;
use super::transfer::Transfer;
use super::vring::Vring;
use crate::server::Server;

/// Longest queue, in descriptors.
pub const QUEUE_SIZE: usize = 1024;

/// Request queues at most: the crate keeps the queues of a thread in 64 bits.
const MAX_QUEUES: usize = 62;

/// Pauses of the processor between two looks at a queue: the guest's processor writes there.
const PAUSES: u32 = 4;

/// A device as the vhost-user protocol sees it.
#[derive(Debug)]
pub struct Backend {
    server: Arc<Server>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Held while requests of a queue are being served; one for each queue.
    busy: Vec<Mutex<Progress>>,
    /// Set when the frontend is gone: nothing is served any more.
    over: AtomicBool,
    transfer: Transfer,
}

/// What is known of a queue.
#[derive(Debug)]
struct Progress {
    health: Health,
    pace: Pace,
    /// The request at hand. Kept for its capacity, little more than the longest body.
    message: Vec<u8>,
    /// What the queue's thread waits with by itself, since it was last called.
    waiter: Option<Waiter>,
}

/// Whether a queue's ring can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    /// The driver made nonsense of it. It is not served until the driver sets it up anew.
    Broken,
}

/// How a queue was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Empty, as it was.
    Idle,
    /// Empty, after requests were served.
    Served,
    /// Empty, and the driver kicks for the next request; or the queue is not to be served.
    Done,
}

impl Backend {
    /// A device with a high-priority queue and `queues` for requests, at most 62. A queue is looked
    /// at for `limit` at most after a request, while its driver asks at once again; zero has it kick
    /// for each.
    pub fn new(
        server: Arc<Server>,
        queues: NonZeroUsize,
        limit: Duration,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Self {
        let queues = queues.get().min(MAX_QUEUES) + 1;
        let progress = || {
            Mutex::new(Progress {
                health: Health::Sound,
                pace: Pace::new(limit),
                message: Vec::new(),
                waiter: None,
            })
        };
        Self {
            server,
            memory,
            busy: std::iter::repeat_with(progress).take(queues).collect(),
            over: AtomicBool::new(false),
            transfer: Transfer::default(),
        }
    }

    /// Has every thread that serves a queue stop after the request at hand, however many more its
    /// driver makes. Waits for that request.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        for busy in &self.busy {
            let progress = lock(busy);
            if let Some(waiter) = &progress.waiter {
                waiter.call_back();
            }
        }
    }

    /// Serves what is in a queue, unless it is broken.
    fn serve(&self, vring: &Vring, queue: usize, busy: &Mutex<Progress>) {
        let mut progress = lock(busy);
        if progress.health == Health::Broken {
            return;
        }
        if let Err(error) = self.attend(vring, &mut progress) {
            // The driver's fault, or the frontend's: nothing here is worth ending for.
            tracing::warn!(queue, %error, "Queue is not served any more");
            progress.health = Health::Broken;
        }
    }

    /// Serves a queue until it is empty and the driver is going to kick again.
    fn attend(&self, vring: &Vring, progress: &mut Progress) -> Result<(), QueueError> {
        loop {
            let began = progress.pace.begin();
            let left = self.drain(vring, &mut progress.message, began.is_some())?;
            if left == Left::Done {
                return Ok(());
            }
            if left == Left::Served
                && let Some(began) = began
                && let Some(until) = progress.pace.served(began, Instant::now())
                && self.look(vring, until)?
            {
                continue;
            }
            let memory = self.memory.memory();
            // Whatever came since the last look is seen here, or kicks.
            if !self.want_kicks(&mut vring.get_mut(), &*memory)? {
                return Ok(());
            }
        }
    }

    /// Serves what is in a queue. One that is not looked at afterwards is left such that the driver kicks:
    /// that takes less at once.
    fn drain(&self, vring: &Vring, message: &mut Vec<u8>, looks: bool) -> Result<Left, QueueError> {
        let mut left = Left::Idle;
        loop {
            let memory = self.memory.memory();
            let mut state = vring.get_mut();
            // An event from before it was stopped may come after: its ring is not ours to write to.
            if !self.is_served(&state) {
                return Ok(Left::Done);
            }
            let queue = state.get_queue_mut();
            let memory = Near::new(&memory, GuestAddress(queue.avail_ring()));
            // With an event index a driver kicks once each time it is asked to.
            if left == Left::Idle && !queue.event_idx_enabled() {
                queue.disable_notification(&memory)?;
            }
            let Some(chain) = queue.iter(&memory)?.next() else {
                return Ok(left);
            };
            // It is free for the frontend while the request is served.
            drop(state);
            let written = serve(&self.server, &chain, message).unwrap_or_else(|error| {
                // The chain goes back empty; the rest of the ring may be sound.
                tracing::debug!(%error, "Chain is not usable");
                0
            });
            let mut state = vring.get_mut();
            let queue = state.get_queue_mut();
            queue.add_used(&memory, chain.head_index(), written)?;
            let more = queue.avail_idx(&memory, Ordering::Acquire)?.0 != queue.next_avail();
            if queue.needs_notification(&memory)? {
                state.signal_used_queue().map_err(QueueError::Signal)?;
            }
            left = Left::Served;
            if more {
                continue;
            }
            if looks {
                return Ok(left);
            }
            if !self.want_kicks(&mut state, &memory)? {
                return Ok(Left::Done);
            }
            left = Left::Idle;
        }
    }

    /// Asks the driver to kick for its next request. Returns whether there is one to be served already.
    fn want_kicks(
        &self,
        state: &mut VringState,
        memory: &impl GuestMemory,
    ) -> Result<bool, QueueError> {
        Ok(self.is_served(state) && state.get_queue_mut().enable_notification(memory)?)
    }

    /// Looks at an empty queue until a request is there; returns whether one is. The queue is free
    /// for the frontend meanwhile, and whoever stops it does not have to wait.
    pub(super) fn look(&self, vring: &Vring, until: Instant) -> Result<bool, QueueError> {
        loop {
            {
                let state = vring.get_ref();
                if !self.is_served(&state) {
                    return Ok(false);
                }
                let queue = state.get_queue();
                let newest = queue.avail_idx(&*self.memory.memory(), Ordering::Acquire)?;
                if newest.0 != queue.next_avail() {
                    return Ok(true);
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
    }

    fn is_served(&self, state: &VringState) -> bool {
        let over = self.over.load(Ordering::Relaxed);
        !over && state.is_enabled() && state.get_queue().ready()
    }
}

fn lock(busy: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    #[error("The ring is not usable")]
    Ring(#[from] virtio_queue::Error),
    #[error("The frontend cannot be told of replies")]
    Signal(#[source] io::Error),
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.busy.len()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let always = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::DEVICE_STATE;
        if self.server.window().is_none() {
            return always;
        }
        always
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::SHMEM
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let window = self.server.window().unwrap_or(0);
        Ok(VhostUserShMemConfig::new(WINDOW_REGIONS, &[window]))
    }

    fn set_backend_req_fd(&self, frontend: Frontend) {
        self.server.set_mapper(Box::new(ToFrontend::new(frontend)));
    }

    fn reset_device(&self) {
        if let Err(error) = self.server.reset() {
            tracing::warn!(%error, "Cannot look at the shared directory on a reset");
        }
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // It is the one that this was made with.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.busy.len()).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let flags = EventFlag::NONBLOCK | EventFlag::CLOEXEC;
        new_event_consumer_and_notifier(flags).ok()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        // The queue is not ready any more: whoever serves it stops after the request at hand.
        if let Some(busy) = self.busy.get(queue as usize) {
            let mut progress = lock(busy);
            progress.health = Health::Sound;
        }
        Ok(())
    }

    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        vrings: &[Vring],
        thread: usize,
    ) -> io::Result<()> {
        let (Some(vring), Some(busy)) = (vrings.first(), self.busy.get(thread)) else {
            return Ok(());
        };
        let waiter = vring.waiter();
        lock(busy).waiter.clone_from(&waiter);
        loop {
            self.serve(vring, thread, busy);
            // Who ends this calls back before the queue is looked at, or after.
            let over = self.over.load(Ordering::Relaxed);
            if over || !waiter.as_ref().is_some_and(Waiter::wait) {
                return Ok(());
            }
        }
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        pipe: File,
    ) -> io::Result<Option<File>> {
        self.transfer
            .begin(Arc::clone(&self.server), direction, pipe)?;
        Ok(None)
    }

    fn check_device_state(&self) -> io::Result<()> {
        self.transfer.end()
    }
}
