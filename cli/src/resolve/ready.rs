//! When a slot's guest is ready.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde::Serialize;

use super::{Nic, Vsock};
use crate::config::{Goal, LoadedSlot, Problem, When};
use hostnet::slot::SlotNet;

/// What a guest has to reach when the file names nothing.
const DEFAULT_TARGET: &str = "multi-user.target";

/// Seconds that a guest may take when the file says nothing.
const DEFAULT_TIMEOUT: u32 = 300;

/// When a slot's guest is ready, and how long it may take.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ready {
    /// What counts.
    pub(crate) when: ReadyWhen,
    /// Seconds that it may take while a service manager waits.
    pub(crate) timeout: u32,
}

/// What counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReadyWhen {
    /// The guest's systemd says so, with this target reached; any, without one.
    Notify(Option<String>),
    /// This address takes connections.
    Tcp(SocketAddrV4),
    /// The console shows this.
    Console(String),
    /// It runs.
    None,
}

impl Ready {
    /// How long the guest may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

impl std::fmt::Display for ReadyWhen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Notify(Some(target)) => write!(f, "its systemd reports {target}"),
            Self::Notify(None) => f.write_str("its systemd reports READY=1"),
            Self::Tcp(address) => write!(f, "{address} takes connections"),
            Self::Console(text) => write!(f, "its console shows {text:?}"),
            Self::None => f.write_str("it runs"),
        }
    }
}

/// Resolves `[ready]`.
pub(super) fn resolve(
    loaded: &LoadedSlot,
    (net, nics): (&SlotNet, &[Nic]),
    vsock: Option<&Vsock>,
    problems: &mut Vec<Problem>,
) -> Ready {
    let file = &loaded.file.ready;
    let set = file.when.as_ref();
    let default = match vsock {
        Some(_) => When::Notify,
        None => When::None,
    };
    let when = set.map_or(default, |set| set.value.clone());
    if let Some(set) = set {
        if when == When::Notify && vsock.is_none() {
            problems.push(set.problem(
                "the guest reports through its socket device, and `vsock.enabled` is false: remove \
                 that, or wait for \"tcp:22\" or a text on the console",
            ));
        }
        if matches!(when, When::Tcp(_)) && nics.is_empty() {
            problems.push(set.problem("the slot has no network card to connect through"));
        }
    }
    if let Some(target) = &file.target
        && when != When::Notify
    {
        problems.push(target.problem("a target counts only with `when = \"notify\"`: remove it"));
    }
    let when = match when {
        When::Notify => ReadyWhen::Notify(match file.target.as_ref().map(|set| &set.value) {
            None => Some(DEFAULT_TARGET.to_owned()),
            Some(Goal::Target(target)) => Some(target.to_string()),
            Some(Goal::Any) => None,
        }),
        When::Tcp(port) => ReadyWhen::Tcp(SocketAddrV4::new(net.guest(), port.get())),
        When::Console(text) => ReadyWhen::Console(text),
        When::None => ReadyWhen::None,
    };
    let timeout = file.timeout.as_ref();
    Ready {
        when,
        // The schema admits a day at most.
        timeout: timeout.map_or(DEFAULT_TIMEOUT, |set| {
            u32::try_from(set.value.0).unwrap_or(DEFAULT_TIMEOUT)
        }),
    }
}
