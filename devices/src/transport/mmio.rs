//! One virtio device behind its register page.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::EventFd;

use super::doorbell::Doorbells;
use super::interrupt::MmioInterrupt;
use super::page::{OwnPage, RegisterPage};
use super::queue_slot::{Bell, QueueConfigError, QueueSlot};
use super::registers::INTERRUPT_USED;
use super::shared::SharedRegisters;
use super::state::QueueRegisters;
use super::status::DEVICE_NEEDS_RESET;
use crate::device::{ActivateError, Activation, ActiveQueue, DeviceError, Memory, VirtioDevice};
use crate::interrupt::Interrupt;
use crate::log_limit::LogLimit;

/// Most queues a device may have.
const MAX_QUEUES: usize = 64;

/// A virtio device on the MMIO bus.
///
/// Registers are read and written through [`BusDevice`](crate::bus::BusDevice); the machine puts the transport behind a
/// lock that it shares with the control thread. [`stop`](Self::stop) and [`resume`](Self::resume)
/// serve pause, snapshot and shutdown.
pub struct MmioTransport {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) memory: Memory,
    pub(super) interrupt: Arc<MmioInterrupt>,
    pub(super) shared: Arc<SharedRegisters>,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) driver_features: u64,
    pub(super) queue_sel: u32,
    pub(super) shm_sel: u32,
    pub(super) queues: Vec<QueueSlot>,
    doorbells: Option<Box<dyn Doorbells>>,
    absorbed: Absorbed,
    pub(super) activity: Activity,
    pub(super) ignored: LogLimit,
    pub(super) faults: LogLimit,
}

/// What becomes of a driver's acknowledgement of used descriptors alone, see [`Doorbells::absorb`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absorbed {
    /// It arrives; the machine was not asked for a short cut.
    NotAsked,
    /// It arrives; the machine refused.
    No,
    /// It does not arrive.
    Yes,
}

/// Who holds the queues.
pub(super) enum Activity {
    /// Nobody: not started yet, or their holder failed.
    Idle,
    /// The device.
    Active,
    /// The transport, until `resume`.
    Paused(Vec<ActiveQueue>),
}

impl MmioTransport {
    /// Puts `device` behind registers. Writing 1 to `irq` is an (edge-triggered) interrupt. Every
    /// read of a register is a [`read`](crate::bus::BusDevice::read) of the transport.
    ///
    /// # Errors
    /// When the device's spec breaks the rules of its own documentation, or the host refuses an
    /// eventfd.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Memory,
        irq: EventFd,
    ) -> Result<Self, TransportError> {
        Self::on_page(device, memory, irq, Arc::new(OwnPage::default()))
    }

    /// As [`new`](Self::new), with the registers in `page`, where the driver may find them by itself.
    /// The page holds zeroes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_page(
        device: Box<dyn VirtioDevice>,
        memory: Memory,
        irq: EventFd,
        page: Arc<dyn RegisterPage>,
    ) -> Result<Self, TransportError> {
        let spec = device.spec();
        let features = spec.features;
        if features & (1 << VIRTIO_F_VERSION_1) == 0 {
            return Err(TransportError::NotModern { features });
        }
        let count = spec.queue_sizes.len();
        if count > MAX_QUEUES {
            return Err(TransportError::TooManyQueues { count });
        }
        let queues = spec
            .queue_sizes
            .iter()
            .zip(0..)
            .map(|(&max_size, queue)| QueueSlot::new(queue, max_size))
            .collect::<Result<_, _>>()?;
        let shared = Arc::new(SharedRegisters::new(page));
        let transport = Self {
            device,
            memory,
            interrupt: Arc::new(MmioInterrupt::new(shared.clone(), irq)),
            shared,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            shm_sel: 0,
            queues,
            doorbells: None,
            absorbed: Absorbed::NotAsked,
            activity: Activity::Idle,
            ignored: LogLimit::new(),
            faults: LogLimit::new(),
        };
        transport.show_constants();
        transport.show_selected();
        transport.show_config();
        Ok(transport)
    }

    /// Takes kicks by a short cut, which is asked for when a queue is first used: of all the queues
    /// of all devices, a guest often uses a few.
    #[must_use]
    pub fn with_doorbells(mut self, doorbells: Box<dyn Doorbells>) -> Self {
        self.doorbells = Some(doorbells);
        self
    }

    /// The eventfd of each queue, by index. They stay the same for the life of the transport.
    pub fn queue_kicks(&self) -> impl Iterator<Item = (u16, &EventFd)> {
        (0..).zip(self.queues.iter().map(|slot| &slot.kick))
    }

    /// The device behind the registers.
    pub fn device(&self) -> &dyn VirtioDevice {
        self.device.as_ref()
    }

    /// Whether the device cannot go on until its driver resets it.
    pub fn needs_reset(&self) -> bool {
        self.status() & DEVICE_NEEDS_RESET != 0
    }

    /// The interrupt line, for whoever changes the device's configuration from the host side.
    pub fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.interrupt.clone()
    }

    /// Drains the device and keeps its queues, until [`resume`](Self::resume). Does nothing when
    /// the device does not run. Call it while no vCPU runs.
    ///
    /// # Errors
    /// When the device lost its queues; it is marked `DEVICE_NEEDS_RESET` then.
    pub fn stop(&mut self) -> Result<(), DeviceError> {
        if !matches!(self.activity, Activity::Active) {
            return Ok(());
        }
        self.activity = Activity::Idle;
        let stopped = self
            .device
            .stop()
            .inspect_err(|_| self.interrupt.needs_reset())?;
        self.activity = Activity::Paused(stopped.queues);
        Ok(())
    }

    /// Starts a stopped device again where it was. Does nothing when [`stop`](Self::stop) or
    /// [`restore`](Self::restore) left nothing to resume.
    ///
    /// # Errors
    /// When the device does not start; it is marked `DEVICE_NEEDS_RESET` then.
    pub fn resume(&mut self) -> Result<(), ActivateError> {
        match std::mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Paused(queues) => {
                self.activate(queues)?;
                // An interrupt raised just before the stop may be gone as well.
                self.interrupt.signal_queue(0);
            }
            other => self.activity = other,
        }
        Ok(())
    }

    /// The queues of a stopped device, which cannot be resumed after this.
    #[cfg(test)]
    pub(super) fn take_paused(&mut self) -> Option<Vec<ActiveQueue>> {
        match std::mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Paused(queues) => Some(queues),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.shared.live().status
    }

    /// Whether these features can be agreed on.
    pub(super) fn acceptable(&self, features: u64) -> bool {
        features & !self.device.spec().features == 0 && features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    /// Starts the device on the queues that the driver declared ready.
    pub(super) fn start(&mut self) {
        if self.status() & DEVICE_NEEDS_RESET != 0 {
            return;
        }
        let queues = (0..)
            .zip(&self.queues)
            .filter(|(_, slot)| slot.registers.ready)
            .map(|(index, slot)| {
                slot.build(index, &slot.registers, &self.memory, self.driver_features)
            })
            .collect::<Result<Vec<_>, _>>();
        let started = match queues {
            Ok(queues) => self.activate(queues).map_err(StartError::Activate),
            Err(error) => Err(StartError::Queue(error)),
        };
        if let Err(error) = started {
            self.interrupt.needs_reset();
            if let Some(count) = self.faults.next() {
                let kind = self.device.spec().kind;
                tracing::warn!(
                    ?kind,
                    count,
                    ?error,
                    "Device not started, the driver has to reset it"
                );
            }
        }
    }

    /// Asks once per queue for the short cut of its kicks.
    fn connect_doorbells(&mut self, queues: &[ActiveQueue]) {
        let Some(doorbells) = &self.doorbells else {
            return;
        };
        for queue in queues {
            let slot = self.queues.get_mut(usize::from(queue.index));
            let Some(slot) = slot.filter(|slot| slot.bell == Bell::Register) else {
                continue;
            };
            slot.bell = Bell::Asked;
            if let Err(error) = doorbells.connect(queue.index, &slot.kick) {
                let kind = self.device.spec().kind;
                tracing::warn!(?kind, queue = queue.index, %error, "Kicks go through the VMM");
            }
        }
    }

    /// Asks once for the short cut of acknowledgements. Without them, the reason that they are about
    /// stands for as long as the device runs. Drivers look into each queue then, as they do anyway:
    /// the register has one bit for all of them.
    fn absorb_acknowledgements(&mut self) {
        if let (Absorbed::NotAsked, Some(doorbells)) = (self.absorbed, &self.doorbells) {
            self.absorbed = match doorbells.absorb(INTERRUPT_USED) {
                Ok(()) => Absorbed::Yes,
                Err(error) => {
                    let kind = self.device.spec().kind;
                    tracing::warn!(?kind, %error, "Acknowledgements go through the VMM");
                    Absorbed::No
                }
            };
        }
        if self.absorbed == Absorbed::Yes {
            self.shared.stand(INTERRUPT_USED);
        }
    }

    fn activate(&mut self, queues: Vec<ActiveQueue>) -> Result<(), ActivateError> {
        self.connect_doorbells(&queues);
        // Before the device can interrupt: an acknowledgement of that may go nowhere already.
        self.absorb_acknowledgements();
        let activation = Activation {
            memory: self.memory.clone(),
            interrupt: self.interrupt.clone(),
            features: self.driver_features,
            queues,
        };
        self.device
            .activate(activation)
            .inspect_err(|_| self.interrupt.needs_reset())?;
        self.activity = Activity::Active;
        // A kick between the driver's last look at the registers and now may have been dropped.
        for slot in self.queues.iter().filter(|slot| slot.registers.ready) {
            slot.kick();
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        if let Err(error) = self.stop() {
            let kind = self.device.spec().kind;
            tracing::error!(?kind, %error, "Device failed before its reset");
        }
        self.activity = Activity::Idle;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.shm_sel = 0;
        for slot in &mut self.queues {
            slot.registers = QueueRegisters::default();
            // A kick of the old driver is none of the new one's. Fails when there was none.
            let _ = slot.kick.read();
        }
        self.show_selected();
        // Last, and after the device's threads have ended: the driver waits for 0 here.
        self.shared.stand(0);
        self.shared.change(|live| {
            live.interrupt = 0;
            live.status = 0;
        });
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        // No thread of the device outlives its registers.
        if let Err(error) = self.stop() {
            tracing::error!(%error, "Device failed before it was dropped");
        }
    }
}

/// Why `DRIVER_OK` did not start the device.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("Driver configured a queue that cannot be used")]
    Queue(#[source] QueueConfigError),
    #[error("Device refused to start")]
    Activate(#[source] ActivateError),
}

/// Why a device was not put behind a register page.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The device does not offer `VIRTIO_F_VERSION_1`.
    #[error("Device offers features {features:#x}, without VIRTIO_F_VERSION_1")]
    NotModern {
        /// The features offered.
        features: u64,
    },
    /// The device has more queues than any driver uses.
    #[error("Device has {count} queues, at most 64 are supported")]
    TooManyQueues {
        /// The number of queues.
        count: usize,
    },
    /// The device declares a queue size that is none.
    #[error("Queue {queue}: largest size {size} is not a power of two up to 32768")]
    QueueSize {
        /// Index of the queue.
        queue: u16,
        /// The size declared.
        size: u16,
    },
    /// The host refused an eventfd.
    #[error("Queue {queue}: failed to create its eventfd")]
    Kick {
        /// Index of the queue.
        queue: u16,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}
