//! The share as the transport sees it.

use std::sync::Arc;

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::config::{FsConfig, MAX_REQUEST_QUEUES, MAX_TAG_BYTES};
use super::link::Link;
use super::state::{self, Known};
use super::watch::Watch;
use super::window::{WINDOW_REGION, Window};
use crate::device::{
    ActivateError, Activation, DeviceError, DeviceId, DeviceKind, DeviceSpec, SharedMemory,
    Stopped, VirtioDevice, read_space,
};
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::vhost_user::{Connect, VhostUserError};
use crate::worker::Worker;

/// Large enough for requests of 1 MiB, in pages, from drivers without indirect descriptors; a
/// driver sizes its requests by it even when it has them.
const QUEUE_SIZE: u16 = 512;

/// Index of the queue for requests that must not wait behind others (§5.11.2).
const HIPRIO_QUEUE: u16 = 0;

/// Index of the first request queue; a driver may do with it alone.
const FIRST_REQUEST_QUEUE: u16 = 1;

/// Queues that every driver enables.
const LEAST_QUEUES: u16 = 2;

const CONFIG_BYTES: usize = MAX_TAG_BYTES + 4;

/// What the rings may be asked to do; a backend says which of it it does. Only the rings: what the
/// file system can do is negotiated inside of the requests.
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// The host's side of a share.
#[derive(Debug)]
pub struct FsHost {
    /// Leads to the backend.
    pub backend: Box<dyn Connect>,
    /// Where the backend has files mapped, if the guest is to have that.
    pub window: Option<Arc<Window>>,
}

impl From<Box<dyn Connect>> for FsHost {
    fn from(backend: Box<dyn Connect>) -> Self {
        Self {
            backend,
            window: None,
        }
    }
}

impl<C: Connect + 'static> From<Box<C>> for FsHost {
    fn from(backend: Box<C>) -> Self {
        Self {
            backend,
            window: None,
        }
    }
}

/// A shared directory whose requests a vhost-user backend serves.
pub struct Fs {
    id: DeviceId,
    spec: DeviceSpec,
    config_space: [u8; CONFIG_BYTES],
    /// The way to the backend; with the worker while there is one, and gone when that panicked.
    link: Option<Link>,
    worker: Option<Worker<Watch>>,
    known: Known,
}

impl Fs {
    /// Builds a share on the backend that `host` leads to, which has to answer now: what it
    /// offers is what the driver is offered. With a `saved` state, the backend goes on with what
    /// the one knew that was saved.
    ///
    /// # Errors
    /// When tag or queues are out of range, the backend is not there or of no use, or the saved
    /// state is not that of a share, or not one that the backend takes.
    pub fn build(
        config: &FsConfig,
        host: impl Into<FsHost>,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let id = config.id.clone();
        check(config)?;
        let link = Link::open(id.clone(), host.into(), config.on_exit);
        let (link, offer) = link
            .and_then(|link| Ok((Offer::of(&link, config.queues)?, link)))
            .map(|(offer, link)| (link, offer))
            .map_err(|source| BuildError::Backend {
                id: id.clone(),
                source,
            })?;
        let known = match &saved {
            None => Ok(Known::Nothing),
            Some(saved) => state::restore(&id, saved, link.connection.as_ref()),
        };
        let known = known.map_err(|source| BuildError::State {
            id: id.clone(),
            source,
        })?;
        Ok(Self {
            id,
            spec: DeviceSpec {
                kind: DeviceKind::Fs,
                features: offer.features,
                queue_sizes: vec![QUEUE_SIZE; usize::from(offer.request_queues) + 1],
                shared_memory: link.window().map(|window| SharedMemory {
                    id: WINDOW_REGION,
                    address: window.address(),
                    bytes: window.bytes(),
                }),
            },
            config_space: config_space(&config.tag, offer.request_queues),
            link: Some(link),
            worker: None,
            known,
        })
    }

    fn spawn(&mut self, link: Link, run: Activation) -> std::io::Result<Worker<Watch>> {
        let interrupt = run.interrupt.clone();
        let watch = Watch::new(link, run).map_err(|refused| {
            self.link = Some(refused.link);
            refused.source
        })?;
        Worker::spawn(self.id.as_str(), watch, interrupt)
    }
}

fn check(config: &FsConfig) -> Result<(), BuildError> {
    let unfit = |reason| BuildError::Unfit {
        id: config.id.clone(),
        reason,
    };
    let tag = config.tag.as_bytes();
    if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.contains(&0) {
        return Err(unfit(format!(
            "tag {:?} is not 1 to {MAX_TAG_BYTES} bytes without NUL",
            config.tag
        )));
    }
    if !(1..=MAX_REQUEST_QUEUES).contains(&config.queues) {
        return Err(unfit(format!(
            "{} request queues are out of range, expected 1 to {MAX_REQUEST_QUEUES}",
            config.queues
        )));
    }
    Ok(())
}

/// What the driver is offered, within what the backend can do.
struct Offer {
    features: u64,
    request_queues: u16,
}

impl Offer {
    fn of(link: &Link, wanted: u16) -> Result<Self, VhostUserError> {
        let (offered, served) = link
            .connection
            .as_ref()
            .map_or((0, 0), |backend| (backend.features(), backend.queues()));
        if offered & (1 << VIRTIO_F_VERSION_1) == 0 {
            return Err(VhostUserError::Features {
                offered,
                missing: "VIRTIO_F_VERSION_1",
            });
        }
        if served < LEAST_QUEUES {
            return Err(VhostUserError::Queues {
                served,
                needed: LEAST_QUEUES,
            });
        }
        Ok(Self {
            features: offered & RING_FEATURES,
            request_queues: wanted.min(served.saturating_sub(1)),
        })
    }
}

/// `struct virtio_fs_config` (§5.11.4): tag and number of request queues.
fn config_space(tag: &str, request_queues: u16) -> [u8; CONFIG_BYTES] {
    let mut space = [0; CONFIG_BYTES];
    let padded = tag.bytes().chain(std::iter::repeat(0)).take(MAX_TAG_BYTES);
    let bytes = padded.chain(u32::from(request_queues).to_le_bytes());
    for (field, byte) in space.iter_mut().zip(bytes) {
        *field = byte;
    }
    space
}

impl VirtioDevice for Fs {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_space(&self.config_space, offset, data);
    }

    /// The whole configuration space is read-only.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let has = |index| run.queues.iter().any(|queue| queue.index == index);
        if !has(HIPRIO_QUEUE) || !has(FIRST_REQUEST_QUEUE) {
            return Err(ActivateError::MissingQueues {
                enabled: run.queues.len(),
                needed: LEAST_QUEUES.into(),
            });
        }
        let worker = match self.link.take() {
            Some(link) => self.spawn(link, run),
            None => Err(std::io::Error::other("its last thread panicked")),
        };
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            action: "start the thread of the share",
            source,
        })?);
        self.known = Known::Session;
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let Some(worker) = self.worker.take() else {
            return Ok(Stopped::default());
        };
        let (link, queues) = worker.stop()?.into_parts();
        self.link = Some(link);
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        match self.known {
            Known::Nothing => state::unused(),
            Known::Session => {
                let link = self.link.as_ref();
                if link.is_some_and(Link::has_lost_mappings) {
                    return Err(StateError::Mapped {
                        id: self.id.clone(),
                    });
                }
                state::of(&self.id, link.and_then(|link| link.connection.as_ref()))
            }
        }
    }
}

impl Drop for Fs {
    fn drop(&mut self) {
        // A backend that outlived its device would keep serving a guest that is gone.
        let _ = self.stop();
    }
}
