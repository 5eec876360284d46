use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::vsock::{Answer, Cid, Peer, Service as _};

#[derive(Default)]
struct Heard(Mutex<Vec<Report>>);

impl Listener for Heard {
    fn hear(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }
}

fn target(name: &str) -> Target {
    name.parse().unwrap()
}

fn peer(port: u32) -> Peer {
    Peer {
        cid: Cid::new(3).unwrap(),
        port,
    }
}

/// What is heard of a connection that sends `pieces`.
fn heard(pieces: &[&[u8]]) -> Vec<Report> {
    let listener = Arc::new(Heard::default());
    let mut service = NotifyService::new(listener.clone());
    let mut session = service.accept(peer(1023)).unwrap();
    for piece in pieces {
        assert!(matches!(session.receive(piece), Answer::NotYet));
    }
    assert!(matches!(session.end(), Answer::Last(bytes) if bytes.is_empty()));
    std::mem::take(&mut listener.0.lock().unwrap())
}

#[test]
fn every_line_of_a_message_is_heard() {
    let reports = heard(&[b"READY=1\nSTATUS=Ready.\nX_SYSTEMD_UNIT_ACTIVE=multi-user.target"]);
    assert_eq!(
        reports,
        [
            Report::Ready,
            Report::Status("Ready.".to_owned()),
            Report::Active(target("multi-user.target")),
        ]
    );
    let end = heard(&[b"EXIT_STATUS=3\nX_SYSTEMD_SHUTDOWN=poweroff\n"]);
    assert_eq!(
        end,
        [Report::ExitStatus(3), Report::Shutdown(Shutdown::Poweroff)]
    );
}

#[test]
fn nothing_but_the_known_fields_is_heard() {
    for line in [
        "MAINPID=1",
        "FDSTORE=1",
        "WATCHDOG=1",
        "RELOADING=1",
        "EXTEND_TIMEOUT_USEC=1",
        "READY=0",
        "READY",
        "ready=1",
        "EXIT_STATUS=256",
        "X_SYSTEMD_SHUTDOWN=fly",
        "X_SYSTEMD_UNIT_ACTIVE=ssh.service",
        "X_SYSTEMD_UNIT_ACTIVE=a b.target",
        "X_SYSTEMD_UNIT_ACTIVE=.target",
        "",
    ] {
        assert_eq!(heard(&[line.as_bytes()]), [], "{line}");
    }
    assert_eq!(heard(&[b"READY=1\xff"]), []);
}

#[test]
fn a_line_too_long_is_dropped_and_the_next_one_is_heard() {
    let long = [b"STATUS=".as_slice(), &[b'x'; MAX_LINE_BYTES], b"\nREADY=1"].concat();
    assert_eq!(heard(&[&long]), [Report::Ready]);
}

#[test]
fn a_status_is_printable_and_short() {
    let sent = format!("STATUS=\x1b[2J{}", "ä".repeat(MAX_STATUS_BYTES));
    let [Report::Status(text)] = &heard(&[sent.as_bytes()])[..] else {
        panic!("no status")
    };
    assert!(text.starts_with("[2Jää") && text.len() <= MAX_STATUS_BYTES);
}

#[test]
fn a_program_without_privileges_is_refused() {
    let mut service = NotifyService::new(Arc::new(Heard::default()));
    assert!(service.accept(peer(1024)).is_none());
    assert!(service.accept(peer(1023)).is_some());
}

#[test]
fn who_does_not_stop_is_hung_up_on() {
    let mut service = NotifyService::new(Arc::new(Heard::default()));
    let mut session = service.accept(peer(1)).unwrap();
    let piece = [b'x'; 4096];
    for _ in 0..MAX_CONNECTION_BYTES / piece.len() {
        assert!(matches!(session.receive(&piece), Answer::NotYet));
    }
    assert!(matches!(session.receive(b"x"), Answer::Last(_)));
}

proptest! {
    #[test]
    fn any_bytes_are_taken(input in proptest::collection::vec(any::<u8>(), 0..4096)) {
        crate::testing::fuzz::notification(&input);
    }

    #[test]
    fn how_a_message_is_cut_does_not_matter(
        message in "(READY=1|STATUS=[a-z]{0,8}|X_SYSTEMD_UNIT_ACTIVE=[a-z]{1,4}\\.target|\\PC{0,9}|\n){0,20}",
        cut in 0..200usize,
    ) {
        let bytes = message.as_bytes();
        let (front, back) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(heard(&[front, back]), heard(&[bytes]));
    }
}
