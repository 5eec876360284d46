//! When a guest is ready, and who is told.
//!
//! - [`Readiness`] is the state machine: what the guest reported, and what follows from it. Pure.
//! - [`Board`] is where reports arrive, from the device's thread, the console or a probe.
//! - [`Supervisor`] is whoever started this process and waits: systemd, behind sd_notify(3).
//! - `Watch` belongs to the control loop: it turns changes and the clock into notices.
//!
//! Not for how reports get here (`devices::notify`) nor for how notices leave (`cli`).

mod board;
mod state;
mod supervisor;
mod watch;

#[cfg(test)]
mod tests;

pub use board::Board;
pub use state::{Criterion, Readiness, ReadinessInfo, ReadyState, TargetGoal};
pub use supervisor::{Notice, Supervision, Supervisor};
pub(crate) use watch::{Step, Watch};
