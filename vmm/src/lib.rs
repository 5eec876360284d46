//! The virtual machine of slotvmm: KVM, memory, vCPUs, boot, lifecycle and control.
//!
//! Start reading at [`vm`]: a boot is one page there.

#![deny(unsafe_code)]

pub mod arch;
pub mod boot;
pub mod config;
pub mod memory;
