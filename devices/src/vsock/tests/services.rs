//! Ports that the process answers itself.

use zeroize::Zeroizing;

use super::*;
use crate::vsock::packet::{SHUTDOWN_BOTH, SHUTDOWN_SEND};
use crate::vsock::{Answer, MAX_SESSIONS, Peer, Session};

/// Answers a line with itself, or what came before the end; talks to ports below 1024 only.
struct Echo;

struct Line(Vec<u8>);

impl Service for Echo {
    fn accept(&mut self, peer: Peer) -> Option<Box<dyn Session>> {
        (peer.port < 1024).then(|| Box::new(Line(Vec::new())) as Box<dyn Session>)
    }
}

impl Session for Line {
    fn receive(&mut self, bytes: &[u8]) -> Answer {
        self.0.extend(bytes);
        if self.0.ends_with(b"\n") {
            Answer::Last(Zeroizing::new(self.0.clone()))
        } else {
            Answer::NotYet
        }
    }

    fn end(&mut self) -> Answer {
        Answer::Last(Zeroizing::new(b"ended".to_vec()))
    }
}

fn bench() -> Bench {
    Bench::with_services([(DIALLED, Box::new(Echo) as Box<dyn Service>)])
}

#[test]
fn a_service_answers_and_ends() {
    let mut bench = bench();
    bench.send(guest(1000, Op::Request), b"");
    bench.expect(Op::Response);
    bench.send(data(1000, b"hel"), b"hel");
    bench.silent();
    bench.send(data(1000, b"lo\n"), b"lo\n");
    assert_eq!(bench.recv().unwrap().1, b"hello\n");
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
    bench.send(guest(1000, Op::Reset), b"");
    assert_eq!(bench.mux.connections(), 0);
    assert!(bench.dialled.try_recv().is_err(), "nobody else was asked");
}

#[test]
fn the_end_is_answered_at_once() {
    let mut bench = bench();
    bench.send(guest(1000, Op::Request), b"");
    bench.expect(Op::Response);
    bench.send(data(1000, b"hel"), b"hel");
    bench.send(shutdown(1000, SHUTDOWN_SEND), b"");
    assert_eq!(bench.recv().unwrap().1, b"ended");
    assert_eq!(bench.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
}

#[test]
fn a_long_answer_keeps_to_the_window() {
    let mut bench = bench();
    bench.send(guest(1000, Op::Request), b"");
    bench.expect(Op::Response);
    let line: Vec<u8> = (0..100_000u32)
        .map(|n| u8::try_from(n % 10).unwrap())
        .chain(*b"\n")
        .collect();
    for chunk in line.chunks(50_000) {
        bench.send(data(1000, chunk), chunk);
    }
    let mut got = Vec::new();
    while got.len() < line.len() {
        let Some((header, bytes)) = bench.recv() else {
            panic!("{} of {} bytes came", got.len(), line.len());
        };
        got.extend(bytes);
        let credit = Header {
            fwd_cnt: u32::try_from(got.len()).unwrap(),
            ..guest(1000, Op::CreditUpdate)
        };
        match Op::of(header.op) {
            Some(Op::CreditUpdate) => {}
            Some(Op::CreditRequest) => bench.send(credit, b""),
            op => assert_eq!(op, Some(Op::Data)),
        }
    }
    assert_eq!(got, line);
}

#[test]
fn a_service_may_refuse_a_peer() {
    let mut bench = bench();
    bench.send(guest(1024, Op::Request), b"");
    bench.expect(Op::Reset);
    assert_eq!(bench.mux.connections(), 0);
}

#[test]
fn sessions_are_limited() {
    let mut bench = bench();
    for port in 0..u32::try_from(MAX_SESSIONS).unwrap() {
        bench.send(guest(port, Op::Request), b"");
        bench.expect(Op::Response);
    }
    bench.send(guest(1000, Op::Request), b"");
    bench.expect(Op::Reset);
    bench.send(guest(0, Op::Reset), b"");
    bench.send(guest(1000, Op::Request), b"");
    bench.expect(Op::Response);
}
