//! The host's KVM: opening it, checking what it can do, creating a machine in it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::arch;
use crate::signals;
use devices::device::Memory;

mod sys;

/// Number of KVM's first memory slot of register pages; those of RAM are below.
const FIRST_PAGES_SLOT: u32 = 16;

/// Number of KVM's first memory slot of a share's window.
const FIRST_WINDOW_SLOT: u32 = 32;

/// KVM's API version; stable since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Why the host cannot run a machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no KVM device.
    #[error(
        "/dev/kvm does not exist; load kvm_intel or kvm_amd, and enable virtualisation in the firmware set-up"
    )]
    Absent(#[source] io::Error),
    /// The device may not be opened.
    #[error(
        "/dev/kvm may not be opened by this user; add it to the group that owns /dev/kvm (usually kvm)"
    )]
    Denied(#[source] io::Error),
    /// The device does not open.
    #[error("Failed to open /dev/kvm")]
    Open(#[source] io::Error),
    /// Something else has the device's name.
    #[error("/dev/kvm is not KVM's device; remove what was put in its place")]
    Foreign(#[source] io::Error),
    /// Not a KVM that this program knows.
    #[error("KVM API version is {found}, expected {API_VERSION}")]
    Version {
        /// Version found.
        found: i32,
    },
    /// The kernel is too old or built without something.
    #[error("KVM lacks {capability:?}; use Linux 4.12 or newer")]
    Lacks {
        /// What is missing.
        capability: Cap,
    },
    /// KVM works, but without hardware virtualisation: a distribution kernel would run for hours.
    #[error(
        "This host's processor offers no hardware virtualisation (neither vmx nor svm), so its /dev/kvm cannot run \
         a distribution kernel; use a machine with it, or enable nested virtualisation around this one"
    )]
    NoHardware,
    /// The thread that opens KVM panicked: a mistake in slotvmm.
    #[error("Opening KVM panicked")]
    Panicked,
    /// An operation on KVM failed.
    #[error("KVM: failed to {action}")]
    Operation {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

impl KvmError {
    /// For `map_err`: names the failed action.
    pub(crate) fn on(action: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Operation { action, source }
    }
}

/// Which hosts are good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// Only hosts whose processor virtualises.
    #[default]
    Hardware,
    /// Any host whose KVM answers: guest kernels may be emulated instruction by instruction.
    /// Enough for tiny test guests.
    Any,
}

/// Opens `/dev/kvm` and checks it.
///
/// # Errors
/// When it is absent, closed to this user, too old, or barred by `policy`.
pub fn open(policy: HostPolicy) -> Result<Kvm, KvmError> {
    if policy == HostPolicy::Hardware && !sys::cpu_virtualises() {
        return Err(KvmError::NoHardware);
    }
    let kvm = Kvm::new().map_err(|error| {
        let source = io::Error::from_raw_os_error(error.errno());
        match source.kind() {
            io::ErrorKind::NotFound => KvmError::Absent(source),
            io::ErrorKind::PermissionDenied => KvmError::Denied(source),
            _ => KvmError::Open(source),
        }
    })?;
    let found = kvm.get_api_version();
    if found < 0 {
        return Err(KvmError::Foreign(io::Error::last_os_error()));
    }
    if found != API_VERSION {
        return Err(KvmError::Version { found });
    }
    for capability in arch::irqchip::REQUIRED
        .into_iter()
        .chain([Cap::ImmediateExit, Cap::UserMemory])
    {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Lacks { capability });
        }
    }
    Ok(kvm)
}

/// Whether this processor offers hardware virtualisation.
pub fn hardware_virtualisation() -> bool {
    sys::cpu_virtualises()
}

/// KVM on its way: what does not depend on a machine's configuration is asked on a thread of its
/// own, while the configuration is still being read. Each answer is there as soon as KVM gave it,
/// because the second takes longer than the first and is needed much later.
pub struct Opening {
    vm: Receiver<Result<VmFd, KvmError>>,
    cpuid: Receiver<Result<CpuId, KvmError>>,
}

impl Opening {
    /// Starts to open KVM.
    ///
    /// # Errors
    /// When the host refuses a thread.
    pub fn start(policy: HostPolicy) -> io::Result<Self> {
        let (vm_sender, vm) = channel();
        let (cpuid_sender, cpuid) = channel();
        thread::Builder::new()
            .name("kvm".to_owned())
            .spawn(move || {
                // They are the control thread's, once there is one.
                let _ = signals::block_stop_signals();
                ask(policy, &vm_sender, &cpuid_sender);
            })?;
        Ok(Self { vm, cpuid })
    }

    /// Waits for the machine: nothing is in it.
    ///
    /// # Errors
    /// When KVM is absent, closed to this user, too old, barred by the policy, or refuses.
    pub(crate) fn vm(&self) -> Result<Arc<VmFd>, KvmError> {
        let vm = self.vm.recv().unwrap_or(Err(KvmError::Panicked))?;
        Ok(Arc::new(vm))
    }

    /// Waits for what KVM says its vCPUs can do.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(crate) fn cpuid(&self) -> Result<CpuId, KvmError> {
        self.cpuid.recv().unwrap_or(Err(KvmError::Panicked))
    }
}

/// Sends each answer when it is there. Nobody takes them when the boot has failed meanwhile.
fn ask(
    policy: HostPolicy,
    vm: &Sender<Result<VmFd, KvmError>>,
    cpuid: &Sender<Result<CpuId, KvmError>>,
) {
    let kvm = match open(policy) {
        Ok(kvm) => kvm,
        Err(error) => {
            let _ = vm.send(Err(error));
            return;
        }
    };
    let _ = vm.send(create_vm(&kvm));
    let leaves = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    let _ = cpuid.send(leaves.map_err(KvmError::on("read the supported CPUID leaves")));
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    loop {
        match kvm.create_vm() {
            // A signal that was pending; creating is safe to repeat.
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(KvmError::on("create a virtual machine")),
        }
    }
}

/// Gives `memory` to a machine. Before its irqchip is made: that order is three times faster.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn set_memory(vm: &VmFd, memory: &Memory) -> Result<(), KvmError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.get_mmap().as_ptr().addr() as u64,
        };
        sys::set_memory_region(vm, region)
            .map_err(KvmError::on("give guest RAM to the machine"))?;
    }
    Ok(())
}

/// Shows the guest the window of a share, as [`show_pages`] does. `number` tells it from others.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn show_window(
    vm: &VmFd,
    number: u32,
    address: u64,
    window: &Range<usize>,
) -> Result<(), kvm_ioctls::Error> {
    let number = number.saturating_add(FIRST_WINDOW_SLOT - FIRST_PAGES_SLOT);
    show_pages(vm, number, address, window)
}

/// Shows the guest whole pages of this process at `address`, to read. `number` tells them from others.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn show_pages(
    vm: &VmFd,
    number: u32,
    address: u64,
    pages: &Range<usize>,
) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot: FIRST_PAGES_SLOT.saturating_add(number),
        flags: KVM_MEM_READONLY,
        guest_phys_addr: address,
        memory_size: pages.len() as u64,
        userspace_addr: pages.start as u64,
    };
    sys::set_memory_region(vm, region)
}
