//! What honest guests and honest programs do.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::*;
use crate::vsock::WINDOW_BYTES;
use crate::vsock::packet::{SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

fn read(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let count = stream.read(&mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

#[test]
fn a_program_of_the_host_reaches_a_port_of_the_guest() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.write_all(b"CONNECT 22\nSSH-2.0").unwrap();
    let request = bench.expect(Op::Request);
    assert_eq!(request.dst_port, 22);
    assert_eq!(request.buf_alloc, WINDOW_BYTES);
    bench.silent();

    bench.send(
        Header {
            src_port: 22,
            dst_port: request.src_port,
            ..guest(22, Op::Response)
        },
        b"",
    );
    assert_eq!(
        read(&mut client),
        format!("OK {}\n", request.src_port).as_bytes()
    );
    // What the client said too early is not lost.
    let (header, bytes) = bench.recv().unwrap();
    assert_eq!(
        (Op::of(header.op), bytes.as_slice()),
        (Some(Op::Data), b"SSH-2.0".as_slice())
    );
}

#[test]
fn a_client_that_the_guest_refuses_is_hung_up_on() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.write_all(b"CONNECT 22\n").unwrap();
    let request = bench.expect(Op::Request);
    bench.send(
        Header {
            dst_port: request.src_port,
            ..guest(22, Op::Reset)
        },
        b"",
    );
    assert_eq!(read(&mut client), b"");
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_client_that_gives_up_leaves_nothing() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    client.write_all(b"CONNECT 22\n").unwrap();
    bench.expect(Op::Request);
    drop(client);
    bench.expect(Op::Reset);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut bench = Bench::new();
    let mut client = bench.client();
    for piece in [b"CONN".as_slice(), b"ECT 4", b"2\n"] {
        bench.silent();
        client.write_all(piece).unwrap();
    }
    assert_eq!(bench.expect(Op::Request).dst_port, 42);
}

#[test]
fn a_client_that_speaks_something_else_is_hung_up_on() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "CONNECT 22222222222222222222222222222",
    ] {
        let mut bench = Bench::new();
        let mut client = bench.client();
        client.write_all(line.as_bytes()).unwrap();
        bench.silent();
        // The end, or a reset when bytes were left unread.
        assert!(!matches!(client.read(&mut [0]), Ok(1)), "{line}");
    }
}

#[test]
fn silent_clients_keep_nobody_out() {
    let mut bench = Bench::new();
    let silent: Vec<_> = (0..100)
        .map(|_| {
            let client = bench.client();
            bench.silent();
            client
        })
        .collect();
    let mut client = bench.client();
    client.write_all(b"CONNECT 1\n").unwrap();
    bench.expect(Op::Request);
    assert_eq!(silent.len(), 100);
}

#[test]
fn bytes_pass_in_both_directions() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    bench.send(data(1000, b"\0ping\xff"), b"\0ping\xff");
    assert_eq!(read(&mut host), b"\0ping\xff");
    host.write_all(b"pong\n").unwrap();
    let (header, bytes) = bench.recv().unwrap();
    assert_eq!((header.len, bytes.as_slice()), (5, b"pong\n".as_slice()));
    assert_eq!(header.fwd_cnt, 6, "data carries the window");
    bench.silent();
}

#[test]
fn nobody_at_the_port_is_a_reset() {
    let mut bench = Bench::new();
    bench.send(
        Header {
            dst_port: 53,
            ..guest(1000, Op::Request)
        },
        b"",
    );
    let reset = bench.expect(Op::Reset);
    assert_eq!((reset.src_port, reset.dst_port), (53, 1000));
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn half_closed_by_the_host_still_takes_from_the_guest() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.recv().unwrap().1, b"question");
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_SEND);
    bench.send(data(1000, b"answer"), b"answer");
    assert_eq!(read(&mut host), b"answer");
    bench.send(shutdown(1000, SHUTDOWN_BOTH), b"");
    assert_eq!(read(&mut host), b"");
    bench.expect(Op::Reset);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn half_closed_by_the_guest_still_takes_from_the_host() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    bench.send(data(1000, b"question"), b"question");
    bench.send(shutdown(1000, SHUTDOWN_SEND), b"");
    assert_eq!(read(&mut host), b"question");
    assert_eq!(read(&mut host), b"");
    host.write_all(b"answer").unwrap();
    drop(host);
    assert_eq!(bench.recv().unwrap().1, b"answer");
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
    bench.send(guest(1000, Op::Reset), b"");
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn a_deaf_guest_makes_the_host_notice() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    bench.send(shutdown(1000, SHUTDOWN_RECEIVE), b"");
    let error = host.write_all(b"anybody?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_program_that_goes_in_two_steps_is_reported_in_two_steps() {
    let mut bench = Bench::new();
    let host = bench.open(1000);
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_SEND);
    drop(host);
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
}

#[test]
fn a_program_that_never_reads_stops_the_guest_at_its_window() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    let mut sent = 0u32;
    let mut forwarded = 0u32;
    let chunk = [7; 4096];
    loop {
        while let Some((header, _)) = bench.recv() {
            forwarded = header.fwd_cnt;
        }
        if sent - forwarded + 4096 > WINDOW_BYTES {
            break;
        }
        bench.send(data(1000, &chunk), &chunk);
        sent += 4096;
    }
    // The program reads at last: everything comes, and the guest hears of the room.
    let mut got = 0;
    while got < sent {
        got += u32::try_from(read(&mut host).len()).unwrap();
        while let Some((header, _)) = bench.recv() {
            assert_eq!(Op::of(header.op), Some(Op::CreditUpdate));
            forwarded = header.fwd_cnt;
        }
    }
    assert_eq!(got, sent);
    assert!(sent - forwarded <= WINDOW_BYTES / 4);
}

#[test]
fn what_was_sent_before_a_reset_reaches_a_slow_program() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    // More than the socket holds, so that some of it waits in the connection.
    let chunk = [7; 4096];
    let mut sent = 0;
    let mut forwarded = 0;
    while sent - forwarded + 4096 <= WINDOW_BYTES {
        bench.send(data(1000, &chunk), &chunk);
        sent += 4096;
        while let Some((header, _)) = bench.recv() {
            forwarded = header.fwd_cnt;
        }
    }
    bench.send(shutdown(1000, SHUTDOWN_BOTH), b"");
    bench.silent();
    bench.send(guest(1000, Op::Reset), b"");
    // The guest may use the port again already.
    let second = bench.open(1000);
    let mut got = 0;
    loop {
        match read(&mut host).len() {
            0 => break,
            bytes => got += u32::try_from(bytes).unwrap(),
        }
        bench.silent();
    }
    assert_eq!(got, sent);
    assert_eq!(bench.mux.connections(), 1);
    drop(second);
}

#[test]
fn a_guest_without_room_is_asked_once_and_then_left_alone() {
    let mut bench = Bench::new();
    bench.send(
        Header {
            buf_alloc: 10,
            ..guest(1000, Op::Request)
        },
        b"",
    );
    bench.expect(Op::Response);
    let mut host = bench.dialled.try_recv().unwrap();
    host.write_all(b"0123456789abcdef").unwrap();
    assert_eq!(bench.recv().unwrap().1, b"0123456789");
    bench.expect(Op::CreditRequest);
    bench.silent();
    bench.send(
        Header {
            buf_alloc: 10,
            fwd_cnt: 4,
            ..guest(1000, Op::CreditUpdate)
        },
        b"",
    );
    assert_eq!(bench.recv().unwrap().1, b"abcd");
    bench.expect(Op::CreditRequest);
    bench.silent();
}

#[test]
fn a_question_for_credit_is_answered() {
    let mut bench = Bench::new();
    let _host = bench.open(1000);
    bench.send(guest(1000, Op::CreditRequest), b"");
    assert_eq!(bench.expect(Op::CreditUpdate).buf_alloc, WINDOW_BYTES);
}

#[test]
fn every_connection_gets_a_turn() {
    let mut bench = Bench::new();
    let mut hosts: Vec<_> = (0..3).map(|port| bench.open(1000 + port)).collect();
    for host in &mut hosts {
        host.write_all(&[1; 10_000]).unwrap();
    }
    let first: Vec<_> = (0..3).map(|_| bench.recv().unwrap().0.dst_port).collect();
    let second: Vec<_> = (0..3).map(|_| bench.recv().unwrap().0.dst_port).collect();
    assert_eq!(first, second);
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|port| (1000..1003).contains(port)));
}

#[test]
fn ten_thousand_short_connections_leave_nothing() {
    let mut bench = Bench::new();
    for round in 0..10_000u32 {
        let port = 1024 + round % 50_000;
        let mut host = bench.open(port);
        bench.send(data(port, b"hello"), b"hello");
        assert_eq!(read(&mut host), b"hello");
        host.write_all(b"bye").unwrap();
        drop(host);
        assert_eq!(bench.recv().unwrap().1, b"bye");
        bench.expect(Op::Shutdown);
        bench.send(guest(port, Op::Reset), b"");
    }
    assert_eq!(bench.mux.connections(), 0);
    bench.silent();
}

#[test]
fn disconnected_programs_notice() {
    let mut bench = Bench::new();
    let mut host = bench.open(1000);
    bench.mux.disconnect();
    assert_eq!(read(&mut host), b"");
    bench.silent();
}
