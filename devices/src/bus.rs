//! What sits on the machine's MMIO and port buses.

/// A device whose registers the guest reads and writes. The bus serialises the calls.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes (1, 2, 4 or 8) at `offset` from the device's base.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` at `offset` from the device's base.
    fn write(&mut self, offset: u64, data: &[u8]);
}
