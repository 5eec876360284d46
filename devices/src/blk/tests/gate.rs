//! The gate of an image, with the device's thread behind it.

use std::time::Duration;

use super::*;
use crate::blk::{Access, Blk, BlkConfig, Discard, Engine};
use crate::device::VirtioDevice;
use crate::disk::{CLUSTER_BYTES, GateError, Method, Preservation};
use crate::registry::Position;
use crate::testing::activation;

/// Longer than anything takes that is not stuck.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    device: Blk,
    driver: QueueDriver,
    irq: Arc<FakeInterrupt>,
    memory: Memory,
    image: File,
}

fn running(engine: Engine) -> Running {
    let (image, memory, irq) = (image(), guest_memory(), FakeInterrupt::new());
    let config = BlkConfig {
        id: DeviceId::new("disk0"),
        position: Position(0),
        access: Access::ReadWrite,
        serial: None,
        engine,
        discard: Discard::Offer,
    };
    let device = Blk::build(&config, image.try_clone().unwrap(), None).unwrap();
    let driver = QueueDriver::new(&memory, 0, QUEUE_SIZE);
    let mut running = Running {
        device,
        driver,
        irq,
        memory,
        image,
    };
    running.activate(vec![running.driver.active_queue(FEATURES)]);
    running
}

impl Running {
    fn activate(&mut self, queues: Vec<crate::device::ActiveQueue>) {
        let run = activation(&self.memory, &self.irq, FEATURES, queues);
        self.device.activate(run).unwrap();
    }

    /// Has a write of one sector begun.
    fn write(&mut self, sector: u64, byte: u8) -> u16 {
        let data = [byte; 512];
        let header = header(OUT, sector);
        let parts = [
            Part::Readable(&header),
            Part::Readable(&data),
            Part::Writable(1),
        ];
        let head = self.driver.add(&parts);
        self.driver.kick();
        head
    }

    fn sector(&self, sector: u64) -> u8 {
        let mut bytes = [0; 512];
        self.image.read_exact_at(&mut bytes, sector * 512).unwrap();
        bytes[0]
    }
}

#[test]
fn a_closed_gate_keeps_requests_in_the_ring() {
    for engine in [Engine::Sync, Engine::Auto] {
        let mut running = running(engine);
        let head = running.write(3, 0xee);
        let used = running.driver.wait_used(&running.irq).unwrap();
        assert_eq!(used.head, head);
        let image = running.device.image();
        let closed = image.gate().close(PATIENCE).unwrap();
        running.write(4, 0xee);
        assert_eq!(running.sector(4), 4, "the write was begun");
        assert!(running.driver.take_used().is_none());
        drop(closed);
        assert!(running.driver.wait_used(&running.irq).is_some());
        assert_eq!(running.sector(4), 0xee);
    }
}

#[test]
fn what_is_armed_behind_a_closed_gate_is_preserved() {
    for engine in [Engine::Sync, Engine::Auto] {
        let mut running = running(engine);
        let image = running.device.image();
        let method = Method::Copy { rate: None };
        let preservation = Arc::new(Preservation::new(Arc::clone(&image), method));
        let closed = image.gate().close(PATIENCE).unwrap();
        running.write(7, 0xee);
        image.arm(Arc::clone(&preservation));
        drop(closed);
        let target = tempfile::tempfile().unwrap();
        preservation.run(&target).unwrap();
        assert!(running.driver.wait_used(&running.irq).is_some());
        assert_eq!(running.sector(7), 0xee);
        let mut copied = vec![0; usize::try_from(CLUSTER_BYTES).unwrap()];
        target.read_exact_at(&mut copied, 0).unwrap();
        assert!(copied == pattern(0, CLUSTER_BYTES / 512));
    }
}

#[test]
fn a_device_is_stopped_and_started_behind_a_closed_gate() {
    let mut running = running(Engine::Auto);
    let image = running.device.image();
    let closed = image.gate().close(PATIENCE).unwrap();
    running.write(9, 0xee);
    let stopped = running.device.stop().unwrap();
    assert_eq!(running.sector(9), 9);
    running.activate(stopped.queues);
    let stopped = running.device.stop().unwrap();
    assert_eq!(running.sector(9), 9, "the new thread began something");
    running.activate(stopped.queues);
    drop(closed);
    assert!(running.driver.wait_used(&running.irq).is_some());
    assert_eq!(running.sector(9), 0xee);
}

#[test]
fn nobody_is_waited_for_where_nobody_serves() {
    let image = RawDisk::new(image()).unwrap();
    assert!(image.gate().close(Duration::ZERO).is_ok());
}

/// An engine whose requests never end by themselves.
struct Stuck(usize);

impl DiskEngine for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }
    fn completion_event(&self) -> Option<&vmm_sys_util::eventfd::EventFd> {
        None
    }
    fn submit(
        &mut self,
        _tag: u16,
        _request: crate::disk::DiskRequest<'_>,
    ) -> Result<(), crate::disk::SubmitError> {
        self.0 += 1;
        Ok(())
    }
    fn commit(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn reap(&mut self, _done: &mut Vec<crate::disk::Completion>) {}
    fn wait(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn in_flight(&self) -> usize {
        self.0
    }
}

#[test]
fn what_does_not_end_opens_the_gate_again() {
    let image = Arc::new(RawDisk::new(image()).unwrap());
    let attending = PreservingEngine::new(Box::new(Stuck(0)), Arc::clone(&image));
    // Nobody looks.
    let busy = image.gate().close(Duration::from_millis(1));
    assert!(matches!(busy, Err(GateError::Busy { .. })), "{busy:?}");
    assert_eq!(image.gate().look(), crate::disk::Look::Open);
    drop(attending);
    assert!(image.gate().close(Duration::ZERO).is_ok());
}

#[test]
fn an_engine_that_fails_with_requests_in_flight_is_told() {
    let memory = guest_memory();
    let mut bench = Bench::with(memory, image(), Box::new(Stuck(0)), FEATURES);
    let header = header(OUT, 0);
    let parts = [
        Part::Readable(&header),
        Part::Readable(&[1; 512]),
        Part::Writable(1),
    ];
    bench.driver.add(&parts);
    bench.queue.start();
    let guarded = bench.queue.image();
    let closer = std::thread::spawn(move || guarded.gate().close(PATIENCE).map(drop));
    while bench.queue.image().gate().look() == crate::disk::Look::Open {
        std::thread::yield_now();
    }
    // What the worker's loop does once the gate's event has fired.
    bench.queue.handle(super::super::worker::GATE);
    assert!(matches!(closer.join().unwrap(), Err(GateError::Broken)));
    assert!(bench.irq.is_reset_needed());
}
