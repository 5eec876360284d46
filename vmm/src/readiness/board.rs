//! Where reports arrive.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devices::notify::{Listener, Report};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::state::{Criterion, Readiness, ReadinessInfo, ReadyState};
use crate::phases::{Phase, Phases};
use crate::vm::lock;

/// The guest's readiness, shared by those who report and the control loop that acts. However fast
/// a guest reports, what waits here is one state and one wake-up.
#[derive(Debug)]
pub struct Board {
    state: Mutex<Readiness>,
    changed: EventFd,
    phases: Arc<Phases>,
    console: Option<Vec<u8>>,
}

impl Board {
    /// A board for a guest that has yet to boot.
    ///
    /// # Errors
    /// When the host has no descriptor to spare.
    pub fn new(
        criterion: Criterion,
        timeout: Option<Duration>,
        phases: Arc<Phases>,
    ) -> io::Result<Self> {
        let console = match &criterion {
            Criterion::Console(text) => Some(text.clone().into_bytes()),
            _ => None,
        };
        Ok(Self {
            state: Mutex::new(Readiness::new(criterion, timeout)),
            changed: EventFd::new(EFD_NONBLOCK)?,
            phases,
            console,
        })
    }

    /// The criterion is met: says the console, or a probe.
    pub fn met(&self) {
        self.change(Readiness::met);
    }

    /// What is known now, for people.
    pub fn info(&self) -> ReadinessInfo {
        self.look().info()
    }

    /// What the console is to be watched for.
    pub(crate) fn console_text(&self) -> Option<Vec<u8>> {
        self.console.clone()
    }

    /// Fires after every change.
    pub(crate) fn changed(&self) -> &EventFd {
        &self.changed
    }

    /// What is known now.
    pub(crate) fn look(&self) -> Readiness {
        lock(&self.state).clone()
    }

    /// The guest's time is over.
    pub(crate) fn time_out(&self) {
        self.change(Readiness::time_out);
    }

    fn change(&self, change: impl FnOnce(&mut Readiness)) {
        let mut state = lock(&self.state);
        change(&mut state);
        // Here and not where it is acted upon, so that a stamp is not late.
        if state.has_reported() {
            self.phases.stamp(Phase::Init);
        }
        if state.state() == ReadyState::Ready {
            self.phases.stamp(Phase::Ready);
        }
        drop(state);
        // Fails only when the counter is full, and then the receiver is awake already.
        let _ = self.changed.write(1);
    }
}

impl Listener for Board {
    fn hear(&self, report: Report) {
        if matches!(&report, Report::Active(target) if target.as_str() == "sysinit.target") {
            self.phases.stamp(Phase::Sysinit);
        }
        self.change(|state| state.hear(report));
    }
}
