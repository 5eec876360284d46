//! The way to the backend, which outlives any one backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::OnExit;
use super::device::FsHost;
use super::window::Window;
use crate::device::DeviceId;
use crate::log_limit::LogLimit;
use crate::vhost_user::{Connect, Connection, SharedRegion, VhostUserError};

/// Deaths of backends within [`RESTART_WINDOW`] after which none is started any more: a guest that
/// found a way to crash it must not keep the host busy.
const MAX_RESTARTS: usize = 5;

const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// A device's backend, or where to get one.
pub(super) struct Link {
    id: DeviceId,
    connect: Box<dyn Connect>,
    window: Option<Arc<Window>>,
    on_exit: OnExit,
    /// The backend; none after it died.
    pub(super) connection: Option<Connection>,
    restarts: Vec<Instant>,
    deaths: LogLimit,
}

impl Link {
    /// Connects to the first backend.
    pub(super) fn open(
        id: DeviceId,
        host: FsHost,
        on_exit: OnExit,
    ) -> Result<Self, VhostUserError> {
        let FsHost {
            backend: mut connect,
            window,
        } = host;
        let connection = Connection::open(connect.as_mut(), region(&window))?;
        Ok(Self {
            id,
            connect,
            window,
            on_exit,
            connection: Some(connection),
            restarts: Vec::new(),
            deaths: LogLimit::new(),
        })
    }

    /// The backend; another one when the last one died.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, VhostUserError> {
        Ok(match self.connection.take().filter(Connection::is_alive) {
            Some(alive) => self.connection.insert(alive),
            None => {
                if let Some(window) = &self.window {
                    window.change_backend();
                }
                let region = region(&self.window);
                let opened = Connection::open(self.connect.as_mut(), region)?;
                self.connection.insert(opened)
            }
        })
    }

    /// Forgets a backend that is gone or of no use, and says why.
    pub(super) fn lost(&mut self, why: &(dyn std::error::Error + 'static)) {
        self.connection = None;
        if let Some(count) = self.deaths.next() {
            tracing::warn!(device = %self.id, count, error = why, "the backend of a share is lost");
        }
    }

    /// Whether another backend is to take over from one that died now.
    pub(super) fn may_restart(&mut self, now: Instant) -> bool {
        self.restarts
            .retain(|then| now.saturating_duration_since(*then) < RESTART_WINDOW);
        if self.on_exit == OnExit::Fail || self.restarts.len() >= MAX_RESTARTS {
            return false;
        }
        self.restarts.push(now);
        true
    }

    pub(super) fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Whether backends wait for kicks by reading them.
    pub(super) fn reads_wait(&self) -> bool {
        self.connect.reads_wait()
    }

    /// The window, unless there is none or the backend does not use it.
    pub(super) fn window(&self) -> Option<&Arc<Window>> {
        let maps = self.connection.as_ref().is_some_and(Connection::maps);
        self.window.as_ref().filter(|_| maps)
    }

    /// Whether anything is mapped that only a backend knew of which is gone.
    pub(super) fn has_lost_mappings(&self) -> bool {
        self.window
            .as_ref()
            .is_some_and(|window| window.has_mappings_of_others())
    }
}

fn region(window: &Option<Arc<Window>>) -> Option<Arc<dyn SharedRegion>> {
    let window = window.as_ref()?;
    Some(Arc::<Window>::clone(window))
}
