//! Looking at a queue: for how long, and who ends it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vhost_user_backend::{VhostUserBackend as _, VringT as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::pace::Pace;
use super::vring::Vring;
use super::{Backend, Poll};
use crate::server::{Policy, Server};
use crate::share::{Budget, Share, Tree};

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Longer than any test: whoever looks until then ends for another reason.
const HOUR: Duration = Duration::from_secs(3600);

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// Serves requests for ten microseconds, `gap` after the queue was found empty; returns for how long
/// to look for the next.
fn round(pace: &mut Pace, clock: &mut Instant, gap: u64) -> Duration {
    let began = *clock + micros(gap);
    let ended = began + micros(10);
    *clock = ended;
    let until = pace.served(began, ended);
    until.map_or(Duration::ZERO, |until| until - ended)
}

#[test]
fn queue_is_looked_at_once_its_driver_was_quick_and_until_it_is_slow() {
    let (mut pace, mut now) = (Pace::new(micros(40)), Instant::now());
    assert_eq!(round(&mut pace, &mut now, 0), Duration::ZERO, "the first");
    assert_eq!(round(&mut pace, &mut now, 40), micros(40));
    assert_eq!(round(&mut pace, &mut now, 0), micros(40));
    assert_eq!(round(&mut pace, &mut now, 41), Duration::ZERO, "slow");
    assert_eq!(round(&mut pace, &mut now, 41), Duration::ZERO, "still");
    assert_eq!(round(&mut pace, &mut now, 39), micros(40));
}

#[test]
fn queue_that_shall_not_be_looked_at_is_not() {
    let (mut pace, mut now) = (Pace::new(Duration::ZERO), Instant::now());
    for _ in 0..3 {
        assert_eq!(round(&mut pace, &mut now, 0), Duration::ZERO);
    }
    assert_eq!(Poll::For(Duration::ZERO).limit(), Duration::ZERO);
}

#[test]
fn machine_says_how_long_to_look() {
    let limit = Poll::Auto.limit();
    let several = thread::available_parallelism().unwrap() > NonZeroUsize::MIN;
    let sound = micros(20)..=micros(1000);
    assert!(!several || sound.contains(&limit), "{limit:?}");
}

proptest! {
    #[test]
    fn looking_in_vain_takes_no_longer_than_the_limit_and_happens_once(
        gaps in prop::collection::vec(0_u64..1000, 1..50),
        limit in 0_u64..300,
    ) {
        let (mut pace, mut now) = (Pace::new(micros(limit)), Instant::now());
        let mut looked = Duration::ZERO;
        for gap in gaps {
            let in_vain = micros(gap) > looked && looked > Duration::ZERO;
            looked = round(&mut pace, &mut now, gap);
            prop_assert!(looked <= micros(limit));
            prop_assert!(!(in_vain && looked > Duration::ZERO));
        }
    }
}

/// A backend and a queue of it that a driver has set up.
fn subject(place: &tempfile::TempDir) -> (Arc<Backend>, Vring, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    let atomic = GuestMemoryAtomic::new(memory.clone());
    let tree = Tree::new(
        Share::open(place.path()).unwrap(),
        Budget::of_limit(Some(0)),
    )
    .unwrap();
    let server = Arc::new(Server::new(tree, Policy::default()));
    let backend = Backend::new(server, NonZeroUsize::MIN, HOUR, atomic.clone());
    let vring = Vring::new(atomic, 16).unwrap();
    vring.set_queue_size(16);
    vring.set_queue_info(0, AVAIL, USED).unwrap();
    vring.set_queue_ready(true);
    vring.set_enabled(true);
    (Arc::new(backend), vring, memory)
}

/// Has a thread look at an empty queue for an hour while `stop` happens; what it saw.
fn looked(stop: impl FnOnce(&Backend, &Vring, &GuestMemoryMmap)) -> bool {
    let place = tempfile::tempdir().unwrap();
    let (backend, vring, memory) = subject(&place);
    let looking = {
        let (backend, vring) = (Arc::clone(&backend), vring.clone());
        thread::spawn(move || backend.look(&vring, Instant::now() + HOUR).unwrap())
    };
    stop(&backend, &vring, &memory);
    looking.join().unwrap()
}

#[test]
fn request_is_seen_without_a_kick() {
    assert!(looked(|_, _, memory| {
        memory
            .store(1_u16.to_le(), GuestAddress(AVAIL + 2), Ordering::Release)
            .unwrap();
    }));
}

#[test]
fn whoever_stops_a_queue_does_not_wait_for_the_one_that_looks() {
    assert!(!looked(|backend, vring, _| {
        vring.set_queue_ready(false);
        backend.stop_vring(0).unwrap();
    }));
    assert!(!looked(|_, vring, _| vring.set_enabled(false)));
}

#[test]
fn nobody_looks_once_the_frontend_is_gone() {
    assert!(!looked(|backend, _, _| backend.end()));
}

#[test]
fn event_of_a_stopped_queue_touches_no_memory() {
    let place = tempfile::tempdir().unwrap();
    let (backend, vring, memory) = subject(&place);
    let filled = vec![0x5a; 0x10000];
    for event_idx in [false, true] {
        vring.set_queue_event_idx(event_idx);
        vring.set_queue_ready(false);
        backend.stop_vring(0).unwrap();
        memory.write_slice(&filled, GuestAddress(0)).unwrap();
        let vrings = std::slice::from_ref(&vring);
        backend.handle_event(0, EventSet::IN, vrings, 0).unwrap();
        let mut after = vec![0; filled.len()];
        memory.read_slice(&mut after, GuestAddress(0)).unwrap();
        assert!(after == filled, "event index: {event_idx}");
    }
}
