//! The x86_64 machine: hardware-reduced ACPI, split irqchip, 64-bit entry.

pub mod acpi;
pub mod cpuid;
pub mod irqchip;
pub mod layout;
pub mod msrs;
pub mod ports;
pub mod regs;
pub mod smbios;
