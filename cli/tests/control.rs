//! What clients of the control socket do when the other side is not what they expect.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use common::Host;

/// Serves one connection with `answer`, and returns the request's first line.
fn serve(host: &Host, answer: &'static str) -> JoinHandle<String> {
    std::fs::create_dir_all(host.path("run/slot1")).unwrap();
    let path = host.path("run/slot1/control.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 256];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    })
}

#[test]
fn verbs_become_requests() {
    let host = Host::new();
    for (verb, request) in [
        ("pause", "PUT /v1/vm/pause HTTP/1.1"),
        ("resume", "PUT /v1/vm/resume HTTP/1.1"),
    ] {
        let server = serve(&host, "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(host.run(&[verb, "slot1"]).code, Some(0));
        assert_eq!(server.join().unwrap(), request);
    }
}

#[test]
fn a_refusal_is_passed_on() {
    let host = Host::new();
    let server = serve(
        &host,
        "HTTP/1.1 409 Conflict\r\nContent-Length: 30\r\n\r\n{\"error\": \"it is paused now.\"}",
    );
    host.run(&["pause", "slot1"])
        .failed_with(1, "slot1 refused PUT /v1/vm/pause: it is paused now.");
    assert_eq!(server.join().unwrap(), "PUT /v1/vm/pause HTTP/1.1");
}

#[test]
fn an_answer_of_something_else_is_not_taken_for_one() {
    let host = Host::new();
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n[]",
    ] {
        let server = serve(&host, answer);
        host.run(&["status", "slot1"])
            .failed_with(1, "is it another version of slotvmm?");
        server.join().unwrap();
    }
}

#[test]
fn a_socket_that_nobody_listens_on_is_not_a_running_slot() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("run/slot1")).unwrap();
    drop(UnixListener::bind(host.path("run/slot1/control.sock")).unwrap());
    host.run(&["status", "slot1"])
        .failed_with(1, "slot1 is not running");
    let list = host.run(&["list"]);
    assert!(list.stdout.contains("slot1  off"), "{list:?}");
}
