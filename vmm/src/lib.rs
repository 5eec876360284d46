//! The virtual machine of slotvmm: KVM, memory, vCPUs, boot, lifecycle and control.
//!
//! Start reading at [`vm`]: a boot is one page there.

#![deny(unsafe_code)]

pub mod api;
pub mod arch;
pub mod boot;
pub mod config;
pub mod console;
mod control;
pub mod events;
mod footprint;
pub mod kvm;
pub mod lifecycle;
pub mod machine;
pub mod memory;
pub mod phases;
pub mod readiness;
mod running;
mod signals;
pub mod snapshot;
pub mod validate;
pub mod vcpu;
pub mod vm;

pub use lifecycle::Outcome;
pub use vm::Vm;
