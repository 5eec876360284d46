//! Tests of the transport with a device that only remembers.

mod page;
mod queues;
mod registers;
mod state;

use std::sync::{Arc, Mutex};

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::device::{
    ActivateError, Activation, ActiveQueue, DeviceError, DeviceKind, DeviceSpec, SharedMemory,
    Stopped, VirtioDevice, read_space,
};
use crate::interrupt::Interrupt;
use crate::state::{StateBlob, StateError};
use crate::testing::{MmioDriver, Reads, guest_memory};

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const OFFERED: u64 = VERSION_1 | EVENT_IDX | 1 << 5;

/// The configuration space of a [`Probe`] at first.
const SPACE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// What a [`Probe`] went through, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Activated { features: u64, queues: Vec<u16> },
    Refused,
    Stopped,
    Config { offset: u64, data: Vec<u8> },
}

/// Shared with the test: events, the current interrupt, and what to do at the next activation.
#[derive(Default)]
struct Notes {
    events: Vec<Event>,
    interrupt: Option<Arc<dyn Interrupt>>,
    refuse: bool,
    lose_queues: bool,
    /// What [`SPACE`] has become.
    space: Option<[u8; 8]>,
}

/// A device without a thread, with three queues and eight bytes of configuration.
struct Probe {
    spec: DeviceSpec,
    notes: Arc<Mutex<Notes>>,
    queues: Option<Vec<ActiveQueue>>,
}

impl VirtioDevice for Probe {
    fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self.notes.lock().unwrap().space.unwrap_or(SPACE);
        read_space(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let data = data.to_vec();
        self.notes
            .lock()
            .unwrap()
            .events
            .push(Event::Config { offset, data });
    }

    fn activate(&mut self, run: Activation) -> Result<(), ActivateError> {
        assert!(
            self.queues.is_none(),
            "the transport stops before it activates again"
        );
        let mut notes = self.notes.lock().unwrap();
        if notes.refuse {
            notes.events.push(Event::Refused);
            return Err(ActivateError::MissingQueues {
                enabled: 0,
                needed: 1,
            });
        }
        let queues = run.queues.iter().map(|queue| queue.index).collect();
        let features = run.features;
        notes.events.push(Event::Activated { features, queues });
        notes.interrupt = Some(run.interrupt);
        self.queues = Some(run.queues);
        Ok(())
    }

    fn stop(&mut self) -> Result<Stopped, DeviceError> {
        let mut notes = self.notes.lock().unwrap();
        notes.events.push(Event::Stopped);
        let queues = self.queues.take().unwrap_or_default();
        if notes.lose_queues {
            return Err(DeviceError::WorkerPanicked {
                name: "probe".to_owned(),
            });
        }
        Ok(Stopped { queues })
    }

    fn save(&self) -> Result<StateBlob, StateError> {
        StateBlob::encode("probe", 1, &())
    }
}

/// Shared memory of the device.
const REGION: SharedMemory = SharedMemory {
    id: 1,
    address: 0x5_4000_0000,
    bytes: 0x2_0020_0000,
};

fn probe() -> (MmioDriver, Arc<Mutex<Notes>>) {
    probe_with(Reads::Exit)
}

fn probe_with(reads: Reads) -> (MmioDriver, Arc<Mutex<Notes>>) {
    let notes = Arc::new(Mutex::new(Notes::default()));
    let device = Box::new(Probe {
        spec: DeviceSpec {
            kind: DeviceKind::Net,
            features: OFFERED,
            queue_sizes: vec![256, 64, 16],
            shared_memory: Some(REGION),
        },
        notes: notes.clone(),
        queues: None,
    });
    let driver = MmioDriver::with_reads(device, &guest_memory(), reads);
    (driver, notes)
}

fn take_events(notes: &Mutex<Notes>) -> Vec<Event> {
    std::mem::take(&mut notes.lock().unwrap().events)
}

fn interrupt_of(notes: &Mutex<Notes>) -> Arc<dyn Interrupt> {
    notes.lock().unwrap().interrupt.clone().unwrap()
}
