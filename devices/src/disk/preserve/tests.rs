//! The copy against the image as it was, while requests go on.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::thread;

use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::device::Memory;
use crate::disk::{
    DiskEngine, DiskRequest, Durability, Extent, ExtentAction, Segment, SyncEngine, UringEngine,
};

const TAGS: u16 = 16;
const CLUSTERS: u64 = 24;
/// The last cluster is half a one.
const SIZE: u64 = CLUSTERS * CLUSTER_BYTES - CLUSTER_BYTES / 2;
const SECTOR: u64 = 512;
const MAX_SECTORS: u64 = 3 * CLUSTER_BYTES / SECTOR;

struct Bench {
    memory: Memory,
    disk: Arc<RawDisk>,
    image: File,
    target: File,
    preservation: Arc<Preservation>,
    /// What the image had at the beginning.
    before: Vec<u8>,
}

impl Bench {
    /// An image with data in the clusters of which `data` has a bit set.
    fn new(data: u32, rate: Option<NonZeroU64>) -> Self {
        Self::by(data, Method::Copy { rate })
    }

    fn by(data: u32, method: Method) -> Self {
        let (image, target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        image.set_len(SIZE).unwrap();
        for cluster in (0..CLUSTERS).filter(|cluster| data & (1 << cluster) != 0) {
            let at = cluster * CLUSTER_BYTES;
            let bytes: Vec<u8> = (at..SIZE.min(at + CLUSTER_BYTES))
                .map(|at| (at / 509).to_le_bytes()[0] | 1)
                .collect();
            image.write_all_at(&bytes, at).unwrap();
        }
        let disk = Arc::new(RawDisk::new(image.try_clone().unwrap()).unwrap());
        let preservation = Preservation::new(Arc::clone(&disk), method);
        preservation.set_length(&target).unwrap();
        Self {
            memory: Memory::from_ranges(&[(
                GuestAddress(0),
                usize::try_from(u64::from(TAGS) * MAX_SECTORS * SECTOR).unwrap(),
            )])
            .unwrap(),
            before: content(&image),
            preservation: Arc::new(preservation),
            disk,
            image,
            target,
        }
    }

    fn sync(&self) -> Box<dyn DiskEngine> {
        let (disk, memory) = (Arc::clone(&self.disk), self.memory.clone());
        Box::new(SyncEngine::new(disk, memory, TAGS, Durability::OnFlush))
    }

    fn engines(&self) -> Vec<PreservingEngine> {
        let mut engines = vec![self.sync()];
        let (disk, memory) = (Arc::clone(&self.disk), self.memory.clone());
        match UringEngine::new(disk, memory, TAGS, Durability::OnFlush) {
            Ok(engine) => engines.push(Box::new(engine)),
            Err(error) => println!("skipped: io_uring engine, the host refuses it: {error}"),
        }
        self.disk.arm(Arc::clone(&self.preservation));
        let preserving = |inner| PreservingEngine::new(inner, Arc::clone(&self.disk));
        engines.into_iter().map(preserving).collect()
    }

    fn write(&self, engine: &mut dyn DiskEngine, tag: u16, (offset, len, byte): (u64, u64, u8)) {
        let addr = GuestAddress(u64::from(tag) * MAX_SECTORS * SECTOR);
        let len = u32::try_from(len).unwrap();
        self.memory
            .write_slice(&vec![byte; len as usize], addr)
            .unwrap();
        let segments = [Segment { addr, len }];
        engine
            .submit(
                tag,
                DiskRequest::Write {
                    offset,
                    segments: &segments,
                },
            )
            .unwrap();
    }

    fn copier(&self) -> thread::JoinHandle<Result<(), PreserveError>> {
        let target = self.target.try_clone().unwrap();
        let preservation = Arc::clone(&self.preservation);
        thread::spawn(move || preservation.run(&target))
    }

    fn step(&self) -> bool {
        self.preservation
            .step(Instant::now(), (&self.target, &mut Vec::new()))
            .unwrap()
    }
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn reap(engine: &mut dyn DiskEngine) -> Vec<u16> {
    let mut done = Vec::new();
    engine.reap(&mut done);
    let tag = |done: crate::disk::Completion| {
        done.result.unwrap();
        done.tag
    };
    done.into_iter().map(tag).collect()
}

fn drain(engine: &mut dyn DiskEngine) -> Vec<u16> {
    let mut tags = Vec::new();
    while engine.in_flight() > 0 {
        engine.wait().unwrap();
        tags.extend(reap(engine));
    }
    tags
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u64, u8),
    Clear(u64, u64, ExtentAction),
    Flush,
    Copy,
    Reap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let extent = || {
        (0..SIZE / SECTOR).prop_flat_map(|first| {
            (
                Just(first * SECTOR),
                (1..=MAX_SECTORS.min(SIZE / SECTOR - first)).prop_map(|count| count * SECTOR),
            )
        })
    };
    let action = prop_oneof![
        Just(ExtentAction::Discard),
        Just(ExtentAction::Punch),
        Just(ExtentAction::Zero)
    ];
    let step = prop_oneof![
        6 => (extent(), any::<u8>()).prop_map(|((at, len), byte)| Step::Write(at, len, byte)),
        2 => (extent(), action).prop_map(|((at, len), action)| Step::Clear(at, len, action)),
        1 => Just(Step::Flush),
        2 => Just(Step::Copy),
        3 => Just(Step::Reap),
    ];
    prop::collection::vec(step, 1..60)
}

/// What requests may be doing to an image: bytes of a request in flight are claimed.
struct Model {
    after: Vec<u8>,
    in_flight: Vec<(u16, u64, u64)>,
}

impl Model {
    /// A tag and its bytes, if no request in flight has any of them: there is no order between two.
    fn claim(&mut self, at: u64, len: u64) -> Option<u16> {
        let apart =
            |(_, other, length): &(u16, u64, u64)| at + len <= *other || other + length <= at;
        let tag = (0..TAGS).find(|tag| self.in_flight.iter().all(|(taken, ..)| taken != tag))?;
        if !self.in_flight.iter().all(apart) {
            return None;
        }
        self.in_flight.push((tag, at, len));
        Some(tag)
    }

    fn fill(&mut self, at: u64, len: u64, byte: u8) {
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        self.after[range].fill(byte);
    }

    fn done(&mut self, tags: &[u16]) {
        self.in_flight.retain(|(tag, ..)| !tags.contains(tag));
    }
}

fn apply(bench: &Bench, engine: &mut PreservingEngine, model: &mut Model, step: &Step) {
    match *step {
        Step::Write(at, len, byte) => {
            if let Some(tag) = model.claim(at, len) {
                bench.write(engine, tag, (at, len, byte));
                model.fill(at, len, byte);
            }
        }
        Step::Clear(offset, len, action) => {
            if let Some(tag) = model.claim(offset, len) {
                let extents = [Extent {
                    offset,
                    len,
                    action,
                }];
                engine
                    .submit(tag, DiskRequest::Clear { extents: &extents })
                    .unwrap();
                model.fill(offset, len, 0);
            }
        }
        Step::Flush => {
            if let Some(tag) = model.claim(SIZE, 0) {
                engine.submit(tag, DiskRequest::Flush).unwrap();
            }
        }
        Step::Copy => drop(bench.step()),
        Step::Reap => {
            engine.commit().unwrap();
            model.done(&reap(engine));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_copy_is_the_image_as_it_was(data in any::<u32>(), steps in steps()) {
        for engine in 0..2 {
            let bench = Bench::new(data, None);
            let Some(mut engine) = bench.engines().into_iter().nth(engine) else {
                continue;
            };
            let mut model = Model { after: bench.before.clone(), in_flight: Vec::new() };
            for step in &steps {
                apply(&bench, &mut engine, &mut model, step);
            }
            while bench.step() {}
            drain(&mut engine);
            prop_assert!(content(&bench.target) == bench.before, "{}: the copy changed", engine.name());
            prop_assert!(content(&bench.image) == model.after, "{}: a write was lost", engine.name());
        }
    }
}

#[test]
fn a_thread_copies_beneath_writes_to_everything() {
    for engine in 0..2 {
        let bench = Bench::new(0x00ff_ffff, None);
        let Some(mut engine) = bench.engines().into_iter().nth(engine) else {
            continue;
        };
        let copier = bench.copier();
        for cluster in (0..CLUSTERS).rev() {
            let len = CLUSTER_BYTES.min(SIZE - cluster * CLUSTER_BYTES);
            let tag = u16::try_from(cluster % u64::from(TAGS)).unwrap();
            if engine.in_flight() == usize::from(TAGS) {
                drain(&mut engine);
            }
            bench.write(&mut engine, tag, (cluster * CLUSTER_BYTES, len, 0xee));
            engine.commit().unwrap();
        }
        drain(&mut engine);
        copier.join().unwrap().unwrap();
        assert!(content(&bench.target) == bench.before);
        assert!(content(&bench.image).iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn other_requests_pass_a_held_write_and_a_flush_does_not() {
    let bench = Bench::new(0x00ff_ffff, None);
    let mut engine = bench.engines().pop().unwrap();
    bench.write(&mut engine, 0, (0, 512, 1));
    engine.submit(1, DiskRequest::Flush).unwrap();
    let segments = [Segment {
        addr: GuestAddress(4096),
        len: 512,
    }];
    let read = DiskRequest::Read {
        offset: 0,
        segments: &segments,
    };
    engine.submit(2, read).unwrap();
    engine.commit().unwrap();
    let mut done = reap(&mut engine);
    while done.is_empty() {
        thread::yield_now();
        done = reap(&mut engine);
    }
    assert_eq!(done, [2]);
    assert_eq!(engine.in_flight(), 2, "write and flush are held");
    while bench.step() {}
    assert_eq!(drain(&mut engine), [0, 1]);
}

#[test]
fn a_copy_that_fails_lets_writes_go() {
    let bench = Bench::new(0x00ff_ffff, None);
    let full = File::options().read(true).open("/proc/self/exe").unwrap();
    let method = Method::Copy { rate: None };
    let failing = Arc::new(Preservation::new(Arc::clone(&bench.disk), method));
    bench.disk.arm(Arc::clone(&failing));
    let mut engine = PreservingEngine::new(bench.sync(), Arc::clone(&bench.disk));
    bench.write(&mut engine, 0, (0, 512, 7));
    engine.commit().unwrap();
    assert_eq!(engine.in_flight(), 1);
    assert!(matches!(
        failing.run(&full),
        Err(PreserveError::Write { .. })
    ));
    assert_eq!(drain(&mut engine), [0]);
    assert_eq!(content(&bench.image)[..512], [7; 512]);
}

#[test]
fn giving_up_ends_a_slow_copy() {
    let bench = Bench::new(0x00ff_ffff, NonZeroU64::new(1));
    let copier = bench.copier();
    while bench.preservation.progress().copied == 0 {
        thread::yield_now();
    }
    bench.preservation.give_up();
    assert!(matches!(
        copier.join().unwrap(),
        Err(PreserveError::GivenUp)
    ));
}

#[test]
fn a_write_does_not_wait_for_the_rate() {
    let bench = Bench::new(0x00ff_ffff, NonZeroU64::new(1));
    let copier = bench.copier();
    let mut engine = bench.engines().remove(0);
    bench.write(&mut engine, 0, ((CLUSTERS - 1) * CLUSTER_BYTES, 512, 9));
    engine.commit().unwrap();
    assert_eq!(drain(&mut engine), [0]);
    bench.preservation.give_up();
    assert!(copier.join().unwrap().is_err());
    let last = usize::try_from((CLUSTERS - 1) * CLUSTER_BYTES).unwrap();
    assert!(content(&bench.target)[last..] == bench.before[last..]);
}

#[test]
fn holes_stay_holes_and_do_not_count() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new(1 << 5, None);
    bench.preservation.run(&bench.target).unwrap();
    assert_eq!(bench.preservation.progress().copied, CLUSTER_BYTES);
    assert_eq!(bench.preservation.progress().settled, SIZE);
    assert!(bench.target.metadata().unwrap().blocks() * 512 <= 2 * CLUSTER_BYTES);
    assert!(content(&bench.target) == bench.before);
}

#[test]
fn copy_that_does_not_fit_is_refused() {
    let target = tempfile::tempfile().unwrap();
    let space = rustix::fs::fstatvfs(&target).unwrap();
    if space.f_blocks == 0 {
        println!("skipped: temporary files are where there is no limit");
        return;
    }
    let error = space::room(&target, u64::MAX).unwrap_err();
    assert!(error.to_string().ends_with("make room there"), "{error}");
}
