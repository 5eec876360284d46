//! One snapshot: the thread that takes it, and the control thread's hold on it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use devices::disk::{CLUSTER_BYTES, Method, Preservation, RawDisk};
use devices::failpoint;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use super::report::{Pause, Report, Reporter, micros};
use super::{Backend, SnapshotError, SnapshotInfo, SnapshotOrder, SnapshotRefusal, SnapshotSpec};
use crate::events::{Event, EventSender};

/// Between two reports, and the longest time for which a closed end is not noticed.
const TICK: Duration = Duration::from_millis(100);

/// How long a write of the guest may wait without a single cluster being copied.
const STALL: Duration = Duration::from_secs(10);

/// What the control thread tells the job.
enum Told {
    /// The content is decided, and the guest runs on; how long it was halted, if it was by us.
    Taken(Option<Pause>),
    /// It was not halted.
    Refused(String),
}

/// The control thread's hold on a snapshot that is being taken.
#[derive(Debug)]
pub(crate) struct Job {
    told: Sender<Told>,
    name: String,
    disk: Arc<RawDisk>,
    /// What was armed.
    taken: Option<Arc<Preservation>>,
    given_up: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Job {
    /// Begins to take a snapshot of `disk`. When it is ready for the pause, it sends
    /// [`Event::SnapshotReady`].
    ///
    /// # Errors
    /// When the file is unfit, or the host refuses.
    pub(crate) fn begin(
        order: SnapshotOrder,
        disk: Arc<RawDisk>,
        events: EventSender,
    ) -> Result<Self, SnapshotRefusal> {
        check_target(&order.target)?;
        let identity = disk.identity().map_err(|source| SnapshotRefusal::Host {
            action: "inspect the disk",
            source,
        })?;
        if order.spec.identity.is_some_and(|wanted| wanted != identity) {
            let disk = order.spec.disk;
            return Err(SnapshotRefusal::OtherFile { disk });
        }
        let (told, hear) = channel();
        let name = order.spec.disk.clone();
        let given_up = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let work = Work {
            disk: Arc::clone(&disk),
            events,
            hear,
            spec: order.spec,
            target: order.target,
            reporter: Reporter::new(order.reports),
            given_up: Arc::clone(&given_up),
            over: Arc::clone(&over),
        };
        let thread = thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || work.run());
        Ok(Self {
            told,
            name,
            disk,
            taken: None,
            given_up,
            over,
            thread: thread.map_err(|source| SnapshotRefusal::Host {
                action: "start the snapshot's thread",
                source,
            })?,
        })
    }

    /// Whether it is through with the disk, well or not: true before anybody can hear of its end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Decides the content, while no vCPU runs: nothing of the disk is in flight since before.
    pub(crate) fn take(&mut self, preservation: Arc<Preservation>) {
        self.disk.arm(Arc::clone(&preservation));
        self.taken = Some(preservation);
    }

    /// How it goes; nothing once it is over.
    pub(crate) fn info(&self) -> Option<SnapshotInfo> {
        if self.is_over() {
            return None;
        }
        let progress = self.taken.as_ref().map(|taken| taken.progress());
        Some(SnapshotInfo {
            disk: self.name.clone(),
            taken: progress.is_some(),
            settled: progress.unwrap_or_default().settled,
            size: self.disk.size(),
        })
    }

    /// Says that the guest runs on after a pause, or that it was halted before and stays so.
    pub(crate) fn taken(&self, pause: Option<Pause>) {
        // A job that has ended hears nothing, and has said why.
        let _ = self.told.send(Told::Taken(pause));
    }

    /// Says that the machine was not halted.
    pub(crate) fn refused(&self, reason: String) {
        let _ = self.told.send(Told::Refused(reason));
    }

    /// Has it fail soon.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Waits for its end; one that was not taken yet fails.
    pub(crate) fn finish(self) {
        drop(self.told);
        if self.thread.join().is_err() {
            tracing::error!("The snapshot's thread panicked");
        }
    }
}

fn check_target(target: &File) -> Result<(), SnapshotRefusal> {
    let host = |errno: rustix::io::Errno| SnapshotRefusal::Host {
        action: "inspect the snapshot's file",
        source: errno.into(),
    };
    let stat = fstat(target).map_err(host)?;
    let flags = fcntl_getfl(target.as_fd()).map_err(host)?;
    let found = match () {
        () if !FileType::from_raw_mode(stat.st_mode).is_file() => "no regular file",
        () if stat.st_size != 0 => "not empty",
        () if flags & OFlags::RWMODE != OFlags::RDWR || flags.contains(OFlags::APPEND) => {
            "open in another way"
        }
        () => return Ok(()),
    };
    Err(SnapshotRefusal::Target { found })
}

/// What the job's thread owns.
struct Work {
    disk: Arc<RawDisk>,
    events: EventSender,
    hear: Receiver<Told>,
    spec: SnapshotSpec,
    target: File,
    reporter: Reporter,
    given_up: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        let result = worked.unwrap_or_else(|_| {
            let source = io::Error::other("The snapshot's thread panicked");
            let action = "take the snapshot";
            Err(SnapshotError::Host { action, source })
        });
        // Whatever came of it, no write waits for it any more.
        if let Some(armed) = self.disk.armed() {
            armed.give_up();
        }
        self.disk.disarm();
        if result.is_err() {
            // The guest may need the space before whoever asked removes the file.
            let _ = self.target.set_len(0);
        }
        let report = match result {
            Ok(copied) => {
                tracing::info!(disk = %self.spec.disk, copied, "Snapshot complete");
                Report::Done { copied }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(disk = %self.spec.disk, error, "No snapshot was taken");
                Report::Failed { error }
            }
        };
        failpoint::pass("over");
        self.over.store(true, Ordering::Release);
        self.events.send(Event::SnapshotOver);
        failpoint::pass("before the last report");
        if let Err(error) = self.reporter.tell_last(&report) {
            tracing::debug!(%error, "Nobody hears of the snapshot's end");
        }
        failpoint::pass("after the last report");
    }

    /// Everything in order; returns the bytes that were copied.
    fn work(&mut self) -> Result<u64, SnapshotError> {
        self.tell(&Report::Flushing)?;
        // What has its place on the host's disk is shared at once, and copied without waiting.
        let flushed = failpoint::point("flush").and_then(|()| self.disk.flush());
        flushed.map_err(SnapshotError::Flush)?;
        // Before the pause, since it needs memory in proportion to the disk.
        let method = self.method()?;
        let preservation = Arc::new(Preservation::new(Arc::clone(&self.disk), method));
        preservation.check_room(&self.target)?;
        failpoint::point("prepared").map_err(host("prepare the copy"))?;
        self.tell(&Report::Flushing)?;
        let pause = self.pause(&preservation)?;
        self.follow(&preservation, pause)
    }

    /// How the content comes into the file: what is asked for, as far as the file system can.
    fn method(&self) -> Result<Method, SnapshotError> {
        let copy = Method::Copy {
            rate: self.spec.rate,
        };
        if self.spec.backend == Backend::Copy {
            return Ok(copy);
        }
        let some = 0..self.disk.size().min(CLUSTER_BYTES);
        match self.disk.share_with(&self.target, some) {
            Ok(()) => {
                // What is there now may be none of the snapshot's content.
                let emptied = self.target.set_len(0);
                emptied.map_err(host("empty the snapshot's file"))?;
                Ok(Method::Share)
            }
            Err(error) if self.spec.backend == Backend::Reflink => {
                Err(SnapshotError::Reflink(error))
            }
            Err(error) => {
                tracing::debug!(%error, "Blocks cannot be shared: they are copied");
                Ok(copy)
            }
        }
    }

    /// Has the content decided while nothing of the disk is in flight and no vCPU runs. The disk
    /// stands still before the vCPUs do, so that they need not wait for it.
    fn pause(&self, preservation: &Arc<Preservation>) -> Result<Option<Pause>, SnapshotError> {
        let limit = self.spec.pause_limit();
        let began = Instant::now();
        let closed = self.disk.gate().close(limit)?;
        let drained = began.elapsed();
        failpoint::point("drained").map_err(host("have the disk stand still"))?;
        self.events
            .send(Event::SnapshotReady(Arc::clone(preservation)));
        let told = self.hear.recv();
        drop(closed);
        let pause = match told {
            Ok(Told::Taken(pause)) => pause,
            Ok(Told::Refused(reason)) => return Err(SnapshotError::NotHalted { reason }),
            Err(_) => return Err(SnapshotError::MachineEnded),
        };
        failpoint::point("resumed").map_err(host("go on after the pause"))?;
        let mut pause = pause;
        if let Some(pause) = &mut pause {
            pause.drain_us = micros(drained);
            if Duration::from_micros(pause.total_us) > limit {
                return Err(SnapshotError::TooSlow { limit });
            }
        }
        Ok(pause)
    }

    /// What comes after the pause.
    fn follow(
        &mut self,
        preservation: &Arc<Preservation>,
        pause: Option<Pause>,
    ) -> Result<u64, SnapshotError> {
        let backend = match preservation.method() {
            Method::Share => Backend::Reflink,
            Method::Copy { .. } => Backend::Copy,
        };
        self.log_taken(pause);
        self.tell(&Report::Taken { backend, pause })?;
        failpoint::point("taken was told").map_err(host("begin the copy"))?;
        self.copy(preservation)
    }

    /// Says in the slot's log for how long the guest was halted, once it runs on.
    fn log_taken(&self, pause: Option<Pause>) {
        let disk = &self.spec.disk;
        match pause {
            Some(Pause {
                drain_us,
                total_us,
                halt_us,
                decide_us,
                resume_us,
            }) => tracing::info!(
                %disk, total_us, halt_us, decide_us, resume_us, drain_us, "Snapshot taken in a pause"
            ),
            None => tracing::info!(%disk, "Snapshot taken of a paused machine"),
        }
    }

    /// Has another thread copy, and looks after it: one that hangs must not keep the guest.
    fn copy(&mut self, preservation: &Arc<Preservation>) -> Result<u64, SnapshotError> {
        let (done, ended) = channel();
        let target = self.target.try_clone();
        let target = target.map_err(host("duplicate the snapshot's descriptor"))?;
        let copier = Arc::clone(preservation);
        let spawnable = failpoint::point("copier starts");
        spawnable.map_err(host("start the thread that copies"))?;
        thread::Builder::new()
            .name("snapshot-copy".to_owned())
            .spawn(move || done.send(copier.run(&target)))
            .map_err(host("start the thread that copies"))?;
        loop {
            match ended.recv_timeout(TICK) {
                Ok(result) => {
                    result?;
                    return Ok(preservation.progress().copied);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let source = io::Error::other("The thread that copies panicked");
                    let action = "copy the disk";
                    return Err(SnapshotError::Host { action, source });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_given_up() {
                return Err(SnapshotError::MachineEnded);
            }
            let waited = preservation.waiting_since().map(|since| since.elapsed());
            if waited.is_some_and(|waited| waited > STALL) {
                return Err(SnapshotError::Stalled { limit: STALL });
            }
            let progress = preservation.progress();
            self.tell(&Report::Progress {
                copied: progress.copied,
                settled: progress.settled,
                size: progress.size,
            })?;
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn tell(&mut self, report: &Report) -> Result<(), SnapshotError> {
        self.reporter
            .tell(report)
            .map_err(|_| SnapshotError::Abandoned)
    }
}

fn host(action: &'static str) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Host { action, source }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
