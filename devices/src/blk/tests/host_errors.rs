//! What the host refuses, and what drivers hear of it; interrupts and their suppression.

use std::collections::VecDeque;
use std::io;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::disk::{Completion, DiskRequest, SubmitError};

/// An engine whose requests finish one by one, each when it is waited for, with a given error.
struct Slow {
    requests: VecDeque<u16>,
    errno: Option<i32>,
}

impl DiskEngine for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn completion_event(&self) -> Option<&EventFd> {
        None
    }

    fn submit(&mut self, tag: u16, _: DiskRequest<'_>) -> Result<(), SubmitError> {
        self.requests.push_back(tag);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.extend(self.requests.pop_back().map(|tag| {
            Completion {
                tag,
                result: self
                    .errno
                    .map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))),
            }
        }));
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.requests.len()
    }
}

fn slow(errno: Option<i32>, features: u64) -> Bench {
    let requests = VecDeque::new();
    let engine = Box::new(Slow { requests, errno });
    Bench::with(guest_memory(), image(), engine, features)
}

fn add_flushes(bench: &mut Bench, count: usize) -> Vec<u16> {
    let header = header(FLUSH, 0);
    let chain = [Part::Readable(&header), Part::Writable(1)];
    (0..count).map(|_| bench.driver.add(&chain)).collect()
}

#[test]
fn host_error_is_an_io_error_for_the_driver() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EROFS] {
        let mut bench = slow(Some(errno), FEATURES);
        let (status, used, _) = bench.request(IN, 0, &[Part::Writable(512)]);
        assert_eq!((status, used), (IOERR, 1));
        assert_eq!(bench.status(FLUSH, 0, &[]), IOERR);
    }
}

#[test]
fn image_that_shrank_gives_io_errors() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        bench.image.set_len(512 * 9).unwrap();
        assert_eq!(
            bench.status(IN, 8, &[Part::Writable(1024)]),
            IOERR,
            "{engine}"
        );
        assert_eq!(bench.status(IN, 8, &[Part::Writable(512)]), OK, "{engine}");
        assert_eq!(
            bench.status(IN, 100, &[Part::Writable(512)]),
            IOERR,
            "{engine}"
        );
    }
}

#[test]
fn drain_completes_every_request_out_of_order() {
    let mut bench = slow(None, FEATURES);
    let mut heads = add_flushes(&mut bench, 20);
    bench.run();
    let mut used: Vec<u16> = std::iter::from_fn(|| bench.driver.take_used())
        .map(|used| used.head)
        .collect();
    assert_ne!(used, heads);
    used.sort_unstable();
    heads.sort_unstable();
    assert_eq!(used, heads);
}

#[test]
fn head_in_flight_can_not_ask_for_something_else() {
    let mut bench = slow(None, FEATURES);
    let heads = add_flushes(&mut bench, 2);
    bench.queue.start();
    assert_eq!(bench.driver.take_used().unwrap().head, heads[1]);
    let header_at = GuestAddress(bench.driver.address(heads[0], 0));
    bench.memory.write_obj(header(77, 0), header_at).unwrap();
    bench.driver.publish(heads[0]);
    bench.queue.start();
    assert!(bench.irq.is_reset_needed());
    assert_eq!(bench.driver.device_used_idx(), 1);
}

#[test]
fn interrupt_comes_when_the_driver_asked_for_it() {
    let mut bench = slow(None, FEATURES);
    // The driver wants to hear of the third used element, and of no other.
    let used_event = bench.driver.available_ring() + 4 + 2 * u64::from(QUEUE_SIZE);
    bench
        .memory
        .write_obj(2_u16, GuestAddress(used_event))
        .unwrap();
    for (count, interrupts) in [(2, 0), (1, 1), (5, 1)] {
        add_flushes(&mut bench, count);
        bench.run();
        assert_eq!(bench.irq.queue_interrupts(), interrupts);
    }
}

#[test]
fn device_asks_for_the_next_kick() {
    for engine in engines() {
        let mut bench = Bench::new(engine);
        add_flushes(&mut bench, 5);
        bench.run();
        let avail_event = bench.driver.used_ring() + 4 + 8 * u64::from(QUEUE_SIZE);
        let asked: u16 = bench.memory.read_obj(GuestAddress(avail_event)).unwrap();
        assert_eq!(asked, 5, "{engine}");
    }
}

#[test]
fn driver_without_event_index_can_mute_the_device() {
    const NO_INTERRUPT: u16 = 1;
    let mut bench = slow(None, 1 << 32);
    let flags = GuestAddress(bench.driver.available_ring());
    bench.memory.write_obj(NO_INTERRUPT, flags).unwrap();
    add_flushes(&mut bench, 1);
    bench.run();
    assert_eq!(bench.irq.queue_interrupts(), 0);
    bench.memory.write_obj(0_u16, flags).unwrap();
    add_flushes(&mut bench, 1);
    bench.run();
    assert_eq!(bench.irq.queue_interrupts(), 1);
}

/// An engine that makes its request available once more each time it is done.
struct Endless {
    memory: Memory,
    avail_idx: GuestAddress,
    requests: Vec<u16>,
}

impl DiskEngine for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    fn completion_event(&self) -> Option<&EventFd> {
        None
    }

    fn submit(&mut self, tag: u16, _: DiskRequest<'_>) -> Result<(), SubmitError> {
        self.requests.push(tag);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let index: u16 = self.memory.read_obj(self.avail_idx).unwrap();
        self.memory.write_obj(index + 1, self.avail_idx).unwrap();
        Ok(())
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.extend(self.requests.drain(..).map(|tag| Completion {
            tag,
            result: Ok(()),
        }));
    }

    fn wait(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.requests.len()
    }
}

#[test]
fn endless_work_leaves_room_for_other_events() {
    let memory = guest_memory();
    let rings = QueueDriver::new(&memory, 0, QUEUE_SIZE);
    let engine = Box::new(Endless {
        memory: memory.clone(),
        avail_idx: GuestAddress(rings.available_ring() + 2),
        requests: Vec::new(),
    });
    let mut bench = Bench::with(memory, image(), engine, FEATURES);
    // Every slot of the fresh ring names descriptor 0.
    let head = add_flushes(&mut bench, 1);
    assert_eq!(head, [0]);
    bench.queue.start();
    let served = bench.driver.device_used_idx();
    assert!((1..1000).contains(&served), "{served}");
    let kicks = bench.queue.into_queue().kick.read();
    assert_eq!(kicks.unwrap(), 1, "the queue asks for another turn");
}

/// A filesystem of 64 KiB in a mount namespace of its own, gone with its process.
struct TinyFilesystem(Child);

impl TinyFilesystem {
    fn mount() -> Option<(Self, File)> {
        let script = "mount -t tmpfs -o size=64k tmpfs /mnt && truncate -s 128k /mnt/disk && echo ready && read end";
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut this = Self(child.ok()?);
        let mut line = String::new();
        BufReader::new(this.0.stdout.take()?)
            .read_line(&mut line)
            .ok()?;
        let path = format!("/proc/{}/root/mnt/disk", this.0.id());
        let disk = File::options().read(true).write(true).open(path).ok()?;
        (line == "ready\n").then_some((this, disk))
    }
}

impl Drop for TinyFilesystem {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn full_filesystem_is_an_io_error_until_space_is_freed() {
    let Some((filesystem, disk)) = TinyFilesystem::mount() else {
        println!("skipped: a full filesystem, this user may not mount one");
        return;
    };
    for engine in engines() {
        let mut bench = Bench::on(engine, disk.try_clone().unwrap());
        let data = [1; 64 * 512];
        let status =
            |bench: &mut Bench, sector| bench.status(OUT, sector, &[Part::Readable(&data)]);
        assert_eq!(status(&mut bench, 0), OK, "{engine}");
        assert_eq!(status(&mut bench, 64), OK, "{engine}");
        assert_eq!(status(&mut bench, 128), IOERR, "{engine}");
        let all = range(0, 256, 0);
        assert_eq!(
            bench.status(DISCARD, 0, &[Part::Readable(&all)]),
            OK,
            "{engine}"
        );
        assert_eq!(status(&mut bench, 128), OK, "{engine}");
        // This filesystem has no way to zero and keep allocated: zeroes are written.
        let first = range(128, 8, 0);
        assert_eq!(
            bench.status(WRITE_ZEROES, 0, &[Part::Readable(&first)]),
            OK,
            "{engine}"
        );
        assert_eq!(bench.content(128, 8), [0; 8 * 512], "{engine}");
        assert_eq!(bench.content(136, 56), [1; 56 * 512], "{engine}");
        assert_eq!(
            bench.status(DISCARD, 0, &[Part::Readable(&all)]),
            OK,
            "{engine}"
        );
    }
    drop(filesystem);
}
