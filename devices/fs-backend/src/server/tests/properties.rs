//! Whatever a guest sends, in whatever order.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::testing::fuzz;

/// Runs a property against one server, which each case finds as the first one did.
fn hold<S: Strategy>(inputs: &S, property: impl Fn(&Server, &S::Value)) {
    let directory = tempfile::tempdir().unwrap();
    let server = fuzz::subject(directory.path()).unwrap();
    TestRunner::default()
        .run(inputs, |input| {
            property(&server, &input);
            server.reset().unwrap();
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_message_gets_at_most_the_reply_it_has_room_for() {
    hold(
        &(vec(any::<u8>(), 40..256), 0_u8..64),
        |server, (message, opcode)| {
            fuzz::message(server, message);
            // The same with a header that says how long it is, and asks for something.
            let mut message = message.clone();
            let len = u32::try_from(message.len()).unwrap();
            message[..4].copy_from_slice(&len.to_le_bytes());
            message[4..8].copy_from_slice(&[*opcode, 0, 0, 0]);
            message[16..24].copy_from_slice(&ROOT_ID.to_le_bytes());
            fuzz::message(server, &message);
        },
    );
}

#[test]
fn any_sequence_of_requests_leaves_a_server_that_serves() {
    hold(&vec(any::<u8>(), 0..2048), |server, requests| {
        fuzz::messages(server, requests);
    });
}

#[test]
fn any_bytes_behind_the_head_of_a_state_leave_a_server_that_serves() {
    hold(&vec(any::<u8>(), 0..512), |server, rest| {
        fuzz::state(server, rest);
    });
}
