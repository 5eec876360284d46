//! Everything that depends on the processor architecture, one folder per architecture.
//!
//! The rest of the crate uses these names only: `layout` (the guest-physical memory map), `cpuid`,
//! `msrs` and `regs` (a vCPU's first state), `irqchip`, `acpi` and `smbios` (what firmware would
//! have left in memory).

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!(
    "slotvmm runs on x86_64 hosts; other architectures need a folder under vmm/src/arch"
);
