//! Interrupts towards the driver.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::registers::{INTERRUPT_CONFIG, INTERRUPT_USED};
use super::shared::SharedRegisters;
use super::status::{DEVICE_NEEDS_RESET, DRIVER_OK};
use crate::interrupt::Interrupt;

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

    /// The driver's handler reads the registers as soon as the line fires: they come first.
    fn fire(&self) {
        // The write only fails when the counter is full, and then the line has fired already.
        let _ = self.irq.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_queue(&self, _queue: u16) {
        if !self.registers.stands(INTERRUPT_USED) {
            self.registers
                .change(|live| live.interrupt |= INTERRUPT_USED);
        }
        self.fire();
    }

    fn signal_config(&self, space: &[u8]) {
        self.registers.replace_config(space);
        self.fire();
    }

    fn needs_reset(&self) {
        let told = self.registers.change(|live| {
            let before = live.status;
            live.status |= DEVICE_NEEDS_RESET;
            // Virtio 1.2 §2.1.2: only a driver that is set up is told.
            let tell = before & (DRIVER_OK | DEVICE_NEEDS_RESET) == DRIVER_OK;
            if tell {
                live.interrupt |= INTERRUPT_CONFIG;
            }
            tell
        });
        if told {
            self.fire();
        }
    }

    fn external(&self) -> io::Result<EventFd> {
        let line = self.irq.try_clone()?;
        // Before anybody can fire the line: the driver would take the interrupt for no one's.
        self.registers.stand(INTERRUPT_USED);
        Ok(line)
    }
}
