//! What a vCPU says of itself: KVM's supported leaves, with the machine's topology and without
//! what would hurt (Intel SDM vol. 2A CPUID; AMD APM vol. 3 appendix E; kernel
//! `Documentation/virt/kvm/x86/cpuid.rst`).

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const LEAF1_ECX_MONITOR: u32 = 1 << 3;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const LEAF6_EAX_ARAT: u32 = 1 << 2;
const LEAF7_ECX_WAITPKG: u32 = 1 << 5;
const AMD1_ECX_CMP_LEGACY: u32 = 1 << 1;

const TOPOLOGY_SMT: u32 = 1 << 8;
const TOPOLOGY_CORE: u32 = 2 << 8;

/// Position of a vCPU in a package of `count` single-threaded cores.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// Index of the vCPU, and its APIC id.
    pub index: u8,
    /// vCPUs of the machine.
    pub count: u8,
}

impl Topology {
    /// Bits of the APIC id that number the cores of the package.
    fn core_bits(self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }
}

/// The leaves of one vCPU, made from what KVM supports.
pub fn for_vcpu(supported: &CpuId, topology: Topology) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .filter(|e| !matches!(e.function, 0xb | 0x1f))
        .copied()
        .collect();
    let extended_topology = supported.as_slice().iter().any(|e| e.function == 0xb);
    for entry in &mut entries {
        adjust(entry, topology);
    }
    if extended_topology {
        entries.extend(topology_leaf(0xb, topology));
        if supported.as_slice().iter().any(|e| e.function == 0x1f) {
            entries.extend(topology_leaf(0x1f, topology));
        }
    }
    CpuId::from_entries(&entries)
}

fn adjust(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    let (index, count) = (u32::from(topology.index), u32::from(topology.count));
    match entry.function {
        0x1 => {
            entry.ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
            entry.ecx &= !LEAF1_ECX_MONITOR;
            entry.ebx =
                (entry.ebx & 0x0000_ffff) | (index << 24) | ((1 << topology.core_bits()) << 16);
            set(&mut entry.edx, LEAF1_EDX_HTT, count > 1);
        }
        0x4 => share_cache(entry, topology),
        // MONITOR/MWAIT would let a guest hold a host processor while it idles.
        0x5 => clear(entry),
        // The local APIC timer does not stop in any idle state.
        0x6 => {
            clear(entry);
            entry.eax = LEAF6_EAX_ARAT;
        }
        0x7 if entry.index == 0 => entry.ecx &= !LEAF7_ECX_WAITPKG,
        // No performance counters: their state is large and the host's own profilers need them.
        0xa => clear(entry),
        0x8000_0001 => set(&mut entry.ecx, AMD1_ECX_CMP_LEGACY, count > 1),
        0x8000_0008 => entry.ecx = (topology.core_bits() << 12) | (count - 1),
        0x8000_001d => {
            let sharing = if cache_level(entry) == 3 { count } else { 1 };
            entry.eax = (entry.eax & !(0xfff << 14)) | ((sharing - 1) << 14);
        }
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Deterministic cache parameters (leaf 4): caches below level 3 are a core's own.
fn share_cache(entry: &mut kvm_cpuid_entry2, topology: Topology) {
    if entry.eax & 0x1f == 0 {
        return;
    }
    let cores = (1u32 << topology.core_bits()) - 1;
    let sharing = if cache_level(entry) == 3 { cores } else { 0 };
    entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (cores.min(0x3f) << 26);
}

fn cache_level(entry: &kvm_cpuid_entry2) -> u32 {
    (entry.eax >> 5) & 0x7
}

/// Extended topology enumeration (leaves 0xb and 0x1f): one thread per core, one package.
fn topology_leaf(function: u32, topology: Topology) -> [kvm_cpuid_entry2; 3] {
    let level = |index, shift, count, kind| kvm_cpuid_entry2 {
        function,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: index | kind,
        edx: u32::from(topology.index),
        ..Default::default()
    };
    [
        level(0, 0, 1, TOPOLOGY_SMT),
        level(
            1,
            topology.core_bits(),
            u32::from(topology.count),
            TOPOLOGY_CORE,
        ),
        level(2, 0, 0, 0),
    ]
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on {
        *register |= bit;
    } else {
        *register &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: 0x1c00_4121,
            ecx: LEAF1_ECX_MONITOR,
            ..Default::default()
        }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    fn vcpu(index: u8, count: u8) -> CpuId {
        let supported =
            CpuId::from_entries(&[leaf(1, 0), leaf(4, 0), leaf(0xb, 0), leaf(0x8000_0008, 0)])
                .unwrap();
        for_vcpu(&supported, Topology { index, count }).unwrap()
    }

    #[test]
    fn apic_id_and_counts_agree_for_odd_machines() {
        for (index, count, bits) in [(0, 1, 0), (1, 2, 1), (2, 3, 2), (5, 6, 3)] {
            let cpuid = vcpu(index, count);
            let one = find(&cpuid, 1, 0);
            assert_eq!(one.ebx >> 24, u32::from(index));
            assert_eq!((one.ebx >> 16) & 0xff, 1 << bits);
            assert_eq!(one.edx & LEAF1_EDX_HTT != 0, count > 1);
            let core = find(&cpuid, 0xb, 1);
            assert_eq!(
                (core.eax, core.ebx, core.edx),
                (bits, u32::from(count), u32::from(index))
            );
            assert_eq!(
                find(&cpuid, 0x8000_0008, 0).ecx,
                (bits << 12) | u32::from(count - 1)
            );
        }
    }

    #[test]
    fn timer_is_deadline_and_monitor_is_hidden() {
        let one = find(&vcpu(0, 1), 1, 0);
        assert_ne!(one.ecx & LEAF1_ECX_TSC_DEADLINE, 0);
        assert_ne!(one.ecx & LEAF1_ECX_HYPERVISOR, 0);
        assert_eq!(one.ecx & LEAF1_ECX_MONITOR, 0);
    }
}
