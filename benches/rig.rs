//! A device under measurement: activated without a transport, with a driver in guest memory that
//! polls instead of taking interrupts.

use std::sync::Arc;
use std::thread;

use devices::device::{ActiveQueue, Memory, VirtioDevice};
use devices::testing::{FakeInterrupt, QueueDriver, Used, activation, guest_memory};

/// Looks at the used ring before the driver sleeps: far more than any answer takes.
const POLLS: u32 = 10_000;

/// An active device and its guest memory. Stopped when dropped.
pub struct Rig {
    memory: Memory,
    interrupt: Arc<FakeInterrupt>,
    device: Box<dyn VirtioDevice>,
}

impl Rig {
    /// Activates `device` with one driver per queue; queue sizes are what the device offers.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn activate(
        mut device: Box<dyn VirtioDevice>,
    ) -> Result<(Self, Vec<QueueDriver>), devices::device::ActivateError> {
        let memory = guest_memory();
        let interrupt = FakeInterrupt::new();
        let spec = device.spec().clone();
        let drivers: Vec<_> = (0..)
            .zip(&spec.queue_sizes)
            .map(|(index, size)| QueueDriver::new(&memory, index, *size))
            .collect();
        let queues: Vec<ActiveQueue> = drivers
            .iter()
            .map(|driver| driver.active_queue(spec.features))
            .collect();
        device.activate(activation(&memory, &interrupt, spec.features, queues))?;
        let rig = Self {
            memory,
            interrupt,
            device,
        };
        Ok((rig, drivers))
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Polls for the next used element of `driver`, as a busy driver does. Returns nothing when none
    /// came within ten seconds.
    pub fn wait(&self, driver: &mut QueueDriver) -> Option<Used> {
        for _ in 0..POLLS {
            if let Some(used) = driver.take_used() {
                return Some(used);
            }
            // The device's thread may want this processor.
            thread::yield_now();
        }
        driver.wait_used(&*self.interrupt)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A worker that died shows in the benchmark itself.
        let _ = self.device.stop();
    }
}
