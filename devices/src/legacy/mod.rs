//! The few parts of an old PC that guests still want: a serial port, a way to reset and to power
//! off, and an I/O APIC. No virtio here, and nothing that a driver has to probe for.

pub mod i8042;
pub mod ioapic;
pub mod power;
pub mod serial;
