//! A driver of a whole device, through the registers of its transport.

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queue_driver::QueueDriver;
use super::short_cuts::{GuestPage, ShortCuts};
use super::wake::Wake;
use crate::bus::BusDevice;
use crate::device::{Memory, VirtioDevice};
use crate::transport::registers as reg;
use crate::transport::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use crate::transport::{Doorbells, MmioTransport};

/// How the driver's accesses reach the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Each is an exit.
    Exit,
    /// As on a machine with short cuts: reads come from the page, kicks and acknowledgements go
    /// where [`Doorbells`] sent them.
    Page,
}

/// A device behind its transport, and the driver that works it as Linux does.
pub struct MmioDriver {
    /// The transport; tests may do to it what they like.
    pub transport: MmioTransport,
    memory: Memory,
    irq: EventFd,
    page: GuestPage,
    short_cuts: Option<ShortCuts>,
}

impl MmioDriver {
    /// Puts `device` behind registers; each access is an exit.
    pub fn new(device: Box<dyn VirtioDevice>, memory: &Memory) -> Self {
        Self::with_reads(device, memory, Reads::Exit)
    }

    /// Puts `device` behind registers.
    pub fn with_reads(device: Box<dyn VirtioDevice>, memory: &Memory, reads: Reads) -> Self {
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let page = GuestPage::default();
        let (memory, line) = (memory.clone(), irq.try_clone().unwrap());
        let behind = page.clone().into_registers();
        let mut transport = MmioTransport::on_page(device, memory.clone(), line, behind).unwrap();
        let short_cuts = (reads == Reads::Page).then(ShortCuts::default);
        if let Some(short_cuts) = &short_cuts {
            transport = transport.with_doorbells(Box::new(short_cuts.clone()));
        }
        Self {
            transport,
            memory,
            irq,
            page,
            short_cuts,
        }
    }

    /// Gives the transport a short cut for kicks.
    #[must_use]
    pub fn with_doorbells(mut self, doorbells: Box<dyn Doorbells>) -> Self {
        self.transport = self.transport.with_doorbells(doorbells);
        self
    }

    /// The interrupt line, to wait on while the driver is busy.
    pub fn irq(&self) -> EventFd {
        self.irq.try_clone().unwrap()
    }

    /// Reads a register.
    pub fn read(&mut self, register: u64) -> u32 {
        let mut value = [0; 4];
        self.read_bytes(register, &mut value);
        u32::from_le_bytes(value)
    }

    /// Writes a register.
    pub fn write(&mut self, register: u64, value: u32) {
        self.write_bytes(register, &value.to_le_bytes());
    }

    /// Reads as many bytes at any offset.
    pub fn read_bytes(&mut self, offset: u64, data: &mut [u8]) {
        match self.short_cuts {
            Some(_) => self.page.read(offset, data),
            None => self.transport.read(offset, data),
        }
    }

    /// Writes as many bytes at any offset.
    pub fn write_bytes(&mut self, offset: u64, data: &[u8]) {
        let short_cuts = self.short_cuts.as_ref();
        if !short_cuts.is_some_and(|short_cuts| short_cuts.take(offset, data)) {
            self.transport.write(offset, data);
        }
    }

    /// The registers as they lie in memory.
    pub fn page(&self) -> &GuestPage {
        &self.page
    }

    /// Device status.
    pub fn status(&mut self) -> u32 {
        self.read(reg::STATUS)
    }

    /// Every feature the device offers.
    pub fn offered(&mut self) -> u64 {
        self.write(reg::DEVICE_FEATURES_SEL, 1);
        let high = u64::from(self.read(reg::DEVICE_FEATURES));
        self.write(reg::DEVICE_FEATURES_SEL, 0);
        high << 32 | u64::from(self.read(reg::DEVICE_FEATURES))
    }

    /// Resets the device and negotiates `features`. Returns whether the device agreed.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.write(reg::STATUS, 0);
        self.write(reg::STATUS, ACKNOWLEDGE);
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER);
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        self.write(reg::DRIVER_FEATURES_SEL, 0);
        self.write(reg::DRIVER_FEATURES, u32::from_le_bytes([a, b, c, d]));
        self.write(reg::DRIVER_FEATURES_SEL, 1);
        self.write(reg::DRIVER_FEATURES, u32::from_le_bytes([e, f, g, h]));
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// Makes a queue of the largest size up to `at_most`, and tells the device about it.
    pub fn add_queue(&mut self, index: u16, at_most: u16) -> QueueDriver {
        self.write(reg::QUEUE_SEL, index.into());
        let max = u16::try_from(self.read(reg::QUEUE_NUM_MAX)).unwrap();
        let queue = QueueDriver::new(&self.memory, index, max.min(at_most));
        self.configure_queue(&queue);
        queue
    }

    /// Writes the registers of `queue` and declares it ready.
    pub fn configure_queue(&mut self, queue: &QueueDriver) {
        self.write(reg::QUEUE_SEL, queue.index().into());
        self.write(reg::QUEUE_NUM, queue.size().into());
        let rings = [
            (reg::QUEUE_DESC_LOW, queue.descriptor_table()),
            (reg::QUEUE_DRIVER_LOW, queue.available_ring()),
            (reg::QUEUE_DEVICE_LOW, queue.used_ring()),
        ];
        for (low, address) in rings {
            self.write(low, u32::try_from(address & u64::from(u32::MAX)).unwrap());
            self.write(low + 4, u32::try_from(address >> 32).unwrap());
        }
        self.write(reg::QUEUE_READY, 1);
    }

    /// Declares the driver set up: the device starts. Returns the status after that.
    pub fn driver_ok(&mut self) -> u32 {
        self.write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.status()
    }

    /// Resets the device, negotiates everything it offers, and starts it with all of its queues.
    pub fn start(&mut self) -> Vec<QueueDriver> {
        let features = self.offered();
        assert!(self.negotiate(features), "the device takes what it offers");
        let count = u16::try_from(self.transport.device().spec().queue_sizes.len()).unwrap();
        let queues = (0..count).map(|index| self.add_queue(index, 256)).collect();
        assert_eq!(
            self.driver_ok(),
            ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
        );
        queues
    }

    /// Kicks a queue through its register, as on a machine without ioeventfds.
    pub fn notify(&mut self, queue: &QueueDriver) {
        self.write(reg::QUEUE_NOTIFY, queue.index().into());
    }
}

impl Wake for MmioDriver {
    fn event(&self) -> &EventFd {
        &self.irq
    }
}
