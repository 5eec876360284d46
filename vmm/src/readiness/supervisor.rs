//! Whoever started this process and wants to know how it goes.

use std::time::Duration;

/// What a supervisor is told: a few fields of sd_notify(3), and nothing that a guest could choose
/// but the names of its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The guest is ready.
    Ready,
    /// How far it is, for people.
    Status(String),
    /// There is progress: the start may take this much longer from now on.
    ExtendTimeout(Duration),
    /// Control loop and vCPUs are responsive.
    Watchdog,
    /// The guest is on its way out.
    Stopping,
}

/// Takes notices. Called on the control thread: must not block.
pub trait Supervisor: Send {
    /// Passes on what belongs together.
    fn notify(&mut self, notices: &[Notice]);
}

/// What the supervisor expects.
#[derive(Default)]
pub struct Supervision {
    /// Who is told; nobody without it.
    pub supervisor: Option<Box<dyn Supervisor>>,
    /// How often it wants to hear that the machine is responsive.
    pub watchdog: Option<Duration>,
    /// How long the guest may take to be ready.
    pub timeout: Option<Duration>,
}
