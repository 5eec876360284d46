//! The unsafe edges of a vCPU thread: the shared run page, and the signal that interrupts it.
#![expect(
    unsafe_code,
    reason = "KVM's run page and thread signals have no safe interface"
)]

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::AtomicU8;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The `immediate_exit` byte of a vCPU's run page.
pub(super) struct ImmediateExit(NonNull<AtomicU8>);

impl ImmediateExit {
    /// The byte of `vcpu`. The caller gives it to a [`Kicker`](super::kick::Kicker) and disarms
    /// that before it drops `vcpu`.
    pub(super) fn of(vcpu: &mut VcpuFd) -> Self {
        let byte = NonNull::from(&mut vcpu.get_kvm_run().immediate_exit);
        Self(byte.cast())
    }
}

impl Deref for ImmediateExit {
    type Target = AtomicU8;

    fn deref(&self) -> &AtomicU8 {
        // SAFETY: the byte lies in the run page that `VcpuFd` maps; the vCPU's thread owns the
        // `VcpuFd` and disarms the kicker, the only holder of this value, before it drops it.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: the byte is only accessed atomically, on our side here and by KVM as a single load.
unsafe impl Send for ImmediateExit {}

extern "C" fn interrupted(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Installs the handler of the kick signal, once per process. It does nothing: the signal's only
/// effect is that `KVM_RUN` returns.
pub(super) fn install_kick_signal() -> io::Result<()> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), interrupted).map_err(io::Error::from);
    });
    result
}

/// The calling thread.
pub(super) fn this_thread() -> libc::pthread_t {
    // SAFETY: has no precondition.
    unsafe { libc::pthread_self() }
}

/// Sends the kick signal to `thread`.
pub(super) fn signal_thread(thread: libc::pthread_t) {
    // SAFETY: `thread` is alive: it disarms its kicker, under the lock our caller holds, before
    // it ends. The handler is installed before any vCPU thread starts.
    unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
}

/// The suberror KVM left in the run page after `KVM_EXIT_INTERNAL_ERROR`.
pub(super) fn internal_error(vcpu: &mut VcpuFd) -> u32 {
    // SAFETY: KVM fills the `internal` member for exactly this exit reason, and every bit pattern
    // is a valid integer.
    unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror }
}
