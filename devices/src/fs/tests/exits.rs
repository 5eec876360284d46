use super::*;
use crate::testing::backend::Behaviour;
use crate::testing::wait_for;
use crate::transport::status::DEVICE_NEEDS_RESET;

const GONE: i32 = -libc::ENOTCONN;

fn wait_needs_reset(driver: &mut MmioDriver) -> bool {
    let irq = driver.irq();
    wait_for(&irq, || {
        (driver.status() & DEVICE_NEEDS_RESET != 0).then_some(())
    })
    .is_some()
}

/// A driver with requests 10 to 12 in the hands of a backend that says nothing.
fn unanswered(on_exit: OnExit) -> (MmioDriver, Backends, Vec<QueueDriver>, Vec<u16>) {
    let (mut driver, backends) = fs(on_exit);
    backends.behave(Behaviour::Swallow);
    let mut queues = driver.start();
    let heads = (10..13)
        .map(|unique| request(&mut queues[1], unique))
        .collect();
    driver.notify(&queues[1]);
    assert!(backends.wait_taken(3));
    (driver, backends, queues, heads)
}

#[test]
fn another_backend_answers_what_a_dead_one_left() {
    let (mut driver, backends, mut queues, heads) = unanswered(OnExit::Restart);
    backends.behave(Behaviour::Answer);
    backends.kill();
    for (head, unique) in heads.into_iter().zip(10..) {
        assert_eq!(queues[1].wait_used(&driver).unwrap().head, head);
        assert_eq!(answer(&queues[1], head), (0, unique));
    }
    assert_eq!(backends.started(), 2);
    assert_eq!(driver.status() & DEVICE_NEEDS_RESET, 0);

    let head = request(&mut queues[2], 13);
    driver.notify(&queues[2]);
    assert!(queues[2].wait_used(&driver).is_some());
    assert_eq!(answer(&queues[2], head), (0, 13));
}

#[test]
fn without_a_restart_every_request_gets_an_error() {
    let (mut driver, backends, mut queues, heads) = unanswered(OnExit::Fail);
    backends.kill();
    for (head, unique) in heads.into_iter().zip(10..) {
        assert_eq!(queues[1].wait_used(&driver).unwrap().head, head);
        assert_eq!(answer(&queues[1], head), (GONE, unique));
    }
    assert!(wait_needs_reset(&mut driver));
    assert_eq!(backends.started(), 1);

    let head = request(&mut queues[2], 13);
    driver.notify(&queues[2]);
    assert!(queues[2].wait_used(&driver).is_some());
    assert_eq!(answer(&queues[2], head), (GONE, 13));
}

#[test]
fn request_that_wants_no_answer_is_given_back_empty() {
    let (mut driver, backends) = fs(OnExit::Fail);
    let mut queues = settle(&mut driver);
    backends.kill();
    assert!(wait_needs_reset(&mut driver));
    let head = queues[0].add(&[Part::Readable(&header(1))]);
    driver.notify(&queues[0]);
    let used = queues[0].wait_used(&driver).unwrap();
    assert_eq!((used.head, used.written), (head, 0));
}

#[test]
fn reset_after_a_death_brings_another_backend() {
    let (mut driver, backends, _, _) = unanswered(OnExit::Fail);
    backends.behave(Behaviour::Answer);
    backends.kill();
    assert!(wait_needs_reset(&mut driver));
    let mut queues = driver.start();
    let head = request(&mut queues[1], 1);
    driver.notify(&queues[1]);
    assert!(queues[1].wait_used(&driver).is_some());
    assert_eq!(answer(&queues[1], head), (0, 1));
    assert_eq!(backends.started(), 2);
}

#[test]
fn backend_that_died_during_a_pause_is_replaced() {
    let (mut driver, backends, mut queues, heads) = unanswered(OnExit::Restart);
    backends.behave(Behaviour::Answer);
    driver.transport.stop().unwrap();
    backends.kill();
    driver.transport.resume().unwrap();
    // The dead one had taken the three requests before the pause, and said so.
    drop(heads);
    let head = request(&mut queues[2], 20);
    driver.notify(&queues[2]);
    assert!(queues[2].wait_used(&driver).is_some());
    assert_eq!(answer(&queues[2], head), (0, 20));
    assert_eq!(backends.started(), 2);
}

#[test]
fn what_a_backend_served_before_it_broke_down_is_not_served_again() {
    let (mut driver, backends) = fs(OnExit::Restart);
    let mut queues = settle(&mut driver);
    driver.transport.stop().unwrap();
    let head = request(&mut queues[1], 20);
    backends.fail_to_enable(2);
    driver.transport.resume().unwrap();
    assert_eq!(queues[1].wait_used(&driver).unwrap().head, head);
    assert_eq!(answer(&queues[1], head), (0, 20));
    // The broken one never had the queue after it.
    for place in [2, 1] {
        let head = request(&mut queues[place], 21);
        driver.notify(&queues[place]);
        assert_eq!(queues[place].wait_used(&driver).unwrap().head, head);
        assert_eq!(answer(&queues[place], head), (0, 21));
    }
    assert_eq!(queues[1].device_used_idx(), 3);
    assert_eq!((backends.started(), backends.taken()), (2, 3 + 3));
}

#[test]
fn backend_that_dies_again_and_again_is_given_up() {
    let (mut driver, backends) = fs(OnExit::Restart);
    let mut queues = driver.start();
    let mut served = 0;
    for unique in 0..6 {
        let head = request(&mut queues[1], unique);
        driver.notify(&queues[1]);
        assert!(queues[1].wait_used(&driver).is_some());
        if answer(&queues[1], head) != (0, unique) {
            break;
        }
        served += 1;
        backends.kill();
    }
    assert_eq!(served, 6, "five restarts after the first start");
    assert!(wait_needs_reset(&mut driver));
    assert_eq!(backends.started(), 6);
    let head = request(&mut queues[1], 99);
    driver.notify(&queues[1]);
    assert!(queues[1].wait_used(&driver).is_some());
    assert_eq!(answer(&queues[1], head), (GONE, 99));
}

#[test]
fn restart_without_another_backend_answers_with_errors() {
    let (driver, backends, mut queues, heads) = unanswered(OnExit::Restart);
    backends.limit(0);
    backends.kill();
    for (head, unique) in heads.into_iter().zip(10..) {
        assert_eq!(queues[1].wait_used(&driver).unwrap().head, head);
        assert_eq!(answer(&queues[1], head), (GONE, unique));
    }
}
