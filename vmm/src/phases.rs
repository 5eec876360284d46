//! When a boot reached what: stamps on `CLOCK_MONOTONIC`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point of a boot, in the order they are usually reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The process's first own instruction.
    Exec,
    /// Configuration read and checked, host resources open.
    Config,
    /// Guest RAM mapped.
    MemoryMapped,
    /// Kernel, initrd and parameters found; unpacked as well, when the cache did not have them.
    KernelFound,
    /// The machine exists in KVM, with its irqchip and vCPUs.
    VmCreated,
    /// Devices built and attached.
    DevicesAttached,
    /// Kernel and initrd are in guest memory.
    KernelLoaded,
    /// The boot vCPU enters the guest.
    VcpuRun,
    /// The guest's first byte on the serial console.
    FirstSerialByte,
    /// The kernel starts its init process: the console tells, or the init process itself does.
    Init,
    /// The guest's systemd has reached `sysinit.target`.
    Sysinit,
    /// The guest is ready.
    Ready,
    /// The guest wrote to a power or reset register, its last vCPU failed, or it was stopped hard.
    GuestEnded,
    /// No vCPU and no device runs any more, and everything the guest printed was passed on.
    MachineStopped,
}

impl Phase {
    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Config => "config",
            Self::MemoryMapped => "memory mapped",
            Self::KernelFound => "kernel found",
            Self::VmCreated => "vm created",
            Self::DevicesAttached => "devices attached",
            Self::KernelLoaded => "kernel loaded",
            Self::VcpuRun => "vcpu run",
            Self::FirstSerialByte => "first serial byte",
            Self::Init => "init",
            Self::Sysinit => "sysinit",
            Self::Ready => "ready",
            Self::GuestEnded => "guest ended",
            Self::MachineStopped => "machine stopped",
        }
    }
}

/// One stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// What was reached.
    pub phase: Phase,
    /// Microseconds since [`Phase::Exec`].
    pub at_us: u64,
}

/// The stamps of one boot. Each phase is stamped once; later stamps of it are ignored.
#[derive(Debug)]
pub struct Phases {
    start: Instant,
    stamps: Mutex<Vec<(Phase, Duration)>>,
}

impl Phases {
    /// Starts the clock at `start`, the [`Phase::Exec`] stamp.
    pub fn since(start: Instant) -> Self {
        Self {
            start,
            stamps: Mutex::new(vec![(Phase::Exec, Duration::ZERO)]),
        }
    }

    /// Stamps `phase` with the current time.
    pub fn stamp(&self, phase: Phase) {
        let at = self.start.elapsed();
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps.iter().all(|(known, _)| *known != phase) {
            stamps.push((phase, at));
        }
    }

    /// The stamps so far, in order of time.
    pub fn stamps(&self) -> Vec<Stamp> {
        let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stamps: Vec<Stamp> = stamps
            .iter()
            .map(|(phase, at)| Stamp {
                phase: *phase,
                at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            })
            .collect();
        stamps.sort_by_key(|stamp| stamp.at_us);
        stamps
    }

    /// Time since [`Phase::Exec`].
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_stamp_of_a_phase_stays() {
        let phases = Phases::since(Instant::now());
        phases.stamp(Phase::Init);
        let first = phases.stamps();
        phases.stamp(Phase::Init);
        assert_eq!(phases.stamps(), first);
        assert_eq!(first[0].phase, Phase::Exec);
        assert_eq!(first.len(), 2);
    }
}
