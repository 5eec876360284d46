//! The states of a machine and the steps between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a machine is doing.
///
/// ```text
/// Created ─▶ Booting ─▶ Running ─▶ Pausing ─▶ Paused ─▶ Resuming ─▶ Running …
///               │          │                    │
///               └──────────┴──▶ Stopping ◀──────┘ ─▶ Stopped
/// ```
///
/// `Failed` can follow every state but `Stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Built, nothing runs.
    Created,
    /// vCPUs are being let go for the first time.
    Booting,
    /// The guest runs.
    Running,
    /// vCPUs and devices are being stopped.
    Pausing,
    /// Nothing of the guest runs; no I/O is in flight.
    Paused,
    /// Devices and vCPUs are being let go again.
    Resuming,
    /// The guest was asked to power off.
    Stopping,
    /// The guest has ended.
    Stopped,
    /// The host cannot run the guest any further.
    Failed,
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// A step that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The machine is {from}{}", self.advice())]
pub struct TransitionError {
    /// State the machine is in.
    pub from: VmState,
    /// State that was asked for.
    pub to: VmState,
}

impl TransitionError {
    /// What the state means for what was asked.
    fn advice(&self) -> &'static str {
        match (self.from, self.to) {
            (VmState::Paused, VmState::Pausing) | (VmState::Running, VmState::Resuming) => {
                " already"
            }
            (VmState::Paused, _) => "; resume it first",
            (VmState::Created | VmState::Booting, _) => "; try again when it runs",
            (VmState::Stopping, _) => "; its guest is powering off",
            _ => "; nothing can be asked of it any more",
        }
    }
}

impl VmState {
    /// Moves to `to`.
    ///
    /// # Errors
    /// When there is no such step; the state stays as it is.
    pub fn transition(&mut self, to: VmState) -> Result<(), TransitionError> {
        use VmState::{
            Booting, Created, Failed, Paused, Pausing, Resuming, Running, Stopped, Stopping,
        };
        let legal = match (*self, to) {
            (Stopped, _) => false,
            (_, Failed | Stopped) => true,
            (Created, Booting)
            | (Booting, Running)
            | (Running, Pausing)
            | (Pausing, Paused)
            | (Paused, Resuming)
            | (Pausing | Resuming, Running)
            | (Booting | Running, Stopping) => true,
            _ => false,
        };
        if !legal {
            return Err(TransitionError { from: *self, to });
        }
        *self = to;
        Ok(())
    }
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest powered itself off.
    Poweroff,
    /// The guest asked for a reset, or the control socket did.
    Reboot,
    /// The guest's kernel panicked and then reset the machine.
    Panic,
    /// A vCPU ran into a triple fault.
    TripleFault,
    /// It was stopped without the guest's consent.
    Killed,
    /// Its guest was not ready in time, or ended up in emergency mode, while a supervisor waited.
    NotReady,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_and_resume_go_round() {
        let mut state = VmState::Created;
        for to in [
            VmState::Booting,
            VmState::Running,
            VmState::Pausing,
            VmState::Paused,
            VmState::Resuming,
            VmState::Running,
            VmState::Stopping,
            VmState::Stopped,
        ] {
            state.transition(to).unwrap();
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refused = |mut from: VmState, to| from.transition(to).unwrap_err().to_string();
        assert_eq!(
            refused(VmState::Paused, VmState::Pausing),
            "The machine is paused already"
        );
        assert_eq!(
            refused(VmState::Running, VmState::Resuming),
            "The machine is running already"
        );
        assert_eq!(
            refused(VmState::Stopping, VmState::Pausing),
            "The machine is stopping; its guest is powering off"
        );
    }

    #[test]
    fn illegal_steps_leave_the_state_alone() {
        for (from, to) in [
            (VmState::Created, VmState::Running),
            (VmState::Running, VmState::Paused),
            (VmState::Paused, VmState::Running),
            (VmState::Stopping, VmState::Pausing),
            (VmState::Stopped, VmState::Failed),
            (VmState::Stopped, VmState::Running),
        ] {
            let mut state = from;
            assert_eq!(state.transition(to), Err(TransitionError { from, to }));
            assert_eq!(state, from);
        }
    }
}
