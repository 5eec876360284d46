//! Which pairs of queues are served, and by whom.
//!
//! ```text
//!         VQ_PAIRS_SET counts it in: the tap queue is attached, a thread starts
//! idle ──────────────────────────────────────────────────────────────────────▶ served
//!      ◀──────────────────────────────────────────────────────────────────────
//!         VQ_PAIRS_SET leaves it out: the thread ends, the tap queue is detached
//! ```
//!
//! The first pair is always served, by the card's own thread; every other one has a thread of its
//! own while the driver uses it.

use std::io;
use std::sync::Arc;

use super::pair::Pair;
use super::session::{End, PairQueues, Session};
use super::tap::Attached;
use super::vhost::KernelPair;
use crate::device::{ActiveQueue, DeviceError};
use crate::worker::Worker;

/// The pairs behind the first.
pub(super) struct Lanes {
    session: Arc<Session>,
    lanes: Vec<Lane>,
}

struct Lane {
    end: End,
    state: State,
}

enum State {
    /// The driver does not use the pair; the queues are those that it enabled.
    Idle(Vec<ActiveQueue>),
    /// A thread serves it.
    Served(Worker<Pair>),
    /// The kernel serves it.
    Kernel(KernelPair),
}

/// Why the pairs are not served as the driver wants.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// The driver counts in a pair whose queues it did not enable.
    #[error("Pair {pair} of queues is not enabled")]
    Disabled {
        /// The pair.
        pair: usize,
    },
    /// The host refused a thread or the tap's queue.
    #[error("Failed to serve pair {pair} of queues")]
    Host {
        /// The pair.
        pair: usize,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The thread of a pair died.
    #[error("Failed to stop serving pair {pair} of queues")]
    Thread {
        /// The pair.
        pair: usize,
        /// How it died.
        #[source]
        source: DeviceError,
    },
}

impl Lanes {
    /// Pairs that are all idle, each with its queue of the tap.
    pub(super) fn new(session: Arc<Session>, pairs: Vec<(End, Vec<ActiveQueue>)>) -> Self {
        let lanes = pairs
            .into_iter()
            .map(|(end, queues)| Lane {
                end,
                state: State::Idle(queues),
            })
            .collect();
        Self { session, lanes }
    }

    /// Serves the first `pairs` pairs, the card's first included, and no other. Fails before it
    /// changes anything when the driver did not enable all of these.
    pub(super) fn set_active(&mut self, pairs: usize) -> Result<(), LaneError> {
        let further = pairs.saturating_sub(1);
        let disabled = self.lanes.iter().take(further).position(Lane::is_disabled);
        if let Some(lane) = disabled {
            return Err(LaneError::Disabled { pair: lane + 1 });
        }
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if index < further {
                lane.start(index + 1, &self.session)?;
            } else {
                lane.stop(index + 1)?;
            }
        }
        Ok(())
    }

    /// Has the kernel leave the queues alone that it serves.
    pub(super) fn halt(&self) {
        for lane in &self.lanes {
            if let State::Kernel(pair) = &lane.state {
                // A kernel that refuses has nothing in its hands either.
                let _ = pair.halt();
            }
        }
    }

    /// Ends all threads and returns the queues.
    pub(super) fn into_queues(self) -> Result<Vec<ActiveQueue>, DeviceError> {
        let mut all = Vec::new();
        let mut failure = None;
        // Every thread is ended, whatever became of another.
        for lane in self.lanes {
            match lane.state {
                State::Idle(queues) => all.extend(queues),
                State::Served(worker) => match worker.stop() {
                    Ok(pair) => all.extend(pair.into_queues().into_array()),
                    Err(error) => failure = Some(error),
                },
                State::Kernel(pair) => match pair.stop() {
                    Ok(queues) => all.extend(queues.into_array()),
                    Err(source) => failure = Some(kernel_failed(source)),
                },
            }
        }
        failure.map_or(Ok(all), Err)
    }
}

impl Lane {
    fn is_disabled(&self) -> bool {
        matches!(&self.state, State::Idle(queues) if queues.len() != 2)
    }

    fn start(&mut self, pair: usize, session: &Arc<Session>) -> Result<(), LaneError> {
        let State::Idle(queues) = &mut self.state else {
            return Ok(());
        };
        let taken =
            PairQueues::from_enabled(std::mem::take(queues)).ok_or(LaneError::Disabled { pair })?;
        let failed = |source| LaneError::Host { pair, source };
        // Before the thread waits on it: a detached queue cannot be waited on.
        let End { tap, vhost } = &self.end;
        tap.set_attached(Attached::Yes).map_err(failed)?;
        if let Some(vhost) = vhost {
            let pair = KernelPair::start(session, vhost, tap, taken).map_err(failed)?;
            self.state = State::Kernel(pair);
            return Ok(());
        }
        let work = Pair::new(session.clone(), tap.clone(), taken).map_err(failed)?;
        let name = format!("{}.{pair}", session.id);
        let worker = Worker::spawn(&name, work, session.interrupt.clone()).map_err(failed)?;
        self.state = State::Served(worker);
        Ok(())
    }

    fn stop(&mut self, pair: usize) -> Result<(), LaneError> {
        let idle = State::Idle(Vec::new());
        let queues = match std::mem::replace(&mut self.state, idle) {
            State::Idle(queues) => queues,
            State::Served(worker) => worker
                .stop()
                .map_err(|source| LaneError::Thread { pair, source })?
                .into_queues()
                .into_array()
                .into(),
            State::Kernel(served) => served
                .stop()
                .map_err(|source| LaneError::Host { pair, source })?
                .into_array()
                .into(),
        };
        self.state = State::Idle(queues);
        let tap = &self.end.tap;
        tap.set_attached(Attached::No)
            .map_err(|source| LaneError::Host { pair, source })
    }
}

/// What a card fails with whose queues the kernel does not give back.
pub(super) fn kernel_failed(source: io::Error) -> DeviceError {
    DeviceError::WorkerFailed {
        name: "vhost-net".to_owned(),
        source,
    }
}
