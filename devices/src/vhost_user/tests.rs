//! Backends and their states, within limits.

use std::time::Duration;

use super::{Connection, TransferLimits, VhostUserError};
use crate::testing::backend::{Backends, Remembering};

const LIMITS: TransferLimits = TransferLimits {
    bytes: 1 << 20,
    time: Duration::from_secs(10),
};

fn connected(remembering: Remembering) -> (Connection, Backends) {
    let mut backends = Backends::new();
    backends.remember(remembering);
    (Connection::open(&mut backends, None).unwrap(), backends)
}

#[test]
fn state_goes_to_a_backend_and_comes_back() {
    let (connection, backends) = connected(Remembering::Faithful);
    for state in [&b""[..], b"what it knew", &[0x5a; 60_000]] {
        connection.restore(state, LIMITS).unwrap();
        assert_eq!(backends.state().as_deref(), Some(state));
        assert_eq!(connection.save(LIMITS).unwrap(), state);
    }
}

#[test]
fn states_beyond_the_limit_are_refused_and_the_connection_goes_on() {
    let (connection, backends) = connected(Remembering::Faithful);
    backends.set_state(&[1; 101]);
    let tight = TransferLimits {
        bytes: 100,
        ..LIMITS
    };
    let saved = connection.save(tight);
    assert!(matches!(
        saved,
        Err(VhostUserError::StateTooLong { limit: 100 })
    ));
    let restored = connection.restore(&[1; 101], tight);
    assert!(matches!(
        restored,
        Err(VhostUserError::StateTooLong { limit: 100 })
    ));
    assert_eq!(connection.save(LIMITS).unwrap(), [1; 101]);
}

#[test]
fn backend_that_keeps_its_end_open_is_not_waited_for_longer_than_the_limit() {
    let (connection, _backends) = connected(Remembering::Stuck);
    let short = TransferLimits {
        time: Duration::from_millis(20),
        ..LIMITS
    };
    let timed_out = |result: Result<(), VhostUserError>| {
        matches!(result, Err(VhostUserError::Transfer(error))
            if error.kind() == std::io::ErrorKind::TimedOut)
    };
    assert!(timed_out(connection.save(short).map(drop)));
    // More than a pipe holds, and nobody reads.
    assert!(timed_out(connection.restore(&[0; 1 << 20], short)));
}

#[test]
fn failures_and_backends_without_states_are_told_apart() {
    let (connection, _backends) = connected(Remembering::Failing);
    assert!(matches!(
        connection.save(LIMITS),
        Err(VhostUserError::Request { .. })
    ));
    assert!(matches!(
        connection.restore(b"x", LIMITS),
        Err(VhostUserError::Request { .. })
    ));
    let (connection, _backends) = connected(Remembering::Never);
    assert!(matches!(
        connection.save(LIMITS),
        Err(VhostUserError::NoDeviceState)
    ));
    assert!(matches!(
        connection.restore(b"x", LIMITS),
        Err(VhostUserError::NoDeviceState)
    ));
}

#[test]
fn backend_that_dies_in_the_middle_is_an_error_at_once() {
    let (connection, backends) = connected(Remembering::Faithful);
    backends.kill();
    assert!(!connection.is_alive());
    assert!(connection.save(LIMITS).is_err());
    assert!(connection.restore(b"x", LIMITS).is_err());
}
