//! A machine that runs, and what can be done to it.

use std::sync::Arc;

use devices::device::DeviceId;
use devices::disk::RawDisk;
use vmm_sys_util::eventfd::EventFd;

use crate::api::{DeviceInfo, RequestError, VmInfo};
use crate::console::Console;
use crate::lifecycle::{TransitionError, VmState};
use crate::machine::{Attached, Machine};
use crate::phases::{Phase, Phases};
use crate::readiness::ReadinessInfo;
use crate::snapshot::{SnapshotInfo, SnapshotRefusal};
use crate::vcpu::VcpuThreads;
use crate::vm::lock;

/// A machine with its threads. Owned by the control thread.
pub(crate) struct Running {
    pub(crate) slot: String,
    pub(crate) memory_mib: u64,
    pub(crate) vcpu_count: u8,
    /// The guest's address on its socket device.
    pub(crate) cid: Option<u32>,
    pub(crate) state: VmState,
    /// Whether the guest's kernel reported a panic.
    pub(crate) panicked: bool,
    pub(crate) vcpus: VcpuThreads,
    pub(crate) machine: Machine,
    pub(crate) console: Console,
    /// None without ACPI.
    pub(crate) power_button: Option<EventFd>,
    pub(crate) phases: Arc<Phases>,
}

impl Running {
    /// Lets the vCPUs go for the first time.
    pub(crate) fn start(&mut self) -> Result<(), TransitionError> {
        self.state.transition(VmState::Booting)?;
        self.vcpus.resume();
        self.state.transition(VmState::Running)
    }

    /// Takes the vCPUs out of the guest, then drains every device: only vCPUs make new work. When
    /// a device does not stop, everything is let go again.
    pub(crate) fn pause(&mut self) -> Result<(), RequestError> {
        self.state.transition(VmState::Pausing)?;
        self.vcpus.pause();
        if let Err(error) = self.stop_devices() {
            self.resume_devices();
            self.vcpus.resume();
            self.state.transition(VmState::Running)?;
            return Err(error);
        }
        Ok(self.state.transition(VmState::Paused)?)
    }

    /// Lets devices go on, then vCPUs: the first access of a vCPU must find its device running.
    pub(crate) fn resume(&mut self) -> Result<(), TransitionError> {
        self.state.transition(VmState::Resuming)?;
        self.resume_devices();
        self.vcpus.resume();
        self.state.transition(VmState::Running)
    }

    /// Takes the vCPUs out of the guest and leaves the devices alone: they complete what they have,
    /// and get nothing new to do.
    pub(crate) fn halt(&mut self) -> Result<(), TransitionError> {
        self.state.transition(VmState::Pausing)?;
        self.vcpus.pause();
        self.state.transition(VmState::Paused)
    }

    /// Lets vCPUs go on after [`halt`](Self::halt).
    pub(crate) fn go_on(&mut self) -> Result<(), TransitionError> {
        self.state.transition(VmState::Resuming)?;
        self.vcpus.resume();
        self.state.transition(VmState::Running)
    }

    /// The image of a disk.
    pub(crate) fn image(&self, disk: &str) -> Result<Arc<RawDisk>, SnapshotRefusal> {
        let images = &self.machine.images;
        let found = images.iter().find(|(id, _)| id.as_str() == disk);
        let image = found.map(|(_, image)| Arc::clone(image));
        image.ok_or_else(|| SnapshotRefusal::NoDisk {
            disk: disk.to_owned(),
            known: images
                .keys()
                .map(DeviceId::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Presses the power button; a paused machine is resumed first, or it could not react.
    pub(crate) fn press_power_button(&mut self) -> Result<(), RequestError> {
        if self.power_button.is_none() {
            return Err(RequestError::NoPowerButton);
        }
        if self.state == VmState::Paused {
            self.resume()?;
        }
        if self.state != VmState::Stopping {
            self.state.transition(VmState::Stopping)?;
        }
        if let Some(button) = &self.power_button {
            // The write only fails when the counter is full, and then a press is pending already.
            let _ = button.write(1);
        }
        Ok(())
    }

    /// Finds out whether every vCPU has answered the last question, and asks the next one. A paused
    /// machine is responsive.
    ///
    /// # Errors
    /// With the vCPU that has not answered.
    pub(crate) fn pulse(&self) -> Result<(), usize> {
        if self.state == VmState::Paused {
            return Ok(());
        }
        match self.vcpus.silent() {
            Some(vcpu) => Err(vcpu),
            None => {
                self.vcpus.probe();
                Ok(())
            }
        }
    }

    /// Ends everything: vCPUs, then devices with all their I/O, then the console.
    pub(crate) fn finish(mut self, state: VmState) {
        // When someone else ended it than itself.
        self.phases.stamp(Phase::GuestEnded);
        drop(self.vcpus.stop());
        for device in &self.machine.attached {
            if let Err(error) = lock(&device.transport).stop() {
                tracing::error!(device = %device.id, error = &error as &dyn std::error::Error, "device did not stop");
            }
        }
        self.console.finish();
        self.phases.stamp(Phase::MachineStopped);
        // Every state but `Stopped` leads to both ends.
        let _ = self.state.transition(state);
    }

    pub(crate) fn info(&self, readiness: ReadinessInfo, snapshot: Option<SnapshotInfo>) -> VmInfo {
        VmInfo {
            slot: self.slot.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: self.state,
            panicked: self.panicked,
            vcpus: self.vcpu_count,
            memory_mib: self.memory_mib,
            cid: self.cid,
            readiness,
            snapshot,
            devices: self.machine.attached.iter().map(device_info).collect(),
            uptime_ms: u64::try_from(self.phases.elapsed().as_millis()).unwrap_or(u64::MAX),
            phases: self.phases.stamps(),
        }
    }

    fn stop_devices(&self) -> Result<(), RequestError> {
        self.machine
            .attached
            .iter()
            .try_for_each(|Attached { id, transport, .. }| {
                lock(transport)
                    .stop()
                    .map_err(|error| RequestError::Device {
                        id: id.to_string(),
                        action: "stop",
                        reason: error.to_string(),
                    })
            })
    }

    /// A device that does not start again has asked its driver for a reset; the machine runs on.
    fn resume_devices(&self) {
        for Attached { id, transport, .. } in &self.machine.attached {
            if let Err(error) = lock(transport).resume() {
                tracing::error!(device = %id, error = &error as &dyn std::error::Error, "device did not resume");
            }
        }
    }
}

fn device_info(device: &Attached) -> DeviceInfo {
    let transport = lock(&device.transport);
    DeviceInfo {
        id: device.id.to_string(),
        kind: transport.device().spec().kind.name().to_owned(),
        needs_reset: transport.needs_reset(),
    }
}
