//! A job without a machine: these tests play the control thread.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use devices::disk::{Preservation, RawDisk};

use super::{Backend, Job, Pause, Report, SnapshotOrder, SnapshotRefusal, SnapshotSpec};
use crate::events::{Event, EventQueue, EventSender, event_channel};
use crate::phases::Phases;

const SIZE: u64 = 1 << 20;

fn channel() -> (EventSender, EventQueue) {
    event_channel(Arc::new(Phases::since(Instant::now()))).unwrap()
}

struct Bench {
    job: Job,
    queue: EventQueue,
    target: File,
    reports: BufReader<UnixStream>,
}

fn begin(change: impl FnOnce(&mut SnapshotSpec)) -> Bench {
    let image = tempfile::tempfile().unwrap();
    image.set_len(SIZE).unwrap();
    image.write_all_at(b"content", SIZE - 7).unwrap();
    let target = tempfile::tempfile().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (events, queue) = channel();
    let mut spec = SnapshotSpec::of("data");
    spec.backend = Backend::Copy;
    change(&mut spec);
    let order = SnapshotOrder {
        spec,
        target: target.try_clone().unwrap(),
        reports: theirs.into(),
    };
    let disk = Arc::new(RawDisk::new(image).unwrap());
    Bench {
        job: Job::begin(order, disk, events).unwrap(),
        queue,
        target,
        reports: BufReader::new(ours),
    }
}

impl Bench {
    fn wait_ready(&self) -> Arc<Preservation> {
        match self.queue.queue.recv().unwrap() {
            Event::SnapshotReady(preservation) => preservation,
            other => panic!("{other:?}"),
        }
    }

    /// What the control thread does, with a pause of so many milliseconds.
    fn take(&mut self, pause_ms: u64) {
        let preservation = self.wait_ready();
        self.job.take(preservation);
        self.job.taken(Some(Pause {
            total_us: pause_ms * 1000,
            ..Pause::default()
        }));
    }

    /// The last report.
    fn last(self) -> Report {
        self.job.finish();
        let last = self.reports.lines().last().unwrap().unwrap();
        serde_json::from_str(&last).unwrap()
    }

    fn expect_failure(self, reason: &str) {
        match self.last() {
            Report::Failed { error } => assert!(error.contains(reason), "{error}"),
            other => panic!("Expected a failure that says {reason:?}: {other:?}"),
        }
    }
}

#[test]
fn the_file_is_complete_when_it_is_done() {
    let mut bench = begin(|_| ());
    bench.take(1);
    let target = bench.target.try_clone().unwrap();
    assert!(matches!(bench.last(), Report::Done { .. }));
    let mut end = [0; 7];
    target.read_exact_at(&mut end, SIZE - 7).unwrap();
    assert_eq!(&end, b"content");
}

#[test]
fn a_machine_that_is_not_halted_is_told() {
    let bench = begin(|_| ());
    bench.wait_ready();
    bench.job.refused("its guest is powering off".to_owned());
    bench.expect_failure("its guest is powering off");
}

#[test]
fn a_machine_that_ends_before_the_pause_has_no_snapshot() {
    let bench = begin(|_| ());
    bench.wait_ready();
    bench.expect_failure("The machine ended");
}

#[test]
fn a_pause_that_took_too_long_fails_the_snapshot() {
    let mut bench = begin(|_| ());
    bench.take(2000);
    bench.expect_failure("longer than 1000 ms");
}

#[test]
fn nobody_is_halted_for_an_asker_who_is_gone() {
    let mut bench = begin(|_| ());
    let (other, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut bench.reports, BufReader::new(other)));
    // It may have found out only at its next report.
    if let Ok(Event::SnapshotReady(preservation)) = bench.queue.queue.recv() {
        bench.job.take(preservation);
        bench.job.taken(None);
    }
    bench.job.finish();
}

#[test]
fn a_stopped_machine_gives_a_slow_copy_up() {
    let mut bench = begin(|spec| spec.rate = std::num::NonZeroU64::new(1));
    bench.take(1);
    bench.job.give_up();
    assert!(matches!(
        bench.last(),
        Report::Failed { .. } | Report::Done { .. }
    ));
}

#[test]
fn unfit_files_are_refused() {
    let refuse = |target: File| {
        let image = tempfile::tempfile().unwrap();
        image.set_len(SIZE).unwrap();
        let order = SnapshotOrder {
            spec: SnapshotSpec::of("data"),
            target,
            reports: UnixStream::pair().unwrap().0.into(),
        };
        let disk = Arc::new(RawDisk::new(image).unwrap());
        Job::begin(order, disk, channel().0).unwrap_err()
    };
    let full = tempfile::tempfile().unwrap();
    full.set_len(1).unwrap();
    let read_only = File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
    for target in [full, read_only, File::open("/dev/null").unwrap()] {
        assert!(matches!(refuse(target), SnapshotRefusal::Target { .. }));
    }
}
