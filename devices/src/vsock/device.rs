//! The device as the transport sees it.

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queues::Ring;
use super::worker::{Link, Sockets};
use super::{Mux, VsockConfig, VsockHost};
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceId, DeviceKind, DeviceSpec, Stopped,
    VirtioDevice, read_space,
};
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::Worker;

const STATE_KIND: &str = "vsock";
const STATE_VERSION: u16 = 1;

/// Size of the receive and transmit queues, as in Linux's vhost.
const QUEUE_SIZE: u16 = 128;
/// Size of the event queue: the driver puts 8 buffers into it.
const EVENT_QUEUE_SIZE: u16 = 16;

/// Stream sockets (`VIRTIO_VSOCK_F_STREAM`, §5.10.3).
const F_STREAM: u32 = 0;

/// A virtio socket device.
pub struct Vsock {
    id: DeviceId,
    spec: DeviceSpec,
    /// `guest_cid` (§5.10.4).
    config_space: [u8; 8],
    /// With the worker while there is one, and gone when that panicked.
    link: Option<Link>,
    worker: Option<Worker<Sockets>>,
    /// Where the queues were when the device stopped. When they are elsewhere at the next start,
    /// the driver has begun anew, and knows of no connection.
    stopped_at: Vec<QueuePlace>,
}

/// What tells a queue that goes on from one that begins.
type QueuePlace = (u64, u16, u16);

impl Vsock {
    /// Builds the device around the host's side. `saved` is its state from a snapshot: no
    /// connection is in there, and the driver is told that all of them are gone.
    ///
    /// # Errors
    /// When the host refuses a descriptor, or the saved state is not that of a socket device.
    pub fn build(
        config: &VsockConfig,
        host: VsockHost,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let id = config.id.clone();
        if let Some(saved) = &saved {
            saved
                .decode::<()>(STATE_KIND, STATE_VERSION)
                .map_err(|source| BuildError::State {
                    id: id.clone(),
                    source,
                })?;
        }
        let mux = Mux::new(config.cid, host).map_err(|source| BuildError::Host {
            id: id.clone(),
            action: "wait for host sockets",
            source,
        })?;
        Ok(Self {
            id,
            spec: DeviceSpec {
                kind: DeviceKind::Vsock,
                features: 1 << VIRTIO_F_VERSION_1
                    | 1 << VIRTIO_RING_F_EVENT_IDX
                    | 1 << VIRTIO_RING_F_INDIRECT_DESC
                    | 1 << F_STREAM,
                queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE],
                shared_memory: None,
            },
            config_space: u64::from(config.cid.get()).to_le_bytes(),
            link: Some(Link {
                mux,
                reset_due: saved.is_some(),
            }),
            worker: None,
            stopped_at: Vec::new(),
        })
    }

    fn spawn(&mut self, run: Activation, queues: [ActiveQueue; 3]) -> std::io::Result<()> {
        let again = EventFd::new(EFD_NONBLOCK)?;
        let mut link = self
            .link
            .take()
            .ok_or_else(|| std::io::Error::other("its last thread panicked"))?;
        if places(&queues) != self.stopped_at {
            link.mux.disconnect();
        }
        let rings = queues.map(|queue| Ring::new(queue, run.memory.clone()));
        let sockets = Sockets::new(rings, link, run.interrupt.clone(), again);
        self.worker = Some(Worker::spawn(self.id.as_str(), sockets, run.interrupt)?);
        Ok(())
    }
}

fn places(queues: &[ActiveQueue]) -> Vec<QueuePlace> {
    let place = |active: &ActiveQueue| {
        let queue = &active.queue;
        (queue.desc_table(), queue.next_avail(), queue.next_used())
    };
    queues.iter().map(place).collect()
}

impl VirtioDevice for Vsock {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_space(&self.config_space, offset, data);
    }

    /// The whole configuration space is read-only.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, mut run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let queues = run.take_queues()?;
        self.spawn(run, queues)
            .map_err(|source| ActivateError::Host {
                action: "start the thread of the socket device",
                source,
            })
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let Some(worker) = self.worker.take() else {
            return Ok(Stopped::default());
        };
        let (link, queues) = worker.stop()?.into_parts();
        self.link = Some(link);
        self.stopped_at = places(&queues);
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        StateBlob::encode(STATE_KIND, STATE_VERSION, &())
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        // Sockets that outlived their device would keep programs of the host waiting.
        let _ = self.stop();
    }
}
