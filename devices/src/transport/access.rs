//! What the driver's reads and writes of the register page do.

use super::mmio::{Activity, MmioTransport};
use super::queue_slot::QueueSlot;
use super::registers as reg;
use super::state::QueueRegisters;
use super::status::{self, FEATURES_OK, Transition};
use crate::bus::BusDevice;

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= reg::CONFIG || (data.len(), offset % 4) == (4, 0) {
            self.shared.read(offset, data);
        } else {
            data.fill(0);
            self.ignore("register read of another width than 32 bits", offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(in_config) = offset.checked_sub(reg::CONFIG) {
            if self.status() & status::DRIVER != 0 {
                self.device.write_config(in_config, data);
                self.show_config();
            } else {
                self.ignore("device configuration before DRIVER", offset);
            }
        } else if let (Ok(data), 0) = (<[u8; 4]>::try_from(data), offset % 4) {
            self.write_register(offset, u32::from_le_bytes(data));
            self.show_selected();
        } else {
            self.ignore("register write of another width than 32 bits", offset);
        }
    }
}

impl MmioTransport {
    /// Logs a write that the rules forbid, seldom enough for a hostile driver.
    fn ignore(&self, what: &'static str, register: u64) {
        if let Some(count) = self.ignored.next() {
            let kind = self.device.spec().kind;
            tracing::warn!(
                ?kind,
                count,
                register,
                "Ignored a write of the driver: {what}"
            );
        }
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    /// Shows the registers that never change.
    pub(super) fn show_constants(&self) {
        let kind = self.device.spec().kind;
        self.shared.show(&[
            (reg::MAGIC_VALUE, reg::MAGIC),
            (reg::VERSION, reg::MMIO_VERSION),
            (reg::DEVICE_ID, kind as u32),
            (reg::VENDOR_ID, reg::VENDOR),
        ]);
    }

    /// Shows the configuration space as the device has it now.
    pub(super) fn show_config(&self) {
        let mut space = [0; reg::CONFIG_BYTES];
        self.device.read_config(0, &mut space);
        self.shared.show_config(&space);
    }

    /// Shows the registers that depend on what the driver has selected, before it runs on.
    pub(super) fn show_selected(&self) {
        let features = half(self.device.spec().features, self.device_features_sel);
        let slot = self.selected();
        let ready = slot.map_or(0, |slot| slot.registers.ready.into());
        let (length, base) = self.selected_region();
        self.shared.show(&[
            (reg::DEVICE_FEATURES, features),
            (
                reg::QUEUE_NUM_MAX,
                slot.map_or(0, |slot| slot.max_size.into()),
            ),
            (reg::QUEUE_READY, ready),
            (reg::SHM_LEN_LOW, half(length, 0)),
            (reg::SHM_LEN_HIGH, half(length, 1)),
            (reg::SHM_BASE_LOW, half(base, 0)),
            (reg::SHM_BASE_HIGH, half(base, 1)),
        ]);
    }

    /// Length and address of the selected region of shared memory; all ones where there is none
    /// (virtio 1.2 §4.2.2).
    fn selected_region(&self) -> (u64, u64) {
        let region = self.device.spec().shared_memory;
        region
            .filter(|region| u32::from(region.id) == self.shm_sel)
            .map_or((u64::MAX, u64::MAX), |region| {
                (region.bytes, region.address)
            })
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            reg::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::QUEUE_SEL => self.queue_sel = value,
            reg::STATUS => self.write_status(value),
            reg::QUEUE_NOTIFY => self.notify(value),
            reg::INTERRUPT_ACK => self.shared.change(|live| live.interrupt &= !value),
            reg::DRIVER_FEATURES => self.write_features(value),
            reg::QUEUE_READY => self.write_ready(value),
            reg::QUEUE_NUM
            | reg::QUEUE_DESC_LOW
            | reg::QUEUE_DESC_HIGH
            | reg::QUEUE_DRIVER_LOW
            | reg::QUEUE_DRIVER_HIGH
            | reg::QUEUE_DEVICE_LOW
            | reg::QUEUE_DEVICE_HIGH => self.write_queue(offset, value),
            reg::SHM_SEL => self.shm_sel = value,
            _ => self.ignore("no writable register", offset),
        }
    }

    fn write_features(&mut self, value: u32) {
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            // There is no feature bit beyond 63; drivers clear those halves at most.
            _ if value == 0 => return,
            _ => return self.ignore("features beyond bit 63", reg::DRIVER_FEATURES),
        };
        if !status::features_writable(self.status()) {
            return self.ignore("features out of turn", reg::DRIVER_FEATURES);
        }
        self.driver_features =
            self.driver_features & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
    }

    fn notify(&self, value: u32) {
        let slot = usize::try_from(value)
            .ok()
            .and_then(|index| self.queues.get(index));
        match (slot, &self.activity) {
            (Some(slot), Activity::Active) => slot.kick(),
            // The kick is given again on resume.
            (Some(_), Activity::Paused(_)) => {}
            _ => self.ignore("kick of a queue not in use", reg::QUEUE_NOTIFY),
        }
    }

    /// The registers of the selected queue, when the driver may write them now.
    fn writable_queue(&mut self) -> Option<&mut QueueRegisters> {
        if !status::queues_writable(self.status()) {
            return None;
        }
        let index = usize::try_from(self.queue_sel).ok()?;
        self.queues.get_mut(index).map(|slot| &mut slot.registers)
    }

    fn write_ready(&mut self, value: u32) {
        // Drivers clear it in any state to be sure, after a reset above all.
        let unchanged = self
            .selected()
            .is_none_or(|slot| u32::from(slot.registers.ready) == value);
        match self.writable_queue() {
            Some(queue) if value <= 1 => queue.ready = value == 1,
            _ if unchanged => {}
            _ => self.ignore("queue configuration out of turn", reg::QUEUE_READY),
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.writable_queue().filter(|queue| !queue.ready) else {
            return self.ignore("queue configuration out of turn", offset);
        };
        match offset {
            reg::QUEUE_NUM => queue.size = value,
            reg::QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            reg::QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            reg::QUEUE_DRIVER_LOW => set_low(&mut queue.available, value),
            reg::QUEUE_DRIVER_HIGH => set_high(&mut queue.available, value),
            reg::QUEUE_DEVICE_LOW => set_low(&mut queue.used, value),
            _ => set_high(&mut queue.used, value),
        }
    }

    fn write_status(&mut self, value: u32) {
        match status::transition(self.status(), value) {
            Transition::Stay => {}
            Transition::Reset => self.reset(),
            Transition::Set(bits) => self.set_status(bits),
            Transition::Negotiate(bits) if self.acceptable(self.driver_features) => {
                self.set_status(bits)
            }
            Transition::Negotiate(bits) => {
                self.set_status(bits & !FEATURES_OK);
                self.ignore(
                    "features that were not offered, or no VIRTIO_F_VERSION_1",
                    reg::STATUS,
                );
            }
            Transition::Start(bits) => {
                self.set_status(bits);
                self.start();
            }
            Transition::Illegal => self.ignore("status out of turn", reg::STATUS),
        }
    }

    fn set_status(&self, bits: u32) {
        self.shared.change(|live| live.status |= bits);
    }
}

fn half(value: u64, selected: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match selected {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
