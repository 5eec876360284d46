//! An image on a block device, which discards and zeroes in other ways than a file.

use std::process::Command;

use super::*;

/// A loop device over a temporary file, detached when dropped.
struct Loop {
    path: String,
    backing: tempfile::NamedTempFile,
}

impl Loop {
    fn attach(bytes: u64) -> Option<Self> {
        let backing = tempfile::NamedTempFile::new().unwrap();
        backing.as_file().set_len(bytes).unwrap();
        let attached = Command::new("losetup")
            .arg("--find")
            .arg("--show")
            .arg(backing.path())
            .output();
        let attached = attached.ok().filter(|output| output.status.success())?;
        let path = String::from_utf8(attached.stdout)
            .unwrap()
            .trim()
            .to_owned();
        Some(Self { path, backing })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

/// Pages of 4 KiB that are cleared in a test of 16 pages.
const CLEARED: [(u64, ExtentAction); 3] = [
    (1, ExtentAction::Zero),
    (3, ExtentAction::Punch),
    (5, ExtentAction::Discard),
];

#[test]
fn block_device_is_read_written_discarded_and_zeroed() {
    let Some(device) = Loop::attach(1 << 20) else {
        println!("skipped: a block device, this user may not make a loop device");
        return;
    };
    let image = File::options()
        .read(true)
        .write(true)
        .open(&device.path)
        .unwrap();
    let disk = Arc::new(RawDisk::new(image).unwrap());
    assert_eq!(
        (disk.size(), disk.backing()),
        (1 << 20, Backing::BlockDevice)
    );
    let memory = memory();
    memory.write_slice(&[5; 65536], GuestAddress(0)).unwrap();
    for mut engine in engines(&disk, &memory) {
        let segments = [segment(0, 65536)];
        let write = DiskRequest::Write {
            offset: 0,
            segments: &segments,
        };
        engine.submit(0, write).unwrap();
        engine.commit().unwrap();
        drain(&mut *engine);
        let extents = CLEARED.map(|(page, action)| Extent {
            offset: page * 4096,
            len: 4096,
            action,
        });
        engine
            .submit(0, DiskRequest::Clear { extents: &extents })
            .unwrap();
        engine.submit(1, DiskRequest::Flush).unwrap();
        engine.commit().unwrap();
        drain(&mut *engine);
        for page in 0..16 {
            let mut found = [0; 4096];
            device
                .backing
                .as_file()
                .read_exact_at(&mut found, page * 4096)
                .unwrap();
            let cleared = CLEARED.iter().any(|(cleared, _)| *cleared == page);
            let expected = if cleared { 0 } else { 5 };
            assert_eq!(found, [expected; 4096], "{}, page {page}", engine.name());
        }
    }
}
