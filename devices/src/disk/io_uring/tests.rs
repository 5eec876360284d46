//! What the engine holds back, and for whom.

use std::sync::Arc;

use vm_memory::GuestAddress;

use super::*;
use crate::disk::Segment;

#[test]
fn flush_is_held_back_for_earlier_writes_only() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let disk = Arc::new(RawDisk::new(file).unwrap());
    let memory = Memory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let mut engine = match UringEngine::new(disk, memory, 8, Durability::OnFlush) {
        Ok(engine) => engine,
        Err(error) => return println!("skipped: the host refuses io_uring: {error}"),
    };
    let segments = [Segment {
        addr: GuestAddress(0),
        len: 4096,
    }];
    let write = |page: u64| DiskRequest::Write {
        offset: page * 4096,
        segments: &segments,
    };
    let read = DiskRequest::Read {
        offset: 0,
        segments: &segments,
    };
    for (tag, request) in [
        (0, write(0)),
        (1, write(1)),
        (2, DiskRequest::Flush),
        (3, read),
        (4, write(2)),
    ] {
        engine.submit(tag, request).unwrap();
    }
    assert_eq!(engine.ready, [0, 1, 3, 4]);
    engine.step(4, Ok(4096));
    engine.step(0, Ok(4096));
    assert!(!engine.ready.contains(&2), "one earlier write is not done");
    engine.step(1, Err(io::Error::from_raw_os_error(libc::EIO)));
    assert_eq!(engine.ready.back(), Some(&2));
    assert!(engine.flushes.is_empty());
}
