//! Model-specific registers a vCPU starts with (Intel SDM vol. 4).

use kvm_bindings::{Msrs, kvm_msr_entry};

const IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs enabled, memory write-back unless a range says otherwise.
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// The registers firmware would have set, for the boot vCPU and the others alike.
pub fn boot() -> Result<Msrs, vmm_sys_util::fam::Error> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    Msrs::from_entries(&[
        entry(IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ])
}
