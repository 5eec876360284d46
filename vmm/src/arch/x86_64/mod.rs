//! The x86_64 machine: hardware-reduced ACPI or an MP table, split irqchip, 64-bit entry.

pub mod acpi;
pub mod cpuid;
pub mod irqchip;
pub mod layout;
pub mod mptable;
pub mod msrs;
pub mod ports;
pub mod regs;
pub mod smbios;
