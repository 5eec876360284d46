//! Address spaces of the machine: which device answers where.

use std::sync::{Arc, Mutex, PoisonError};

use devices::bus::BusDevice;
use devices::fs::window::Window;
use devices::legacy::ioapic::IoApic;

/// A device as a bus holds it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Why a device was not put on a bus.
#[derive(Debug, thiserror::Error)]
#[error("Range {start:#x}-{end:#x} overlaps the range at {other:#x}")]
pub struct BusError {
    start: u64,
    end: u64,
    other: u64,
}

/// One address space. Filled before the guest runs, then only read.
#[derive(Default)]
pub struct Bus {
    ranges: Vec<Range>,
}

struct Range {
    start: u64,
    length: u64,
    device: SharedDevice,
}

impl Bus {
    /// Puts `device` at `start` for `length` addresses.
    ///
    /// # Errors
    /// When the range overlaps another one.
    pub fn insert(
        &mut self,
        start: u64,
        length: u64,
        device: SharedDevice,
    ) -> Result<(), BusError> {
        let end = start.saturating_add(length);
        let at = self.ranges.partition_point(|range| range.start < start);
        let before = at.checked_sub(1).and_then(|at| self.ranges.get(at));
        let clash = before
            .filter(|range| range.start + range.length > start)
            .or_else(|| self.ranges.get(at).filter(|range| range.start < end));
        if let Some(other) = clash {
            return Err(BusError {
                start,
                end,
                other: other.start,
            });
        }
        self.ranges.insert(
            at,
            Range {
                start,
                length,
                device,
            },
        );
        Ok(())
    }

    /// Serves a read; where no device is, all bits read as one.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((range, offset)) => lock(&range.device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Serves a write; where no device is, it is dropped.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((range, offset)) = self.find(address) {
            lock(&range.device).write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&Range, u64)> {
        let at = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges.get(at.checked_sub(1)?)?;
        let offset = address - range.start;
        (offset < range.length).then_some((range, offset))
    }
}

/// A device whose last access panicked is still there: the guest must not be able to take the
/// machine down by one device.
fn lock<T: ?Sized>(device: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both address spaces, and the I/O APIC's third way in.
pub struct Buses {
    /// Memory-mapped registers.
    pub mmio: Bus,
    /// Ports.
    pub pio: Bus,
    /// The I/O APIC, told of level-triggered interrupts that a local APIC has ended.
    pub ioapic: Arc<Mutex<IoApic>>,
    /// Where files of the host are mapped, which can become shorter under the guest.
    pub windows: Vec<Arc<Window>>,
}

impl Buses {
    /// A local APIC ended the level-triggered interrupt `vector`.
    pub fn end_of_interrupt(&self, vector: u8) {
        lock(&self.ioapic).eoi(vector);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + u8::try_from(offset).unwrap());
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    fn bus() -> Bus {
        let mut bus = Bus::default();
        bus.insert(0x20, 8, Arc::new(Mutex::new(Echo(2)))).unwrap();
        bus.insert(0x10, 8, Arc::new(Mutex::new(Echo(1)))).unwrap();
        bus
    }

    #[test]
    fn access_reaches_the_device_with_its_offset() {
        let mut byte = [0];
        bus().read(0x13, &mut byte);
        assert_eq!(byte, [4]);
        bus().read(0x27, &mut byte);
        assert_eq!(byte, [9]);
    }

    #[test]
    fn holes_read_as_ones() {
        for address in [0, 0xf, 0x18, 0x1f, 0x28, u64::MAX] {
            let mut bytes = [0; 4];
            bus().read(address, &mut bytes);
            assert_eq!(bytes, [0xff; 4]);
            bus().write(address, &bytes);
        }
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        for (start, length) in [(0x0, 0x11), (0x17, 1), (0x12, 2), (0x1f, 2), (0x0, 0x100)] {
            let error = bus()
                .insert(start, length, Arc::new(Mutex::new(Echo(0))))
                .unwrap_err();
            assert!(error.to_string().contains("overlaps"));
        }
    }
}
