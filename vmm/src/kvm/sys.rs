//! The unsafe calls behind opening KVM.
#![expect(
    unsafe_code,
    reason = "KVM memory slots and CPUID have no safe interface"
)]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

const VMX: u32 = 1 << 5;
const SVM: u32 = 1 << 2;

/// Whether the processor has VMX or SVM.
#[cfg(target_arch = "x86_64")]
pub(super) fn cpu_virtualises() -> bool {
    use std::arch::x86_64::__cpuid;
    #[allow(unused_unsafe, reason = "newer toolchains make the intrinsic safe")]
    // SAFETY: every x86_64 processor has the CPUID instruction.
    let (vmx, extended) = unsafe { (__cpuid(1).ecx & VMX, __cpuid(0x8000_0000).eax) };
    if vmx != 0 || extended < 0x8000_0001 {
        return vmx != 0;
    }
    #[allow(unused_unsafe, reason = "newer toolchains make the intrinsic safe")]
    // SAFETY: as above; the leaf exists.
    let leaf = unsafe { __cpuid(0x8000_0001) };
    leaf.ecx & SVM != 0
}

/// Adds a memory slot.
pub(super) fn set_memory_region(
    vm: &VmFd,
    region: kvm_userspace_memory_region,
) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the range lies in one mapping, of guest memory or of register pages, whose owners
    // (`Machine` and the transports in it) keep it mapped for as long as a vCPU can run: `Running`
    // ends the vCPUs' threads before it drops its machine.
    unsafe { vm.set_user_memory_region(region) }
}
