//! Engines and images without a queue.

mod block_device;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::device::Memory;

const TAGS: u16 = 64;
const MEMORY_BYTES: usize = 4 << 20;

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn disk(bytes: u64) -> (Arc<RawDisk>, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    (
        Arc::new(RawDisk::new(file.try_clone().unwrap()).unwrap()),
        file,
    )
}

/// Every engine of this host, one of them with a ring far too small for its tags.
fn engines(disk: &Arc<RawDisk>, memory: &Memory) -> Vec<Box<dyn DiskEngine>> {
    let (durability, new) = (Durability::OnFlush, || (Arc::clone(disk), memory.clone()));
    let (image, ram) = new();
    let mut engines: Vec<Box<dyn DiskEngine>> =
        vec![Box::new(SyncEngine::new(image, ram, TAGS, durability))];
    for entries in [TAGS, 2] {
        let (image, ram) = new();
        match UringEngine::with_entries(image, ram, TAGS, (durability, entries)) {
            Ok(engine) => engines.push(Box::new(engine)),
            Err(error) => println!("skipped: io_uring engine, the host refuses it: {error}"),
        }
    }
    engines
}

fn segment(addr: u64, len: u32) -> Segment {
    Segment {
        addr: GuestAddress(addr),
        len,
    }
}

/// Waits for everything; returns the tags in order of completion.
fn drain(engine: &mut dyn DiskEngine) -> Vec<u16> {
    let mut done = Vec::new();
    while engine.in_flight() > 0 {
        engine.wait().unwrap();
        engine.reap(&mut done);
    }
    done.into_iter()
        .map(|done| {
            done.result.unwrap();
            done.tag
        })
        .collect()
}

#[test]
fn small_ring_drops_no_request() {
    let (memory, (disk, file)) = (memory(), disk(1 << 20));
    for mut engine in engines(&disk, &memory) {
        for tag in 0..TAGS {
            let bytes = [tag.to_le_bytes()[0] + 1; 4096];
            memory
                .write_slice(&bytes, GuestAddress(u64::from(tag) * 4096))
                .unwrap();
            let segments = [segment(u64::from(tag) * 4096, 4096)];
            let offset = u64::from(tag) * 8192;
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
        engine.commit().unwrap();
        let mut tags = drain(&mut *engine);
        tags.sort_unstable();
        assert_eq!(tags, (0..TAGS).collect::<Vec<_>>(), "{}", engine.name());
        for tag in 0..TAGS {
            let mut found = [0; 4096];
            file.read_exact_at(&mut found, u64::from(tag) * 8192)
                .unwrap();
            assert_eq!(found, [tag.to_le_bytes()[0] + 1; 4096], "{}", engine.name());
        }
        file.set_len(0).unwrap();
        file.set_len(1 << 20).unwrap();
    }
}

#[test]
fn flush_completes_after_every_earlier_write() {
    let (memory, (disk, _file)) = (memory(), disk(8 << 20));
    for mut engine in engines(&disk, &memory) {
        let big = [segment(0, 1 << 20)];
        for round in 0..20 {
            for tag in 0..6 {
                let offset = u64::from(tag) << 20;
                engine
                    .submit(
                        tag,
                        DiskRequest::Write {
                            offset,
                            segments: &big,
                        },
                    )
                    .unwrap();
            }
            engine.submit(6, DiskRequest::Flush).unwrap();
            engine
                .submit(
                    7,
                    DiskRequest::Read {
                        offset: 7 << 20,
                        segments: &big,
                    },
                )
                .unwrap();
            engine
                .submit(
                    8,
                    DiskRequest::Write {
                        offset: 6 << 20,
                        segments: &big,
                    },
                )
                .unwrap();
            engine.submit(9, DiskRequest::Flush).unwrap();
            engine.commit().unwrap();
            let order = drain(&mut *engine);
            let at = |tag: u16| order.iter().position(|done| *done == tag).unwrap();
            for tag in 0..6 {
                assert!(
                    at(tag) < at(6),
                    "{} round {round}: {order:?}",
                    engine.name()
                );
            }
            assert!(at(8) < at(9), "{} round {round}: {order:?}", engine.name());
            assert_eq!(order.len(), 10);
        }
    }
}

#[test]
fn many_small_segments_take_several_calls() {
    let (memory, (disk, file)) = (memory(), disk(1 << 20));
    let bytes: Vec<u8> = (0..3000_u32).map(|i| i.to_le_bytes()[0]).collect();
    memory.write_slice(&bytes, GuestAddress(0)).unwrap();
    let segments: Vec<Segment> = (0..3000).map(|at| segment(at, 1)).collect();
    for mut engine in engines(&disk, &memory) {
        for extra in [0, 1] {
            engine
                .submit(
                    0,
                    DiskRequest::Write {
                        offset: 0,
                        segments: &segments,
                    },
                )
                .unwrap();
            if extra == 1 {
                engine.submit(1, DiskRequest::Flush).unwrap();
            }
            engine.commit().unwrap();
            drain(&mut *engine);
            let mut found = vec![0; 3000];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, bytes, "{}", engine.name());
            file.write_all_at(&[0; 3000], 0).unwrap();
        }
    }
}

#[test]
fn taken_and_unknown_tags_are_refused() {
    let (memory, (disk, _file)) = (memory(), disk(1 << 20));
    for mut engine in engines(&disk, &memory) {
        let outside = [segment(MEMORY_BYTES as u64 - 1, 2)];
        let refused = engine.submit(
            3,
            DiskRequest::Read {
                offset: 0,
                segments: &outside,
            },
        );
        assert!(matches!(refused, Err(SubmitError::Memory { tag: 3, .. })));
        assert_eq!(engine.in_flight(), 0);
        engine.submit(3, DiskRequest::Flush).unwrap();
        assert!(matches!(
            engine.submit(3, DiskRequest::Flush),
            Err(SubmitError::Busy { tag: 3 })
        ));
        assert!(matches!(
            engine.submit(TAGS, DiskRequest::Flush),
            Err(SubmitError::NoSuchTag { .. })
        ));
        engine.commit().unwrap();
        assert_eq!(drain(&mut *engine), [3]);
        engine.submit(3, DiskRequest::Flush).unwrap();
        assert_eq!(
            drain(&mut *engine),
            [3],
            "wait starts what was not committed"
        );
    }
}

#[test]
fn dropped_engine_leaves_nothing_in_the_kernel() {
    const BIG: u32 = 1 << 20;
    let (memory, (disk, file)) = (memory(), disk(u64::from(TAGS) << 20));
    for mut engine in engines(&disk, &memory) {
        let name = engine.name();
        memory
            .write_slice(&vec![9; 1 << 20], GuestAddress(0))
            .unwrap();
        for tag in 0..TAGS {
            let segments = [segment(0, BIG)];
            let offset = u64::from(tag) << 20;
            let write = DiskRequest::Write {
                offset,
                segments: &segments,
            };
            engine.submit(tag, write).unwrap();
        }
        engine.commit().unwrap();
        drop(engine);
        // Whatever was still to be written would be cancelled or come from these bytes.
        memory
            .write_slice(&vec![1; 1 << 20], GuestAddress(0))
            .unwrap();
        for tag in 0..TAGS {
            let mut last = [0; 4096];
            let offset = (u64::from(tag + 1) << 20) - 4096;
            file.read_exact_at(&mut last, offset).unwrap();
            assert_eq!(last, [9; 4096], "{name} {tag}");
        }
        file.set_len(0).unwrap();
        file.set_len(u64::from(TAGS) << 20).unwrap();
    }
}

#[test]
fn stable_writes_and_zeroes_work_without_flush() {
    let (memory, (disk, file)) = (memory(), disk(1 << 20));
    memory.write_slice(&[3; 4096], GuestAddress(0)).unwrap();
    let stable = Durability::EveryWrite;
    let mut engines: Vec<Box<dyn DiskEngine>> = vec![Box::new(SyncEngine::new(
        Arc::clone(&disk),
        memory.clone(),
        TAGS,
        stable,
    ))];
    match UringEngine::new(Arc::clone(&disk), memory.clone(), TAGS, stable) {
        Ok(engine) => engines.push(Box::new(engine)),
        Err(error) => println!("skipped: io_uring engine, the host refuses it: {error}"),
    }
    for mut engine in engines {
        let segments = [segment(0, 4096)];
        engine
            .submit(
                0,
                DiskRequest::Write {
                    offset: 0,
                    segments: &segments,
                },
            )
            .unwrap();
        engine.commit().unwrap();
        drain(&mut *engine);
        let extents = [Extent {
            offset: 1024,
            len: 512,
            action: ExtentAction::Zero,
        }];
        engine
            .submit(0, DiskRequest::Clear { extents: &extents })
            .unwrap();
        engine.commit().unwrap();
        drain(&mut *engine);
        let mut found = [0; 4096];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found[..1024], [3; 1024], "{}", engine.name());
        assert_eq!(found[1024..1536], [0; 512], "{}", engine.name());
        assert_eq!(found[1536..], [3; 2560], "{}", engine.name());
    }
}

#[test]
fn non_blocking_image_is_refused() {
    use std::os::unix::fs::OpenOptionsExt;
    let file = tempfile::tempfile().unwrap();
    file.set_len(512).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    for (flag, name) in [
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_APPEND, "O_APPEND"),
    ] {
        let opened = File::options()
            .read(true)
            .write(true)
            .custom_flags(flag)
            .open(&path)
            .unwrap();
        let error = RawDisk::new(opened).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let write_only = File::options().write(true).open(&path).unwrap();
    assert!(
        RawDisk::new(write_only)
            .unwrap_err()
            .to_string()
            .contains("O_WRONLY")
    );
}
