//! Serving the exits of one vCPU.

use kvm_ioctls::{VcpuExit, VcpuFd};

use super::sys;
use crate::events::Event;
use crate::machine::bus::Buses;

/// What the vCPU's thread does next.
pub(super) enum Next {
    /// Enter the guest again.
    Enter,
    /// `KVM_RUN` was interrupted: nothing is half done, so a request can be obeyed.
    Interrupted,
    /// The guest touched memory of a window that the host does not have.
    Missing,
    /// The vCPU is at its end; the control thread hears why.
    End(Event),
}

/// Enters the guest once and serves what made it leave.
pub(super) fn enter(index: u8, vcpu: &mut VcpuFd, buses: &Buses) -> Next {
    match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data)) => buses.pio.write(u64::from(port), data),
        Ok(VcpuExit::IoIn(port, data)) => buses.pio.read(u64::from(port), data),
        Ok(VcpuExit::MmioWrite(address, data)) => buses.mmio.write(address, data),
        Ok(VcpuExit::MmioRead(address, data)) => buses.mmio.read(address, data),
        Ok(VcpuExit::IoapicEoi(vector)) => buses.end_of_interrupt(vector),
        Ok(VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => {}
        Ok(VcpuExit::Intr) => return Next::Interrupted,
        Ok(VcpuExit::Shutdown) => return Next::End(Event::TripleFault { vcpu: index }),
        Ok(VcpuExit::InternalError) => {
            let suberror = sys::internal_error(vcpu);
            return failed(index, format!("KVM internal error, suberror {suberror}"));
        }
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            return failed(
                index,
                format!("the processor refused entry on CPU {cpu}, reason {reason:#x}"),
            );
        }
        Ok(exit) => return failed(index, format!("unexpected exit {exit:?}")),
        Err(error) => match error.errno() {
            // A waiting vCPU returns EAGAIN once when its start-up interrupt arrives.
            libc::EINTR | libc::EAGAIN => return Next::Interrupted,
            libc::EFAULT if !buses.windows.is_empty() => return Next::Missing,
            _ => return failed(index, format!("KVM_RUN: {error}")),
        },
    }
    Next::Enter
}

pub(super) fn failed(vcpu: u8, reason: String) -> Next {
    Next::End(Event::VcpuFailed { vcpu, reason })
}
