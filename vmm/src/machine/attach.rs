//! Putting a virtio device on the machine. The only place that registers ioeventfds; it knows no
//! kind of device.

use std::sync::{Arc, Mutex};

use devices::device::{DeviceId, VirtioDevice};
use devices::registry::{MAX_POSITION, Position};
use devices::transport::{MmioTransport, TransportError, registers::QUEUE_NOTIFY};
use kvm_ioctls::IoEventAddress;

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
    /// KVM refused an ioeventfd.
    #[error("Device {id}: failed to register the ioeventfd of queue {queue}")]
    Ioeventfd {
        /// The device.
        id: DeviceId,
        /// The queue.
        queue: u16,
        /// What the kernel said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

impl Machine {
    /// Puts `device` at `position`: registers, interrupt line, one ioeventfd per queue.
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
        let transport = MmioTransport::new(device, self.memory.clone(), irq).map_err(|source| {
            AttachError::Transport {
                id: id.clone(),
                source,
            }
        })?;
        let base = ports::virtio_mmio(position);
        let notify = IoEventAddress::Mmio(base + QUEUE_NOTIFY);
        for (queue, kick) in transport.queue_kicks() {
            self.vm
                .register_ioevent(kick, &notify, u32::from(queue))
                .map_err(|source| AttachError::Ioeventfd {
                    id: id.clone(),
                    queue,
                    source,
                })?;
        }
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
