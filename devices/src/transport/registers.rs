//! Offsets of the virtio-mmio registers (virtio 1.2 §4.2.2), for the transport and for tests that
//! play the driver. R: the driver reads it, W: it writes it.

/// R: [`MAGIC`].
pub const MAGIC_VALUE: u64 = 0x00;
/// R: [`MMIO_VERSION`].
pub const VERSION: u64 = 0x04;
/// R: device type.
pub const DEVICE_ID: u64 = 0x08;
/// R: [`VENDOR`].
pub const VENDOR_ID: u64 = 0x0c;
/// R: half of the offered features that [`DEVICE_FEATURES_SEL`] selects.
pub const DEVICE_FEATURES: u64 = 0x10;
/// W: 0 for feature bits 0 to 31, 1 for 32 to 63.
pub const DEVICE_FEATURES_SEL: u64 = 0x14;
/// W: half of the accepted features that [`DRIVER_FEATURES_SEL`] selects.
pub const DRIVER_FEATURES: u64 = 0x20;
/// W: 0 for feature bits 0 to 31, 1 for 32 to 63.
pub const DRIVER_FEATURES_SEL: u64 = 0x24;
/// W: the queue that the other queue registers speak about.
pub const QUEUE_SEL: u64 = 0x30;
/// R: largest size of the queue, 0 when there is no such queue.
pub const QUEUE_NUM_MAX: u64 = 0x34;
/// W: size of the queue.
pub const QUEUE_NUM: u64 = 0x38;
/// RW: 1 when the queue is configured.
pub const QUEUE_READY: u64 = 0x44;
/// W: index of a queue to kick.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// R: [`INTERRUPT_USED`] and [`INTERRUPT_CONFIG`].
pub const INTERRUPT_STATUS: u64 = 0x60;
/// W: bits of the interrupt status to clear.
pub const INTERRUPT_ACK: u64 = 0x64;
/// RW: device status; 0 resets the device.
pub const STATUS: u64 = 0x70;
/// W: descriptor table, low half.
pub const QUEUE_DESC_LOW: u64 = 0x80;
/// W: descriptor table, high half.
pub const QUEUE_DESC_HIGH: u64 = 0x84;
/// W: available ring, low half.
pub const QUEUE_DRIVER_LOW: u64 = 0x90;
/// W: available ring, high half.
pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
/// W: used ring, low half.
pub const QUEUE_DEVICE_LOW: u64 = 0xa0;
/// W: used ring, high half.
pub const QUEUE_DEVICE_HIGH: u64 = 0xa4;
/// W: shared memory region that the next four registers speak about.
pub const SHM_SEL: u64 = 0xac;
/// R: length of the region, low half; all ones when there is none.
pub const SHM_LEN_LOW: u64 = 0xb0;
/// R: length of the region, high half.
pub const SHM_LEN_HIGH: u64 = 0xb4;
/// R: address of the region, low half.
pub const SHM_BASE_LOW: u64 = 0xb8;
/// R: address of the region, high half.
pub const SHM_BASE_HIGH: u64 = 0xbc;
/// RW: resets one queue; reads 0, as `VIRTIO_F_RING_RESET` is not offered.
pub const QUEUE_RESET: u64 = 0xc0;
/// R: changes whenever the configuration space does.
pub const CONFIG_GENERATION: u64 = 0xfc;
/// Start of the device's own configuration space.
pub const CONFIG: u64 = 0x100;
/// Bytes of one device's register page, configuration space included.
pub const PAGE_BYTES: u64 = 0x1000;
/// Bytes of the configuration space.
pub const CONFIG_BYTES: usize = 0xf00;

/// "virt" in little endian.
pub const MAGIC: u32 = 0x7472_6976;
/// The modern register layout.
pub const MMIO_VERSION: u32 = 2;
/// "slot" in little endian; drivers do not care.
pub const VENDOR: u32 = 0x746f_6c73;

/// Interrupt status: descriptors were used.
pub const INTERRUPT_USED: u32 = 1;
/// Interrupt status: the configuration or the device status changed.
pub const INTERRUPT_CONFIG: u32 = 2;
