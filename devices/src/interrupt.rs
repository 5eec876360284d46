//! How a device reaches its driver; the transport implements it.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// Interrupts towards the guest driver, and the report of a fault. Called from any thread.
pub trait Interrupt: Send + Sync {
    /// Tells the driver that `queue` has used descriptors. The caller has already asked the queue
    /// whether the driver wants to know (`Queue::needs_notification`).
    fn signal_queue(&self, queue: u16);

    /// Tells the driver that the configuration space changed. `space` is the whole of it, as
    /// [`read_config`](crate::device::VirtioDevice::read_config) gives it from now on.
    fn signal_config(&self, space: &[u8]);

    /// Sets `DEVICE_NEEDS_RESET` (virtio 1.2 §2.1.2) and tells the driver. The device leaves its
    /// queues alone from then on, until the driver resets it.
    fn needs_reset(&self);

    /// The interrupt line itself, for a kernel thread or another process that serves queues on
    /// the device's behalf: writing 1 to it is an interrupt.
    ///
    /// Whoever writes there cannot say why in the registers. From this call until the driver
    /// resets the device, the reason therefore always reads as "descriptors were used", and the
    /// driver looks at each of its queues. A device whose queues are all served here must not ask.
    ///
    /// # Errors
    /// When the host refuses a descriptor.
    fn external(&self) -> io::Result<EventFd>;
}
