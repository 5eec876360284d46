use vm_memory::GuestAddress;

use super::*;
use crate::device::{Memory, VirtioDevice};
use crate::registry::BuildError;
use crate::testing::{FakeInterrupt, activation};
use crate::transport::registers::{INTERRUPT_STATUS, INTERRUPT_USED};
use crate::transport::status::DEVICE_NEEDS_RESET;
use crate::vhost_user::VhostUserError;

fn built(config: &FsConfig, backends: Backends) -> Result<Fs, BuildError> {
    Fs::build(config, Box::new(backends), None)
}

#[test]
fn configuration_space_names_tag_and_request_queues() {
    let device = built(&config(OnExit::Fail), Backends::new()).unwrap();
    let mut space = [0xff; 48];
    device.read_config(0, &mut space);
    assert_eq!(&space[..8], b"ro-store");
    assert_eq!(space[8..36], [0; 28]);
    assert_eq!(space[36..40], 2u32.to_le_bytes());
    assert_eq!(space[40..], [0; 8]);
    assert_eq!(device.spec().queue_sizes.len(), 3);
}

#[test]
fn share_has_no_more_queues_than_its_backend() {
    let config = FsConfig {
        queues: MAX_REQUEST_QUEUES,
        ..config(OnExit::Fail)
    };
    let device = built(&config, Backends::new()).unwrap();
    assert_eq!(device.spec().queue_sizes.len(), 4);
}

#[test]
fn tags_and_queues_out_of_range_are_refused() {
    let tags = [String::new(), "x".repeat(37), "nul\0".to_owned()];
    let bad_tags = tags.map(|tag| FsConfig {
        tag,
        ..config(OnExit::Fail)
    });
    let bad_queues = [0, MAX_REQUEST_QUEUES + 1].map(|queues| FsConfig {
        queues,
        ..config(OnExit::Fail)
    });
    for config in bad_tags.iter().chain(&bad_queues) {
        let refused = built(config, Backends::new());
        assert!(matches!(refused, Err(BuildError::Unfit { .. })));
    }
}

#[test]
fn absent_backend_is_an_error_at_once() {
    let backends = Backends::new();
    backends.limit(0);
    let refused = built(&config(OnExit::Restart), backends).map(|_| ());
    let Err(BuildError::Backend { source, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(matches!(source, VhostUserError::Connect(_)));
}

#[test]
fn backend_serves_every_queue_and_interrupts_by_itself() {
    let (mut driver, _backends) = fs(OnExit::Fail);
    let mut queues = driver.start();
    for queue in &mut queues {
        let head = request(queue, 77);
        driver.notify(queue);
        assert!(queue.wait_used(&driver).is_some());
        assert_eq!(answer(queue, head), (0, 77));
        assert_eq!(
            driver.read(INTERRUPT_STATUS) & INTERRUPT_USED,
            INTERRUPT_USED
        );
    }
}

#[test]
fn queues_go_on_where_they_were_after_a_pause() {
    let (mut driver, backends) = fs(OnExit::Fail);
    let mut queues = driver.start();
    for unique in 0..600 {
        let queue = &mut queues[1];
        let head = request(queue, unique);
        driver.notify(queue);
        assert!(queue.wait_used(&driver).is_some());
        assert_eq!(answer(queue, head), (0, unique));
        if unique % 100 == 99 {
            driver.transport.stop().unwrap();
            driver.transport.resume().unwrap();
        }
    }
    assert_eq!(backends.started(), 1);
    assert_eq!(backends.taken(), 600, "each request is served once");
}

#[test]
fn reset_and_another_driver_keep_the_backend() {
    let (mut driver, backends) = fs(OnExit::Fail);
    for unique in 0..5 {
        let mut queues = driver.start();
        let head = request(&mut queues[1], unique);
        driver.notify(&queues[1]);
        assert!(queues[1].wait_used(&driver).is_some());
        assert_eq!(answer(&queues[1], head), (0, unique));
    }
    assert_eq!(backends.started(), 1);
}

#[test]
fn private_memory_is_refused_and_every_request_fails() {
    let backends = Backends::new();
    let mut device = built(&config(OnExit::Fail), backends).unwrap();
    let memory = Memory::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let irq = FakeInterrupt::new();
    let mut queues: Vec<_> = (0..3)
        .map(|index| QueueDriver::new(&memory, index, 16))
        .collect();
    let active = queues.iter().map(|queue| queue.active_queue(0));
    device
        .activate(activation(&memory, &irq, 0, active))
        .unwrap();
    assert!(irq.wait_needs_reset());
    let queue = queues.get_mut(1).unwrap();
    let head = request(queue, 1);
    queue.kick();
    assert!(queue.wait_used(&irq).is_some());
    assert_eq!(answer(queue, head), (-libc::ENOTCONN, 1));
}

#[test]
fn broken_ring_while_refusing_is_survived() {
    let (mut driver, backends) = fs(OnExit::Fail);
    let mut queues = settle(&mut driver);
    backends.kill();
    let irq = driver.irq();
    let seen = crate::testing::wait_for(&irq, || {
        (driver.status() & DEVICE_NEEDS_RESET != 0).then_some(())
    });
    assert!(seen.is_some());
    queues[1].publish(u16::MAX);
    driver.notify(&queues[1]);
    let mut fresh = driver.start();
    let head = request(&mut fresh[1], 5);
    driver.notify(&fresh[1]);
    assert!(fresh[1].wait_used(&driver).is_some());
    assert_eq!(answer(&fresh[1], head), (0, 5));
}
