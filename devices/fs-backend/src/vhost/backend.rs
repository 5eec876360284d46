//! What the crate `vhost-user-backend` calls.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::Backend as Frontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
    VhostUserShMemConfig, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringMutex, VringT as _};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{QueueOwnedT as _, QueueT as _};
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::chain::{Chain, serve};
use super::mapper::{ToFrontend, WINDOW_REGIONS};
use super::transfer::Transfer;
use crate::server::Server;

/// Longest queue, in descriptors.
pub const QUEUE_SIZE: usize = 1024;

/// Request queues at most: the crate keeps the queues of a thread in 64 bits.
const MAX_QUEUES: usize = 62;

/// A device as the vhost-user protocol sees it.
#[derive(Debug)]
pub struct Backend {
    server: Arc<Server>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Held while requests of a queue are being served; one for each queue.
    busy: Vec<Mutex<Health>>,
    transfer: Transfer,
}

/// Whether a queue's ring can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Sound,
    /// The driver made nonsense of it. It is not served until the driver sets it up anew.
    Broken,
}

impl Backend {
    /// A device with a high-priority queue and `queues` for requests, at most 62.
    pub fn new(
        server: Arc<Server>,
        queues: NonZeroUsize,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Self {
        let queues = queues.get().min(MAX_QUEUES) + 1;
        Self {
            server,
            memory,
            busy: std::iter::repeat_with(|| Mutex::new(Health::Sound))
                .take(queues)
                .collect(),
            transfer: Transfer::default(),
        }
    }

    /// Serves what is in a queue, until it is empty and the driver is going to kick again.
    fn drain(&self, vring: &VringMutex) -> Result<(), QueueError> {
        loop {
            vring.disable_notification()?;
            while let Some(chain) = self.take(vring)? {
                let written = serve(&self.server, &chain).unwrap_or_else(|error| {
                    // The chain goes back empty; the rest of the ring may be sound.
                    tracing::debug!(%error, "Chain is not usable");
                    0
                });
                vring.add_used(chain.head_index(), written)?;
                if vring.needs_notification()? {
                    vring.signal_used_queue().map_err(QueueError::Signal)?;
                }
            }
            if !vring.enable_notification()? {
                return Ok(());
            }
        }
    }

    /// The next request; none when the queue is empty, or the frontend has stopped it.
    fn take(&self, vring: &VringMutex) -> Result<Option<Chain>, QueueError> {
        let mut state = vring.get_mut();
        if !state.is_enabled() || !state.get_queue().ready() {
            return Ok(None);
        }
        let mut chains = state.get_queue_mut().iter(self.memory.memory())?;
        Ok(chains.next())
    }
}

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
enum QueueError {
    #[error("The ring is not usable")]
    Ring(#[from] virtio_queue::Error),
    #[error("The frontend cannot be told of replies")]
    Signal(#[source] io::Error),
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex;

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
            *busy.lock().unwrap_or_else(PoisonError::into_inner) = Health::Sound;
        }
        Ok(())
    }

    fn handle_event(
        &self,
        _event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        thread: usize,
    ) -> io::Result<()> {
        let (Some(vring), Some(busy)) = (vrings.first(), self.busy.get(thread)) else {
            return Ok(());
        };
        let mut health = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if *health == Health::Broken {
            return Ok(());
        }
        if let Err(error) = self.drain(vring) {
            // The driver's fault, or the frontend's: nothing here is worth ending for.
            tracing::warn!(queue = thread, %error, "Queue is not served any more");
            *health = Health::Broken;
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
