use std::time::Instant;

use super::*;
use crate::rate_limit::{Limits, Pacer, Rate, RateLimiter};
use crate::testing::{Part, guest_memory};

/// Lets `operations` frames pass and then none for longer than a test runs.
fn pacer(operations: u64) -> Pacer {
    let limits = Limits {
        bytes: None,
        operations: Some(Rate {
            per_second: 1.try_into().unwrap(),
            burst: operations.try_into().unwrap(),
        }),
    };
    let limiter = Arc::new(std::sync::Mutex::new(RateLimiter::new(&limits)));
    Pacer::new(
        limiter,
        Instant::now() + std::time::Duration::from_secs(3600),
    )
    .unwrap()
}

#[test]
fn frames_beyond_the_limit_stay_in_the_ring() {
    let memory = guest_memory();
    let (tap, host) = wire();
    let mut driver = QueueDriver::new(&memory, 1, 256);
    for seed in 0..5 {
        driver.add(&[Part::Readable(&frame(seed, 100))]);
    }
    let mut tx = tx(&memory, &driver).with_pacer(Some(pacer(3)));
    assert_eq!(tx.process(&tap).unwrap(), Burst::Limited);
    assert_eq!(receive_all(&host).len(), 3);
    assert_eq!(driver.device_used_idx(), 3);
    assert_eq!(tx.process(&tap).unwrap(), Burst::Limited, "still");
}

#[test]
fn frames_beyond_the_limit_stay_in_the_tap() {
    let memory = guest_memory();
    let (tap, host) = wire();
    let mut driver = QueueDriver::new(&memory, 0, 256);
    for seed in 0..5 {
        driver.add(&[Part::Writable(1536)]);
        host.send(&frame(seed, 100)).unwrap();
    }
    let mut rx = rx(&memory, &driver, Buffers::Merged).with_pacer(Some(pacer(2)));
    assert_eq!(rx.process(&tap).unwrap(), Burst::Limited);
    assert_eq!(driver.device_used_idx(), 2);
}
