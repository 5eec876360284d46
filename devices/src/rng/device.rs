//! The device around the request queue.

use std::sync::Arc;

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::EventFd;

use super::config::RngConfig;
use super::requests::Requests;
use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceKind, DeviceSpec, Memory, Stopped,
    VirtioDevice,
};
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::{Handler, Source, Worker};

const STATE_KIND: &str = "rng";
const STATE_VERSION: u16 = 1;
const QUEUE_SIZE: u16 = 64;
const KICK: u32 = 0;

static FAULTS: LogLimit = LogLimit::new();

/// The entropy source.
pub struct Rng {
    name: String,
    spec: DeviceSpec,
    worker: Option<Worker<RequestHandler>>,
}

impl Rng {
    /// Builds the device; it needs nothing from the host.
    ///
    /// # Errors
    /// When the saved state is not that of an entropy source.
    pub fn build(config: &RngConfig, saved: Option<StateBlob>) -> Result<Self, BuildError> {
        if let Some(saved) = saved {
            saved
                .decode::<()>(STATE_KIND, STATE_VERSION)
                .map_err(|source| BuildError::State {
                    id: config.id.clone(),
                    source,
                })?;
        }
        Ok(Self {
            name: config.id.to_string(),
            spec: DeviceSpec {
                kind: DeviceKind::Rng,
                features: 1 << VIRTIO_F_VERSION_1
                    | 1 << VIRTIO_RING_F_EVENT_IDX
                    | 1 << VIRTIO_RING_F_INDIRECT_DESC,
                queue_sizes: vec![QUEUE_SIZE],
                shared_memory: None,
            },
            worker: None,
        })
    }
}

impl VirtioDevice for Rng {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, mut run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let [queue] = run.take_queues()?;
        let handler = RequestHandler {
            index: queue.index,
            requests: Requests::new(queue.index, queue.queue),
            kick: queue.kick,
            memory: run.memory,
            interrupt: run.interrupt.clone(),
            faulted: false,
        };
        let worker = Worker::spawn(&self.name, handler, run.interrupt).map_err(|source| {
            ActivateError::Host {
                action: "start the entropy source's thread",
                source,
            }
        })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let Some(worker) = self.worker.take() else {
            return Ok(Stopped::default());
        };
        let handler = worker.stop()?;
        Ok(Stopped {
            queues: vec![ActiveQueue {
                index: handler.index,
                queue: handler.requests.into_queue(),
                kick: handler.kick,
            }],
        })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        StateBlob::encode(STATE_KIND, STATE_VERSION, &())
    }
}

struct RequestHandler {
    index: u16,
    requests: Requests,
    kick: EventFd,
    memory: Memory,
    interrupt: Arc<dyn Interrupt>,
    faulted: bool,
}

impl RequestHandler {
    fn serve(&mut self) {
        if self.faulted {
            return;
        }
        match self.requests.process(&self.memory) {
            Ok(served) => {
                if served.interrupt {
                    self.interrupt.signal_queue(self.index);
                }
                if served.again {
                    // Through the event loop, so that a stop gets its turn as well. The write only
                    // fails when the counter is full, and then the loop is awake already.
                    let _ = self.kick.write(1);
                }
            }
            Err(fault) => {
                self.faulted = true;
                self.interrupt.needs_reset();
                if let Some(count) = FAULTS.next() {
                    tracing::warn!(count, %fault, "Entropy source: the driver broke the protocol");
                }
            }
        }
    }
}

impl Handler for RequestHandler {
    fn sources(&self) -> Vec<Source> {
        vec![Source::readable(&self.kick, KICK)]
    }

    fn start(&mut self) {
        self.serve();
    }

    fn handle(&mut self, _token: u32) {
        // Fails when the kick was taken back by a reset.
        let _ = self.kick.read();
        self.serve();
    }

    fn drain(&mut self) {
        // Every request is served when it is seen: nothing is ever in flight.
    }
}
