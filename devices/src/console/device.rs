//! The device around its queues.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::queues::MAX_WRITE_BYTES;
use super::worker::Ports;
use super::{ConsoleConfig, ConsoleHost};
use crate::device::{
    ActivateError, Activation, DeviceError, DeviceId, DeviceKind, DeviceSpec, Stopped, VirtioDevice,
};
use crate::registry::BuildError;
use crate::state::{StateBlob, StateError};
use crate::worker::Worker;

const STATE_KIND: &str = "console";
const STATE_VERSION: u16 = 1;

/// Buffers for input: Linux fills the queue with pages.
const RECEIVE_QUEUE_SIZE: u16 = 16;
/// Buffers of output: Linux waits for each before it writes the next.
const TRANSMIT_QUEUE_SIZE: u16 = 64;

/// A virtio console.
pub struct Console {
    id: DeviceId,
    spec: DeviceSpec,
    /// With the worker while there is one, and gone when that panicked.
    host: Option<ConsoleHost>,
    /// Output that was given back to the driver and has not been taken by the host.
    pending: Vec<u8>,
    worker: Option<Worker<Ports>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    pending: Vec<u8>,
}

impl Console {
    /// Builds the device around the host's side.
    ///
    /// # Errors
    /// When the saved state is not that of a console.
    pub fn build(
        config: &ConsoleConfig,
        host: ConsoleHost,
        saved: Option<StateBlob>,
    ) -> Result<Self, BuildError> {
        let refused = |source| BuildError::State {
            id: config.id.clone(),
            source,
        };
        let pending =
            saved.map_or_else(|| Ok(Vec::new()), |saved| restore(&saved).map_err(refused))?;
        Ok(Self {
            id: config.id.clone(),
            spec: DeviceSpec {
                kind: DeviceKind::Console,
                features: 1 << VIRTIO_F_VERSION_1
                    | 1 << VIRTIO_RING_F_EVENT_IDX
                    | 1 << VIRTIO_RING_F_INDIRECT_DESC,
                queue_sizes: vec![RECEIVE_QUEUE_SIZE, TRANSMIT_QUEUE_SIZE],
                shared_memory: None,
            },
            host: Some(host),
            pending,
            worker: None,
        })
    }
}

fn restore(saved: &StateBlob) -> Result<Vec<u8>, StateError> {
    let Saved { pending } = saved.decode(STATE_KIND, STATE_VERSION)?;
    if pending.len() > MAX_WRITE_BYTES {
        return Err(StateError::Invalid {
            kind: STATE_KIND,
            field: "pending",
        });
    }
    Ok(pending)
}

impl VirtioDevice for Console {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        // Size and number of ports mean something only with features that are not offered.
        data.fill(0);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, mut run: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let [receive, transmit] = run.take_queues()?;
        let host = self.host.take().ok_or_else(|| ActivateError::Host {
            action: "reach the console after its thread panicked",
            source: std::io::ErrorKind::BrokenPipe.into(),
        })?;
        let pending = std::mem::take(&mut self.pending);
        let ports = Ports::new(
            (receive, transmit),
            (host, pending),
            (run.memory, Arc::clone(&run.interrupt)),
        );
        let worker = Worker::spawn(self.id.as_str(), ports, run.interrupt).map_err(|source| {
            ActivateError::Host {
                action: "start the console's thread",
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
        let (host, pending, queues) = worker.stop()?.into_parts();
        self.host = Some(host);
        self.pending = pending;
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        if self.worker.is_some() {
            return Err(StateError::Active);
        }
        let pending = self.pending.clone();
        StateBlob::encode(STATE_KIND, STATE_VERSION, &Saved { pending })
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
