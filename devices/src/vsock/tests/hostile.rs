//! What no honest guest does.

use proptest::prelude::{any, prop, proptest};

use super::*;
use crate::vsock::packet::SHUTDOWN_SEND;
use crate::vsock::{MAX_CONNECTIONS, WINDOW_BYTES};

#[test]
fn odd_packets_are_answered_with_a_reset() {
    let request = guest(1000, Op::Request);
    let cases = [
        ("another type", Header { kind: 2, ..request }),
        ("no type", Header { kind: 0, ..request }),
        ("operation 0", Header { op: 0, ..request }),
        ("operation 8", Header { op: 8, ..request }),
        ("data without a connection", guest(1000, Op::Data)),
        ("response without a request", guest(1000, Op::Response)),
        (
            "shutdown without a connection",
            shutdown(1000, SHUTDOWN_SEND),
        ),
        ("credit without a connection", guest(1000, Op::CreditUpdate)),
    ];
    for (what, header) in cases {
        let mut bench = Bench::new();
        bench.send(header, b"");
        let reset = bench.expect(Op::Reset);
        assert_eq!(
            (reset.src_port, reset.dst_port, reset.kind),
            (DIALLED, 1000, header.kind),
            "{what}"
        );
        assert_eq!(bench.mux.connections(), 0, "{what}");
    }
}

#[test]
fn another_machine_is_not_there() {
    let mut bench = Bench::new();
    let header = Header {
        dst_cid: 4,
        ..guest(1000, Op::Request)
    };
    bench.mux.receive(&header, b"");
    let room = VolatileSlice::from(bench.buffer.as_mut_slice());
    let reset = bench.mux.next(&room).unwrap();
    assert_eq!(Op::of(reset.op), Some(Op::Reset));
    assert_eq!((reset.src_cid, reset.dst_cid), (4, GUEST));
}

#[test]
fn somebody_elses_name_is_ignored() {
    let mut bench = Bench::new();
    for src_cid in [0, 1, 2, 4, u64::MAX, GUEST | 1 << 32] {
        bench.send(
            Header {
                src_cid,
                ..guest(1000, Op::Request)
            },
            b"",
        );
    }
    bench.silent();
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn resets_are_never_answered() {
    let mut bench = Bench::new();
    for header in [
        guest(1000, Op::Reset),
        Header {
            kind: 9,
            ..guest(1000, Op::Reset)
        },
        Header {
            dst_cid: 9,
            ..guest(1000, Op::Reset)
        },
    ] {
        bench.send(header, b"");
        bench.silent();
    }
}

#[test]
fn what_contradicts_an_open_connection_ends_it() {
    let cases = [
        ("a second request", guest(1000, Op::Request)),
        ("a response", guest(1000, Op::Response)),
        (
            "an unknown operation",
            Header {
                op: 99,
                ..guest(1000, Op::Data)
            },
        ),
    ];
    for (what, header) in cases {
        let mut bench = Bench::new();
        let _host = bench.open(1000);
        bench.send(header, b"");
        bench.expect(Op::Reset);
        bench.silent();
        assert_eq!(bench.mux.connections(), 0, "{what}");
    }
}

#[test]
fn data_after_its_end_is_a_reset() {
    let mut bench = Bench::new();
    let _host = bench.open(1000);
    bench.send(shutdown(1000, SHUTDOWN_SEND), b"");
    bench.send(data(1000, b"x"), b"x");
    bench.expect(Op::Reset);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn data_beyond_the_window_is_a_reset() {
    let mut bench = Bench::new();
    let _host = bench.open(1000);
    let chunk = [0; 65_536];
    // Nothing is ever read on the host: its socket fills up, then the window.
    let refused = (0..100).find(|_| {
        bench.send(data(1000, &chunk), &chunk);
        bench.mux.connections() == 1
            && std::iter::from_fn(|| bench.recv())
                .any(|(header, _)| Op::of(header.op) == Some(Op::Reset))
    });
    let taken = refused.unwrap() * 65_536;
    assert!(
        taken >= WINDOW_BYTES as usize,
        "{taken} bytes were taken first"
    );
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_full_table_refuses_both_sides_and_recovers() {
    let mut bench = Bench::new();
    let limit = u32::try_from(MAX_CONNECTIONS).unwrap();
    let hosts: Vec<_> = (0..limit).map(|port| bench.open(port)).collect();
    bench.send(guest(limit, Op::Request), b"");
    bench.expect(Op::Reset);
    let mut client = bench.client();
    std::io::Write::write_all(&mut client, b"CONNECT 1\n").unwrap();
    bench.silent();
    assert_eq!(std::io::Read::read(&mut client, &mut [0]).unwrap(), 0);
    drop(hosts);
    bench.send(guest(0, Op::Reset), b"");
    bench.send(guest(limit, Op::Request), b"");
    let answer = std::iter::from_fn(|| bench.recv()).find(|(header, _)| header.dst_port == limit);
    assert_eq!(Op::of(answer.unwrap().0.op), Some(Op::Response));
}

#[test]
fn a_storm_of_resets_waits_for_the_guest() {
    let mut bench = Bench::new();
    let mut sent = 0;
    while bench.mux.can_receive() {
        bench.send(guest(sent, Op::Data), b"");
        sent += 1;
    }
    assert!(sent <= 1024, "the list of resets is bounded");
    for port in 0..sent {
        assert_eq!(bench.expect(Op::Reset).dst_port, port);
    }
    assert!(bench.mux.can_receive());
}

proptest! {
    #[test]
    fn any_packets_are_survived(input in prop::collection::vec(any::<u8>(), 0..4096)) {
        crate::testing::fuzz::vsock_packets(&input);
    }

    #[test]
    fn any_rings_are_survived(input in prop::collection::vec(any::<u8>(), 0..2048)) {
        crate::testing::fuzz::queues("vsock", &input);
    }
}
