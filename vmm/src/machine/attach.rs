//! Putting a virtio device on the machine. The only place that registers ioeventfds; it knows no
//! kind of device.

use std::io;
use std::sync::{Arc, Mutex};

use devices::device::{DeviceId, VirtioDevice};
use devices::registry::{MAX_POSITION, Position};
use devices::transport::{
    Doorbells, MmioTransport, TransportError,
    registers::{INTERRUPT_ACK, QUEUE_NOTIFY},
};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Attached, BusError, Machine};
use crate::arch::{layout, ports};
use crate::kvm::KvmError;

/// Why a device was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The position does not exist.
    #[error("Device {id}: position {position} is out of range, expected 0 to {MAX_POSITION}")]
    NoSuchPosition {
        /// The device.
        id: DeviceId,
        /// What was asked for.
        position: u8,
    },
    /// Another device is there.
    #[error("Device {id}: its position is taken")]
    Taken {
        /// The device.
        id: DeviceId,
        /// The clash.
        #[source]
        source: BusError,
    },
    /// The transport does not take the device.
    #[error("Device {id}: failed to put it behind virtio-mmio registers")]
    Transport {
        /// The device.
        id: DeviceId,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// No interrupt line.
    #[error("Device {id}: failed to get an interrupt line")]
    Line {
        /// The device.
        id: DeviceId,
        /// Why.
        #[source]
        source: KvmError,
    },
}

impl Machine {
    /// Puts `device` at `position`: registers, interrupt line, an ioeventfd for each queue in use.
    ///
    /// # Errors
    /// When the position is taken or does not exist, or KVM refuses.
    pub fn attach(
        &mut self,
        id: DeviceId,
        position: Position,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(), AttachError> {
        if position.0 > MAX_POSITION {
            return Err(AttachError::NoSuchPosition {
                id,
                position: position.0,
            });
        }
        let irq = self
            .irqchip
            .line(ports::virtio_gsi(position))
            .map_err(|source| AttachError::Line {
                id: id.clone(),
                source,
            })?;
        let memory = self.memory.clone();
        let transport = match self.registers.page(position) {
            Some(page) => MmioTransport::on_page(device, memory, irq, page),
            None => MmioTransport::new(device, memory, irq),
        };
        let transport = transport.map_err(|source| AttachError::Transport {
            id: id.clone(),
            source,
        })?;
        let base = ports::virtio_mmio(position);
        let doorbells = Ioeventfds {
            vm: self.vm.clone(),
            registers: base,
        };
        let transport = transport.with_doorbells(Box::new(doorbells));
        let transport = Arc::new(Mutex::new(transport));
        self.mmio
            .insert(base, layout::MMIO_STRIDE, transport.clone())
            .map_err(|source| AttachError::Taken {
                id: id.clone(),
                source,
            })?;
        self.attached.push(Attached {
            id,
            position,
            transport,
        });
        Ok(())
    }
}

/// Registers of one device, watched by KVM.
struct Ioeventfds {
    vm: Arc<VmFd>,
    registers: u64,
}

impl Ioeventfds {
    fn watch(&self, register: u64, value: u32, event: &EventFd) -> io::Result<()> {
        let address = IoEventAddress::Mmio(self.registers + register);
        self.vm
            .register_ioevent(event, &address, value)
            .map_err(io::Error::from)
    }
}

impl Doorbells for Ioeventfds {
    fn connect(&self, queue: u16, kick: &EventFd) -> io::Result<()> {
        self.watch(QUEUE_NOTIFY, queue.into(), kick)
    }

    fn absorb(&self, cause: u32) -> io::Result<()> {
        // KVM keeps what it fires; nobody else needs it.
        self.watch(INTERRUPT_ACK, cause, &EventFd::new(EFD_NONBLOCK)?)
    }
}
