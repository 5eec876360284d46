//! Whatever a guest sends, in whatever order.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_message_gets_at_most_the_reply_it_has_room_for(
        message in prop::collection::vec(any::<u8>(), 0..256),
        room in 0_usize..8192,
    ) {
        let guest = Guest::new();
        std::fs::write(guest.host("a"), "data").unwrap();
        if let Some(request) = Request::parse(&message) {
            bounded(&guest.server.answer(&request, room), room);
        }
    }

    #[test]
    fn any_sequence_of_requests_leaves_a_server_that_serves(
        requests in prop::collection::vec(
            (0_u32..64, 0_usize..8, prop::collection::vec(any::<u8>(), 0..64)),
            1..64,
        ),
    ) {
        let guest = Guest::new();
        std::fs::create_dir(guest.host("d")).unwrap();
        std::fs::write(guest.host("d/f"), "data").unwrap();
        let mut nodes = vec![ROOT_ID, 0, u64::MAX];
        for (opcode, node, body) in requests {
            nodes.extend(guest.walk("d"));
            nodes.extend(guest.walk("d/f"));
            let node = nodes[nodes.len().saturating_sub(node + 1)];
            bounded(&guest.raw(opcode, node, &body, 4096), 4096);
        }
        let file = guest.walk("d/f").unwrap();
        prop_assert_eq!(guest.read(file, 0, 10).unwrap(), b"data");
    }
}

fn bounded(reply: &Reply, room: usize) {
    match reply {
        Reply::Body(body) => assert!(body.len() <= room),
        Reply::Data { len, .. } => assert!(*len <= room),
        Reply::None | Reply::Error(_) => {}
    }
}
