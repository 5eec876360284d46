use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;

fn rate(per_second: u64, burst: u64) -> Rate {
    Rate {
        per_second: per_second.try_into().unwrap(),
        burst: burst.try_into().unwrap(),
    }
}

fn bytes_only(per_second: u64, burst: u64) -> Limits {
    Limits {
        bytes: Some(rate(per_second, burst)),
        operations: None,
    }
}

#[test]
fn no_limits_never_wait() {
    let mut limiter = RateLimiter::new(&Limits::default());
    for _ in 0..1000 {
        assert_eq!(limiter.wait(Duration::ZERO), None);
        limiter.spend(u64::MAX);
    }
}

#[test]
fn burst_passes_at_once_and_what_follows_waits() {
    let mut limiter = RateLimiter::new(&bytes_only(1_000, 3_000));
    for _ in 0..3 {
        assert_eq!(limiter.wait(Duration::ZERO), None);
        limiter.spend(1_000);
    }
    // Nothing is left; a millisecond's worth is gathered.
    assert_eq!(limiter.wait(Duration::ZERO), Some(GATHER));
}

#[test]
fn item_above_the_burst_passes_and_is_paid_for_afterwards() {
    let mut limiter = RateLimiter::new(&bytes_only(1_000, 10));
    assert_eq!(limiter.wait(Duration::ZERO), None);
    limiter.spend(2_010);
    let wait = limiter.wait(Duration::ZERO).unwrap();
    assert_eq!(wait, Duration::from_secs(2) + GATHER);
    assert_eq!(limiter.wait(wait), None);
}

#[test]
fn operations_are_limited_whatever_their_size() {
    let limits = Limits {
        bytes: Some(rate(u64::MAX, u64::MAX)),
        operations: Some(rate(100, 2)),
    };
    let mut limiter = RateLimiter::new(&limits);
    let passed = (0..10)
        .take_while(|_| {
            let passes = limiter.wait(Duration::ZERO).is_none();
            limiter.spend(0);
            passes
        })
        .count();
    assert_eq!(passed, 2);
}

#[test]
fn clock_that_goes_back_gives_nothing_away() {
    let mut limiter = RateLimiter::new(&bytes_only(1_000, 1));
    let later = Duration::from_secs(5);
    assert_eq!(limiter.wait(later), None);
    limiter.spend(1);
    assert!(limiter.wait(Duration::ZERO).is_some());
    assert!(limiter.wait(later).is_some());
}

#[test]
fn timer_fires_when_it_is_worth_asking_again() {
    let limiter = Arc::new(Mutex::new(RateLimiter::new(&bytes_only(1_000_000, 1))));
    let pacer = Pacer::new(limiter, Instant::now()).unwrap();
    assert!(pacer.admits());
    pacer.spend(10_000);
    // Ten milliseconds' debt: each round waits for the timer, so that it ends whatever the time.
    while !pacer.admits() {
        let mut timer = [PollFd::new(&pacer.timer, PollFlags::IN)];
        assert_eq!(poll(&mut timer, None).unwrap(), 1);
    }
}

proptest! {
    /// Against arithmetic on the whole: what passed in the time since any item is within the rate,
    /// the burst and one item; who waits as long as it was told may pass.
    #[test]
    fn rate_holds_over_every_interval(
        per_second in 1..2_000_000_000_u64,
        burst in 1..10_000_000_u64,
        items in prop::collection::vec((0..100_000_u64, 0..50_000_000_u64, any::<bool>()), 1..60),
    ) {
        let mut limiter = RateLimiter::new(&bytes_only(per_second, burst));
        let mut now = Duration::ZERO;
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        for (bytes, idle_ns, waits) in items {
            now += Duration::from_nanos(idle_ns);
            if let Some(wait) = limiter.wait(now) {
                if !waits {
                    continue;
                }
                now += wait;
                prop_assert_eq!(limiter.wait(now), None);
            }
            limiter.spend(bytes);
            passed.push((now, bytes));
        }
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0_u128;
            for (at, bytes) in &passed[first..] {
                let allowed = u128::from(burst) * 1_000_000_000
                    + (*at - *from).as_nanos() * u128::from(per_second);
                // The item that took the last token may be larger than what was there.
                prop_assert!(sum * 1_000_000_000 < allowed);
                sum += u128::from(*bytes);
            }
        }
    }

    /// A bucket that is always asked for more lets the rate pass, not less.
    #[test]
    fn saturated_bucket_reaches_its_rate(
        per_second in 1_000..2_000_000_000_u64,
        burst in 1..10_000_000_u64,
        item in 1..100_000_u64,
    ) {
        let mut limiter = RateLimiter::new(&bytes_only(per_second, burst));
        let mut now = Duration::ZERO;
        let mut sum = 0_u128;
        for _ in 0..200 {
            if let Some(wait) = limiter.wait(now) {
                now += wait;
            }
            prop_assert_eq!(limiter.wait(now), None);
            limiter.spend(item);
            sum += u128::from(item);
        }
        // Each wait ends in the nanosecond after the exact moment.
        let reached = now.as_nanos() * u128::from(per_second);
        prop_assert!(sum * 1_000_000_000 + 200 * u128::from(per_second) >= reached);
    }
}
