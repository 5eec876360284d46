//! What a guest has reported, and whether that makes it ready.

use std::fmt;
use std::time::Duration;

use devices::notify::{Report, Shutdown, Target};
use serde::{Deserialize, Serialize};

/// What counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Criterion {
    /// The guest runs. Nothing is waited for.
    Running,
    /// The guest's systemd says so: `READY=1`, and the target is reached.
    Notify(TargetGoal),
    /// The console shows this text.
    Console(String),
    /// Somebody else finds out and reports [`Report::Ready`]; the text says how, for people.
    Probe(String),
}

/// What has to be reached besides `READY=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetGoal {
    /// This target.
    Reached(Target),
    /// Any: systemd 254 and 255 name no targets.
    Any,
}

/// How far a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyState {
    /// On its way.
    Booting,
    /// The criterion is met.
    Ready,
    /// In `emergency.target` or `rescue.target`, where an administrator is wanted.
    Emergency,
    /// Not ready within the time it has.
    TimedOut,
    /// On its way out.
    Stopping,
}

impl fmt::Display for ReadyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Emergency => "emergency mode",
            Self::TimedOut => "not ready in time",
            Self::Stopping => "stopping",
        })
    }
}

/// What a machine says of its guest's readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessInfo {
    /// How far it is.
    pub state: ReadyState,
    /// The same in words: what `systemctl status` shows.
    pub status: String,
    /// The target it reached last, as far as it tells.
    pub target: Option<String>,
    /// What `systemctl exit` in the guest was given: it ends with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<u8>,
}

/// Everything that matters of what a guest reported. Bounded, however much that was.
#[derive(Debug, Clone)]
pub struct Readiness {
    criterion: Criterion,
    timeout: Option<Duration>,
    said_ready: bool,
    goal_reached: bool,
    /// The target that was reached last.
    target: Option<Target>,
    /// The target of emergency or rescue mode, while it is in it.
    emergency: Option<Target>,
    said: Option<String>,
    leaving: bool,
    shutdown: Option<Shutdown>,
    exit_status: Option<u8>,
    timed_out: bool,
}

impl Readiness {
    /// Nothing reported yet; `timeout` only words what is said when it has passed.
    pub fn new(criterion: Criterion, timeout: Option<Duration>) -> Self {
        let any = matches!(
            criterion,
            Criterion::Notify(TargetGoal::Any) | Criterion::Console(_) | Criterion::Probe(_)
        );
        Self {
            timeout,
            said_ready: criterion == Criterion::Running,
            goal_reached: any || criterion == Criterion::Running,
            criterion,
            target: None,
            emergency: None,
            said: None,
            leaving: false,
            shutdown: None,
            exit_status: None,
            timed_out: false,
        }
    }

    /// Takes a report of the guest's service manager.
    pub fn hear(&mut self, report: Report) {
        match report {
            Report::Ready => self.said_ready |= self.listens(),
            Report::Status(text) => self.said = Some(text),
            Report::Active(target) => self.active(target),
            Report::Inactive(target) => self.inactive(&target),
            Report::Shutdown(Shutdown::Kexec) => *self = self.anew(),
            Report::Shutdown(shutdown) => {
                self.shutdown = Some(shutdown);
                self.leave();
            }
            Report::ExitStatus(status) => self.exit_status = Some(status),
        }
    }

    /// The console shows what it was watched for, or a probe has found the guest ready.
    pub fn met(&mut self) {
        self.said_ready = true;
        self.goal_reached = true;
    }

    /// The time is over. Too late for a guest that is ready, or on its way out.
    pub fn time_out(&mut self) {
        if self.state() == ReadyState::Booting {
            self.timed_out = true;
        }
    }

    /// Another kernel starts in the same machine.
    fn anew(&self) -> Self {
        Self::new(self.criterion.clone(), self.timeout)
    }

    /// Whether what systemd says decides.
    fn listens(&self) -> bool {
        matches!(self.criterion, Criterion::Notify(_))
    }

    fn active(&mut self, target: Target) {
        match target.as_str() {
            "emergency.target" | "rescue.target" => self.emergency = Some(target.clone()),
            "shutdown.target" => self.leave(),
            _ => {}
        }
        if matches!(&self.criterion, Criterion::Notify(TargetGoal::Reached(goal)) if *goal == target)
        {
            self.goal_reached = true;
        }
        self.target = Some(target);
    }

    /// A guest that never got ready keeps the reason, to be read afterwards.
    fn leave(&mut self) {
        let failed = matches!(self.state(), ReadyState::Emergency | ReadyState::TimedOut);
        self.leaving |= !failed;
    }

    fn inactive(&mut self, target: &Target) {
        if self.emergency.as_ref() == Some(target) {
            self.emergency = None;
        }
        let goal = matches!(&self.criterion, Criterion::Notify(TargetGoal::Reached(goal)) if goal == target);
        // What was ready stays so, as far as a supervisor is concerned: it knows no way back.
        if goal && self.state() != ReadyState::Ready {
            self.goal_reached = false;
        }
    }

    /// How far the guest is.
    pub fn state(&self) -> ReadyState {
        if self.leaving {
            ReadyState::Stopping
        } else if self.emergency.is_some() {
            ReadyState::Emergency
        } else if self.said_ready && self.goal_reached {
            ReadyState::Ready
        } else if self.timed_out {
            ReadyState::TimedOut
        } else {
            ReadyState::Booting
        }
    }

    /// How far the guest is, in a line for people.
    pub fn status(&self) -> String {
        match self.state() {
            ReadyState::Booting => match &self.target {
                Some(target) => format!("booting: {target}"),
                None => "booting".to_owned(),
            },
            ReadyState::Ready => match &self.target {
                Some(target) if self.listens() => format!("ready: {target}"),
                _ => "ready".to_owned(),
            },
            ReadyState::Emergency => {
                let mode = self.emergency.as_ref().map_or("emergency", Target::as_str);
                format!("not ready: the guest is in {mode}, see its console")
            }
            ReadyState::TimedOut => self.late(),
            ReadyState::Stopping => match self.exit_status {
                Some(status) => format!("stopping with exit status {status}"),
                None => "stopping".to_owned(),
            },
        }
    }

    /// Why it is late, as far as can be told.
    fn late(&self) -> String {
        let seconds = self.timeout.unwrap_or_default().as_secs();
        let wanted = match &self.criterion {
            Criterion::Running => "to run".to_owned(),
            Criterion::Notify(TargetGoal::Reached(goal)) => format!("to reach {goal}"),
            Criterion::Notify(TargetGoal::Any) => "to say READY=1".to_owned(),
            Criterion::Console(text) => format!("to show {text:?} on its console"),
            Criterion::Probe(what) => what.clone(),
        };
        let why = match (&self.target, &self.said) {
            _ if !self.listens() => String::new(),
            (None, None) if !self.said_ready => {
                "; it reported nothing (systemd before 254 needs slotvmm-ready.service)".to_owned()
            }
            (None, _) if self.said_ready => "; it said READY=1 but names no targets (systemd 254 \
                and 255: set ready.target to \"any\")"
                .to_owned(),
            (Some(target), Some(said)) => format!("; it got to {target} and said: {said}"),
            (Some(target), None) => format!("; it got to {target}"),
            (None, Some(said)) => format!("; it said: {said}"),
            (None, None) => String::new(),
        };
        format!("not ready: the guest had {seconds} s {wanted}{why}")
    }

    /// What of this is shown to clients.
    pub fn info(&self) -> ReadinessInfo {
        ReadinessInfo {
            state: self.state(),
            status: self.status(),
            target: self.target.as_ref().map(ToString::to_string),
            exit_status: self.exit_status,
        }
    }

    /// How it is about to end, once it has said so.
    pub fn shutdown(&self) -> Option<Shutdown> {
        self.shutdown
    }

    /// Whether the guest's service manager has said anything.
    pub fn has_reported(&self) -> bool {
        self.target.is_some() || self.said.is_some() || (self.listens() && self.said_ready)
    }
}
