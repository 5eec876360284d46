use super::*;
use crate::device::VirtioDevice;
use crate::registry::BuildError;
use crate::state::{MAX_STATE_BYTES, StateBlob, StateError};
use crate::testing::backend::Remembering;
use crate::testing::{FakeInterrupt, activation};
use crate::vhost_user::VhostUserError;

fn build(backends: &Backends, saved: Option<StateBlob>) -> Result<Fs, BuildError> {
    let connect = Box::new(backends.clone());
    Fs::build(&config(OnExit::Restart), connect, saved)
}

/// Has a driver send a request, and stops.
fn use_once(device: &mut Fs) {
    let (memory, irq) = (guest_memory(), FakeInterrupt::new());
    let features = device.spec().features;
    let mut queues: Vec<_> = (0..3)
        .map(|index| QueueDriver::new(&memory, index, 16))
        .collect();
    let active = queues.iter().map(|queue| queue.active_queue(features));
    device
        .activate(activation(&memory, &irq, features, active))
        .unwrap();
    let head = request(&mut queues[1], 3);
    queues[1].kick();
    assert!(queues[1].wait_used(&irq).is_some());
    assert_eq!(answer(&queues[1], head), (0, 3));
    device.stop().unwrap();
}

/// A share that a driver has used, with a backend that has `state` to remember.
fn used(state: &[u8]) -> (Fs, Backends) {
    let backends = Backends::new();
    backends.set_state(state);
    let mut device = build(&backends, None).unwrap();
    use_once(&mut device);
    (device, backends)
}

#[test]
fn another_backend_is_given_what_the_last_one_knew() {
    for length in [0, 1, 60_000] {
        let state: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
        let (device, _backends) = used(&state);
        let saved = device.save().unwrap();
        let others = Backends::new();
        let mut restored = build(&others, Some(saved.clone())).unwrap();
        assert_eq!(others.state(), Some(state), "{length}");
        assert_eq!(restored.save().unwrap(), saved);
        use_once(&mut restored);
        assert_eq!(restored.save().unwrap(), saved);
    }
}

#[test]
fn share_that_no_driver_used_has_nothing_to_save() {
    let backends = Backends::new();
    backends.remember(Remembering::Never);
    let saved = build(&backends, None).unwrap().save().unwrap();
    let restored = build(&backends, Some(saved.clone())).unwrap();
    assert_eq!(restored.save().unwrap(), saved);
    assert_eq!(backends.state(), None);
}

#[test]
fn backend_that_cannot_save_is_an_error_that_names_the_share() {
    for remembering in [Remembering::Never, Remembering::Failing] {
        let backends = Backends::new();
        backends.remember(remembering);
        let mut device = build(&backends, None).unwrap();
        use_once(&mut device);
        let refused = device.save().unwrap_err();
        assert!(refused.to_string().contains("Device fs0"), "{refused}");
        assert!(matches!(refused, StateError::NotSaved { .. }));
        // The share goes on.
        use_once(&mut device);
    }
}

#[test]
fn backend_that_cannot_go_on_with_a_state_is_an_error() {
    for remembering in [Remembering::Never, Remembering::Failing] {
        let saved = used(b"state").0.save().unwrap();
        let backends = Backends::new();
        backends.remember(remembering);
        let refused = build(&backends, Some(saved)).map(drop).unwrap_err();
        let BuildError::State { source, .. } = refused else {
            panic!("{refused:?}");
        };
        assert!(matches!(source, StateError::NotRestored { .. }));
    }
}

#[test]
fn dead_backend_has_no_state() {
    let (device, backends) = used(b"state");
    backends.kill();
    assert!(matches!(
        device.save(),
        Err(StateError::NotSaved {
            source: VhostUserError::Gone,
            ..
        })
    ));
}

#[test]
fn states_with_more_behind_or_too_long_are_refused() {
    let good = used(b"state").0.save().unwrap();
    let longer = StateBlob {
        bytes: [&good.bytes[..], &[0]].concat(),
        ..good.clone()
    };
    // What the length says is not there.
    let lying = StateBlob {
        bytes: vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f, 7],
        ..good.clone()
    };
    let zeros = StateBlob {
        bytes: vec![0; MAX_STATE_BYTES + 1],
        ..good
    };
    for saved in [longer, lying, zeros] {
        let backends = Backends::new();
        let refused = build(&backends, Some(saved)).map(drop);
        assert!(matches!(refused, Err(BuildError::State { .. })));
        assert_eq!(backends.state(), None, "it never got to the backend");
    }
}
