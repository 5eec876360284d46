use std::collections::BTreeMap;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::testing::fuzz;
use crate::vsock::{Answer, Cid, Peer, Service as _};

/// Values by name; each is given out until it is taken away.
struct Fixed(BTreeMap<Name, Result<Vec<u8>, Refusal>>);

impl Fixed {
    fn with(name: &str, value: Result<Vec<u8>, Refusal>) -> Self {
        Self(BTreeMap::from([(name.parse().unwrap(), value)]))
    }
}

impl Store for Fixed {
    fn names(&self) -> Vec<Name> {
        self.0.keys().cloned().collect()
    }

    fn read(&mut self, name: &Name) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let value = self.0.get(name).cloned();
        value.unwrap_or(Err(Refusal::Unknown)).map(Zeroizing::new)
    }
}

fn peer(port: u32) -> Peer {
    Peer {
        cid: Cid::new(3).unwrap(),
        port,
    }
}

fn ask(store: Fixed, request: &[u8]) -> Vec<u8> {
    let mut service = CredentialService::new(store);
    let mut session = service.accept(peer(1023)).unwrap();
    match session.receive(request) {
        Answer::Last(bytes) => bytes.to_vec(),
        Answer::NotYet => panic!("no answer to {request:?}"),
    }
}

#[test]
fn value_arrives_exactly() {
    for value in [&b""[..], b"\0", b"\xff\xfe\n", b"secret\n", &[7; 1 << 20]] {
        let answer = ask(Fixed::with("key", Ok(value.to_vec())), b"GET key\n");
        let head = format!("OK {}\n", value.len());
        assert_eq!(answer, [head.as_bytes(), value].concat());
    }
}

#[test]
fn list_has_a_line_for_each_name() {
    let mut store = Fixed::with("HOST-B", Ok(Vec::new()));
    store.0.insert("HOST-A b".parse().unwrap(), Ok(Vec::new()));
    assert_eq!(ask(store, b"LIST\n"), b"OK 16\nHOST-A b\nHOST-B\n");
    assert_eq!(ask(Fixed(BTreeMap::new()), b"LIST\n"), b"OK 0\n");
}

#[test]
fn refusals_say_why() {
    let table: [(Fixed, &[u8], &str); 7] = [
        (
            Fixed::with("key", Ok(vec![1])),
            b"GET no\n",
            "no such credential",
        ),
        (
            Fixed::with("key", Err(Refusal::Spent)),
            b"GET key\n",
            "given out already",
        ),
        (
            Fixed::with("key", Err(Refusal::Unreadable)),
            b"GET key\n",
            "the host cannot read it",
        ),
        (
            Fixed::with("key", Ok(vec![0; MAX_CREDENTIAL_BYTES + 1])),
            b"GET key\n",
            "the host cannot read it",
        ),
        (
            Fixed::with("key", Ok(vec![1])),
            b"GET a/b\n",
            "name not valid",
        ),
        (
            Fixed::with("key", Ok(vec![1])),
            b"PUT key\n",
            "unknown request, expected LIST or GET and a name",
        ),
        (
            Fixed::with("key", Ok(vec![1])),
            &[b'G'; 300],
            "request too long",
        ),
    ];
    for (store, request, reason) in table {
        let answer = String::from_utf8(ask(store, request)).unwrap();
        assert_eq!(answer, format!("ERR {reason}\n"));
    }
}

#[test]
fn end_without_a_line_is_refused() {
    let mut service = CredentialService::new(Fixed::with("key", Ok(vec![1])));
    let mut session = service.accept(peer(1)).unwrap();
    assert!(matches!(session.receive(b"GET key"), Answer::NotYet));
    let Answer::Last(answer) = session.end() else {
        panic!("no answer");
    };
    assert_eq!(*answer, b"ERR request ends without a line break\n");
}

#[test]
fn only_privileged_ports_are_served() {
    let mut service = CredentialService::new(Fixed::with("key", Ok(vec![1])));
    assert!(service.accept(peer(1023)).is_some());
    for port in [1024, 5121, u32::MAX] {
        assert!(service.accept(peer(port)).is_none(), "{port}");
    }
}

#[test]
fn longest_name_can_be_asked_for() {
    let name = "n".repeat(MAX_NAME_BYTES);
    let store = Fixed::with(&name, Ok(b"v".to_vec()));
    assert_eq!(ask(store, format!("GET {name}\n").as_bytes()), b"OK 1\nv");
}

#[test]
fn names_are_those_that_systemd_takes() {
    for good in [
        "a",
        "HOST-API-KEY",
        "a.b_c@d",
        "with blank",
        "...",
        "ssh.key=1",
    ] {
        assert!(good.parse::<Name>().is_ok(), "{good}");
    }
    let long = "n".repeat(MAX_NAME_BYTES + 1);
    for bad in ["", ".", "..", "a/b", "a:b", "a\nb", "ä", "\u{7f}", &long] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
}

#[test]
fn answers_are_not_printed() {
    let answer = Answer::Last(Zeroizing::new(b"OK 6\nsecret".to_vec()));
    assert_eq!(format!("{answer:?}"), "Last(11 bytes)");
}

proptest! {
    #[test]
    fn any_bytes_are_answered_alike_in_any_pieces(
        input in prop::collection::vec(prop_oneof![
            3 => any::<u8>(),
            1 => Just(b'\n'),
        ], 0..400),
        prefix in prop_oneof![Just("GET "), Just("LIST"), Just("")],
    ) {
        let input = [prefix.as_bytes(), &input].concat();
        fuzz::credential_request(&input);
    }
}
