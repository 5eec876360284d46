//! When a slot's guest is ready, from the host's side: what is waited for, and who is told.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use vmm::phases::Phases;
use vmm::readiness::{Board, Criterion, Notice, Supervision, Supervisor, TargetGoal};

use crate::resolve::{Ready, ReadyWhen};

/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Between two attempts: a guest that refuses does so at once.
const BETWEEN: Duration = Duration::from_millis(100);

/// Where the guest of a slot that is `ready` on those terms is watched.
///
/// # Errors
/// When the host has no descriptor to spare.
pub(crate) fn board(ready: &Ready, phases: &Arc<Phases>) -> io::Result<Arc<Board>> {
    let criterion = match &ready.when {
        ReadyWhen::Notify(target) => {
            let target = target.as_ref().and_then(|target| target.parse().ok());
            Criterion::Notify(target.map_or(TargetGoal::Any, TargetGoal::Reached))
        }
        ReadyWhen::Tcp(address) => Criterion::Probe(format!("to take connections at {address}")),
        ReadyWhen::Console(text) => Criterion::Console(text.clone()),
        ReadyWhen::None => Criterion::Running,
    };
    Board::new(criterion, Some(ready.timeout()), Arc::clone(phases)).map(Arc::new)
}

/// Starts what has to look for itself: a thread that connects until the guest answers. It ends
/// with the process at the latest.
///
/// # Errors
/// When the host refuses a thread.
pub(crate) fn probe(ready: &Ready, board: &Arc<Board>) -> io::Result<()> {
    let ReadyWhen::Tcp(address) = ready.when else {
        return Ok(());
    };
    let board = Arc::clone(board);
    thread::Builder::new()
        .name("ready".to_owned())
        .spawn(move || {
            while TcpStream::connect_timeout(&SocketAddr::V4(address), ATTEMPT).is_err() {
                thread::sleep(BETWEEN);
            }
            board.met();
        })?;
    Ok(())
}

/// What systemd expects of this process: nothing, unless `$NOTIFY_SOCKET` says where it listens.
pub(crate) fn supervision(ready: &Ready) -> Supervision {
    let listens = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
    let supervisor = listens.then(|| Box::new(Systemd) as Box<dyn Supervisor>);
    Supervision {
        watchdog: supervisor
            .as_ref()
            .and_then(|_| sd_notify::watchdog_enabled()),
        supervisor,
        timeout: Some(ready.timeout()),
    }
}

/// The service manager that started this process.
struct Systemd;

impl Supervisor for Systemd {
    fn notify(&mut self, notices: &[Notice]) {
        let states: Vec<NotifyState<'_>> = notices.iter().map(state).collect();
        if let Err(error) = sd_notify::notify(&states) {
            tracing::warn!(%error, "The service manager cannot be told {notices:?}");
        }
    }
}

fn state(notice: &Notice) -> NotifyState<'_> {
    match notice {
        Notice::Ready => NotifyState::Ready,
        Notice::Status(text) => NotifyState::Status(text),
        Notice::ExtendTimeout(time) => {
            NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
        }
        Notice::Watchdog => NotifyState::Watchdog,
        Notice::Stopping => NotifyState::Stopping,
    }
}
