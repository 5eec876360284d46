//! What the crate `vhost-user-backend` calls.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
use vm_memory::{GuestAddress, GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::chain::{Chain, serve};
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

/// What each of the crate's threads knows its only queue by.
const FIRST: u64 = 0;

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
    /// What the threads of the queues wait with, where they have been told of.
    epolls: OnceLock<Vec<RawFd>>,
}

/// What is known of a queue.
#[derive(Debug)]
struct Progress {
    health: Health,
    pace: Pace,
    /// The request at hand. Kept for its capacity, little more than the longest body.
    message: Vec<u8>,
}

/// Whether a queue's ring can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    /// The driver made nonsense of it. It is not served until the driver sets it up anew.
    Broken,
}

/// What was in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    Nothing,
    Requests,
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
            })
        };
        Self {
            server,
            memory,
            busy: std::iter::repeat_with(progress).take(queues).collect(),
            over: AtomicBool::new(false),
            transfer: Transfer::default(),
            epolls: OnceLock::new(),
        }
    }

    /// Has queues be waited for with what the threads of the crate have for that, without a read for each kick.
    /// `epolls` are theirs, in the order of the queues.
    pub fn wait_for_edges(&self, epolls: Vec<RawFd>) {
        // Once is enough.
        let _ = self.epolls.set(epolls);
    }

    /// Has every thread that serves a queue stop after the request at hand, however many more its
    /// driver makes.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Serves a queue until it is empty and the driver is going to kick again.
    fn attend(&self, vring: &Vring, progress: &mut Progress) -> Result<(), QueueError> {
        while self.want_kicks(vring, false)?.is_some() {
            let began = progress.pace.begin();
            if self.drain(vring, &mut progress.message)? == Drained::Requests
                && let Some(began) = began
                && let Some(until) = progress.pace.served(began, Instant::now())
                && self.look(vring, until)?
            {
                continue;
            }
            // Whatever came since the last look is seen here, or kicks.
            if self.want_kicks(vring, true)? != Some(true) {
                break;
            }
        }
        Ok(())
    }

    /// Asks the driver to kick for its next request, or not to. Returns whether one is there already; none
    /// for a queue that is not served, whose ring is not ours to write to: an event from before it was
    /// stopped may come after.
    fn want_kicks(&self, vring: &Vring, wanted: bool) -> Result<Option<bool>, QueueError> {
        let mut state = vring.get_mut();
        if !self.is_served(&state) {
            return Ok(None);
        }
        let queue = state.get_queue_mut();
        if wanted {
            return Ok(Some(queue.enable_notification(&*self.memory.memory())?));
        }
        // With an event index a driver kicks once each time it is asked to.
        if !queue.event_idx_enabled() {
            queue.disable_notification(&*self.memory.memory())?;
        }
        Ok(Some(false))
    }

    /// Serves what is in a queue.
    fn drain(&self, vring: &Vring, message: &mut Vec<u8>) -> Result<Drained, QueueError> {
        let mut drained = Drained::Nothing;
        loop {
            let memory = self.memory.memory();
            let ring = GuestAddress(vring.get_ref().get_queue().avail_ring());
            let memory = Near::new(&memory, ring);
            let Some(chain) = self.take(vring, &memory)? else {
                return Ok(drained);
            };
            let written = serve(&self.server, &chain, message).unwrap_or_else(|error| {
                // The chain goes back empty; the rest of the ring may be sound.
                tracing::debug!(%error, "Chain is not usable");
                0
            });
            let mut state = vring.get_mut();
            let queue = state.get_queue_mut();
            queue.add_used(&memory, chain.head_index(), written)?;
            let was_last = queue.avail_idx(&memory, Ordering::Acquire)?.0 == queue.next_avail();
            if queue.needs_notification(&memory)? {
                state.signal_used_queue().map_err(QueueError::Signal)?;
            }
            drained = Drained::Requests;
            if was_last {
                return Ok(drained);
            }
        }
    }

    /// The next request; none when the queue is empty, or the frontend has stopped it.
    fn take<'a>(&self, vring: &Vring, memory: &'a Near) -> Result<Option<Chain<'a>>, QueueError> {
        let mut state = vring.get_mut();
        if !self.is_served(&state) {
            return Ok(None);
        }
        let mut chains = state.get_queue_mut().iter(memory)?;
        Ok(chains.next())
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
            let mut progress = busy.lock().unwrap_or_else(PoisonError::into_inner);
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
        // This thread waits with it, so it is open.
        if let Some(&epoll) = self.epolls.get().and_then(|epolls| epolls.get(thread)) {
            vring.wait_for_edges(epoll, FIRST);
        }
        let mut progress = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.health == Health::Broken {
            return Ok(());
        }
        if let Err(error) = self.attend(vring, &mut progress) {
            // The driver's fault, or the frontend's: nothing here is worth ending for.
            tracing::warn!(queue = thread, %error, "Queue is not served any more");
            progress.health = Health::Broken;
        }
        Ok(())
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
