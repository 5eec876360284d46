//! Interrupts towards the driver, and the registers that change without the driver's doing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::registers::{INTERRUPT_CONFIG, INTERRUPT_USED};
use super::status::{DEVICE_NEEDS_RESET, DRIVER_OK};
use crate::interrupt::Interrupt;

/// Every register that device threads change while the driver may read it. Kept in one place, so
/// that a machine can publish them to the guest without an exit.
#[derive(Debug, Default)]
pub(super) struct SharedRegisters {
    /// Device status.
    pub(super) status: AtomicU32,
    /// Reasons for an interrupt that the driver has not acknowledged; see
    /// [`interrupt_status`](Self::interrupt_status) for what it reads.
    pub(super) interrupt: AtomicU32,
    /// Reasons that stand whatever the driver acknowledges: others fire the line as well.
    pub(super) standing: AtomicU32,
    /// Configuration generation.
    pub(super) config_generation: AtomicU32,
}

impl SharedRegisters {
    /// The interrupt status register.
    pub(super) fn interrupt_status(&self) -> u32 {
        self.interrupt.load(Ordering::SeqCst) | self.standing.load(Ordering::SeqCst)
    }
}

/// The interrupt line of one device: an edge-triggered eventfd and the status register that says
/// why it fired.
#[derive(Debug)]
pub(super) struct MmioInterrupt {
    registers: Arc<SharedRegisters>,
    irq: EventFd,
}

impl MmioInterrupt {
    pub(super) fn new(registers: Arc<SharedRegisters>, irq: EventFd) -> Self {
        Self { registers, irq }
    }

    fn raise(&self, cause: u32) {
        // The driver's handler reads the register as soon as the line fires: the bit comes first.
        self.registers.interrupt.fetch_or(cause, Ordering::SeqCst);
        // The write only fails when the counter is full, and then the line has fired already.
        let _ = self.irq.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_queue(&self, _queue: u16) {
        self.raise(INTERRUPT_USED);
    }

    fn signal_config(&self) {
        self.registers
            .config_generation
            .fetch_add(1, Ordering::SeqCst);
        self.raise(INTERRUPT_CONFIG);
    }

    fn needs_reset(&self) {
        let before = self
            .registers
            .status
            .fetch_or(DEVICE_NEEDS_RESET, Ordering::SeqCst);
        // Virtio 1.2 §2.1.2: only a driver that is set up is told.
        if before & DRIVER_OK != 0 && before & DEVICE_NEEDS_RESET == 0 {
            self.raise(INTERRUPT_CONFIG);
        }
    }

    fn external(&self) -> io::Result<EventFd> {
        let line = self.irq.try_clone()?;
        // Before anybody can fire the line: the driver would take the interrupt for no one's.
        self.registers
            .standing
            .store(INTERRUPT_USED, Ordering::SeqCst);
        Ok(line)
    }
}
