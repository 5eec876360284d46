//! vCPUs: one thread each, that enters the guest and serves its exits.
//!
//! ```text
//! Paused ──resume──▶ Running ──pause──▶ Paused … ──stop──▶ joined
//! ```
//!
//! A vCPU starts paused. Pausing finishes a half-done port or MMIO access first, so that the
//! registers of a paused vCPU are whole.

mod exits;
mod handle;
mod kick;
mod sys;

use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::{VcpuFd, VmFd};

use crate::arch::{cpuid, msrs, regs};
use crate::boot::Entry;
use crate::events::EventSender;
use crate::kvm::KvmError;
use crate::machine::bus::Buses;
use crate::phases::Phases;

pub use handle::{VcpuError, VcpuThreads};

/// A vCPU that no thread runs yet.
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
}

/// What a running vCPU reaches.
#[derive(Clone)]
pub struct Surroundings {
    /// MMIO and ports.
    pub buses: Arc<Buses>,
    /// The control thread.
    pub events: EventSender,
    /// Stamped when the first vCPU enters the guest.
    pub phases: Arc<Phases>,
}

impl Vcpu {
    /// Creates vCPU `index`, which is no particular processor yet.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn create(vm: &VmFd, index: u8) -> Result<Self, KvmError> {
        let fd = vm
            .create_vcpu(u64::from(index))
            .map_err(KvmError::on("create a vCPU"))?;
        Ok(Self { index, fd })
    }

    /// Gives it the CPUID leaves of its place among `count`, and the MSRs of a booting processor.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn describe(&self, supported: &CpuId, count: u8) -> Result<(), KvmError> {
        let (fd, index) = (&self.fd, self.index);
        let topology = cpuid::Topology { index, count };
        let leaves = cpuid::for_vcpu(supported, topology).map_err(|_| KvmError::Operation {
            action: "build the CPUID leaves",
            source: kvm_ioctls::Error::new(libc::ENOMEM),
        })?;
        fd.set_cpuid2(&leaves)
            .map_err(KvmError::on("set the CPUID leaves"))?;
        let msrs = msrs::boot().map_err(|_| KvmError::Operation {
            action: "build the list of MSRs",
            source: kvm_ioctls::Error::new(libc::ENOMEM),
        })?;
        let wanted = msrs.as_slice().len();
        // KVM stops at the first register it refuses and returns how many it took.
        let taken = fd.set_msrs(&msrs).map_err(KvmError::on("set the MSRs"))?;
        if taken != wanted {
            return Err(KvmError::Operation {
                action: "set every MSR of a vCPU",
                source: kvm_ioctls::Error::new(libc::EINVAL),
            });
        }
        Ok(())
    }

    /// Points the boot vCPU at the kernel; the others wait for its start-up interrupt.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn enter_at(&self, entry: &Entry) -> Result<(), KvmError> {
        let mut special = self
            .fd
            .get_sregs()
            .map_err(KvmError::on("read the segments"))?;
        regs::special(&mut special, entry);
        self.fd
            .set_sregs(&special)
            .map_err(KvmError::on("set the segments"))?;
        self.fd
            .set_regs(&regs::general(entry))
            .map_err(KvmError::on("set the registers"))
    }
}
