//! One snapshot: the thread that takes it, and the control thread's hold on it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use devices::disk::{Preservation, RawDisk};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use super::report::{Report, Reporter};
use super::{Backend, SnapshotError, SnapshotOrder, SnapshotRefusal, SnapshotSpec};
use crate::events::{Event, EventSender};

/// Between two reports, and the longest time for which a closed end is not noticed.
const TICK: Duration = Duration::from_millis(100);

/// How long a write of the guest may wait without a single cluster being copied.
const STALL: Duration = Duration::from_secs(10);

/// What the control thread tells the job.
enum Told {
    /// Nothing of the guest runs, and no I/O is in flight.
    Halted,
    /// The guest runs on; how long it was halted, if it was by us.
    Resumed(Option<Duration>),
    /// It was not halted.
    Refused(String),
}

/// The control thread's hold on a snapshot that is being taken.
#[derive(Debug)]
pub(crate) struct Job {
    told: Sender<Told>,
    /// Hears when the content is decided; the sender is gone when that failed.
    decided: Receiver<()>,
    pause_limit: Duration,
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
        let (decide, decided) = channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let pause_limit = order.spec.pause_limit();
        let work = Work {
            disk,
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
            .spawn(move || work.run(decide));
        Ok(Self {
            told,
            decided,
            pause_limit,
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

    /// Decides the content, while nothing of the guest runs: waits for the job until the guest has
    /// been halted for as long as it may be since `halted`.
    pub(crate) fn take(&self, halted: Instant) {
        // A job that has ended hears nothing, and has said why.
        let _ = self.told.send(Told::Halted);
        let left = self.pause_limit.saturating_sub(halted.elapsed());
        if self.decided.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            self.give_up();
        }
    }

    /// Says that the guest runs on after a pause, or that it was halted before and stays so.
    pub(crate) fn resumed(&self, pause: Option<Duration>) {
        let _ = self.told.send(Told::Resumed(pause));
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

/// How the content comes into the file.
enum Content {
    /// It is there.
    Shared,
    /// It is being preserved.
    Armed(Arc<Preservation>),
}

impl Work {
    fn run(mut self, decide: Sender<()>) {
        let report = match self.work(decide) {
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
        self.over.store(true, Ordering::Release);
        if let Err(error) = self.reporter.tell_last(&report) {
            tracing::debug!(%error, "Nobody hears of the snapshot's end");
        }
    }

    /// Everything in order; returns the bytes that were copied.
    fn work(&mut self, decide: Sender<()>) -> Result<u64, SnapshotError> {
        self.tell(&Report::Flushing)?;
        self.disk.flush().map_err(SnapshotError::Flush)?;
        // Before the pause, since it may need memory in proportion to the disk.
        let preservation = self.prepare()?;
        self.tell(&Report::Flushing)?;
        self.events.send(Event::SnapshotReady);
        self.wait_for_halt()?;
        let content = self.decide(preservation);
        if content.is_ok() {
            let _ = decide.send(());
        }
        drop(decide);
        let result = self.follow(content);
        self.disk.disarm();
        result
    }

    fn prepare(&self) -> Result<Arc<Preservation>, SnapshotError> {
        let preservation = Preservation::new(&self.disk, self.spec.rate);
        preservation
            .map(Arc::new)
            .map_err(host("duplicate the disk's descriptor"))
    }

    fn wait_for_halt(&self) -> Result<(), SnapshotError> {
        match self.hear.recv() {
            Ok(Told::Halted) => Ok(()),
            Ok(Told::Refused(reason)) => Err(SnapshotError::NotHalted { reason }),
            Ok(Told::Resumed(_)) | Err(_) => Err(SnapshotError::MachineEnded),
        }
    }

    /// All that happens while the guest is halted.
    fn decide(&self, preservation: Arc<Preservation>) -> Result<Content, SnapshotError> {
        self.disk.flush().map_err(SnapshotError::Flush)?;
        if self.spec.backend != Backend::Copy {
            match self.disk.clone_to(&self.target) {
                Ok(()) => return Ok(Content::Shared),
                Err(error) if self.spec.backend == Backend::Reflink => {
                    return Err(SnapshotError::Reflink(error));
                }
                Err(error) => tracing::debug!(%error, "Blocks cannot be shared: they are copied"),
            }
        }
        self.disk.arm(Arc::clone(&preservation));
        Ok(Content::Armed(preservation))
    }

    /// What comes after the pause.
    fn follow(&mut self, content: Result<Content, SnapshotError>) -> Result<u64, SnapshotError> {
        let resumed = self.hear.recv();
        if let (Ok(Content::Armed(preservation)), true) = (&content, self.is_given_up()) {
            preservation.give_up();
        }
        let content = content?;
        let Ok(Told::Resumed(pause)) = resumed else {
            return Err(SnapshotError::MachineEnded);
        };
        if self.is_given_up() {
            let limit = self.spec.pause_limit();
            return Err(SnapshotError::TooSlow { limit });
        }
        let pause_us = pause.map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        let backend = match content {
            Content::Shared => Backend::Reflink,
            Content::Armed(_) => Backend::Copy,
        };
        let told = self.tell(&Report::Taken { backend, pause_us });
        match content {
            Content::Shared => {
                told?;
                self.target.sync_all().map_err(SnapshotError::Flush)?;
                Ok(0)
            }
            Content::Armed(preservation) => {
                let result = told.and_then(|()| self.copy(&preservation));
                preservation.give_up();
                result
            }
        }
    }

    /// Has another thread copy, and looks after it: one that hangs must not keep the guest.
    fn copy(&mut self, preservation: &Arc<Preservation>) -> Result<u64, SnapshotError> {
        let (done, ended) = channel();
        let target = self.target.try_clone();
        let target = target.map_err(host("duplicate the snapshot's descriptor"))?;
        let copier = Arc::clone(preservation);
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
