//! Saving a session, and going on with it.

use super::*;
use crate::inode::Journal;
use crate::server::StateError;

fn filled() -> (Guest, u64) {
    let guest = Guest::new();
    std::fs::create_dir_all(guest.host("a/b")).unwrap();
    for number in 0..50 {
        std::fs::write(guest.host(format!("a/b/{number}")), number.to_string()).unwrap();
    }
    guest.init(u64::MAX).unwrap();
    let directory = guest.walk("a/b").unwrap();
    guest.list(Opcode::Readdirplus, directory, 4096).unwrap();
    let file = guest.lookup(directory, b"7").unwrap();
    (guest, file)
}

fn restarted(guest: Guest, state: &[u8]) -> (Guest, Result<(), StateError>) {
    let budget = Budget::of_limit(Some(1024));
    let server = Guest::server(&guest.host(""), Policy::default(), budget);
    let restored = server.restore(state);
    (Guest { server, ..guest }, restored)
}

#[test]
fn another_process_goes_on_where_one_stopped() {
    let (guest, file) = filled();
    let nodes = guest.server.tree().nodes();
    let state = guest.server.save().unwrap();
    let (guest, restored) = restarted(guest, &state);
    restored.unwrap();
    assert_eq!(guest.server.save().unwrap(), state);
    assert_eq!(guest.server.tree().nodes(), nodes);
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"7");
    // It was agreed that files need not be opened, and the counts of references are the same.
    assert_eq!(guest.open(file, 0), Err(Errno::NOSYS));
    guest.forget(file, 1);
    assert!(guest.attr(file).is_ok());
    guest.forget(file, 1);
    assert!(guest.attr(file).is_err());
}

#[test]
fn backend_after_one_that_restored_knows_the_same() {
    let (guest, file) = filled();
    let state = guest.server.save().unwrap();
    let fd = rustix::fs::memfd_create("journal", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let journal = File::from(fd);
    let budget = Budget::of_limit(Some(1024));
    let server = || Guest::server(&guest.host(""), Policy::default(), budget);
    let restored = server();
    let (writer, _) = Journal::open(journal.try_clone().unwrap()).unwrap();
    restored.tree().write_down(writer);
    restored.restore(&state).unwrap();
    let nodes = restored.tree().nodes();
    drop(restored);

    let (_, known) = Journal::open(journal).unwrap();
    let successor = server();
    successor.recover(known);
    assert_eq!(successor.tree().nodes(), nodes);
    let guest = Guest {
        server: successor,
        ..guest
    };
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"7");
}

#[test]
fn what_has_gone_meanwhile_is_stale_and_the_rest_is_not() {
    let (guest, file) = filled();
    let other = guest.walk("a/b/8").unwrap();
    let state = guest.server.save().unwrap();
    std::fs::remove_file(guest.host("a/b/7")).unwrap();
    std::fs::write(guest.host("a/b/7"), "another").unwrap();
    let (guest, restored) = restarted(guest, &state);
    restored.unwrap();
    assert_eq!(guest.read(file, 0, 10), Err(Errno::STALE));
    assert_eq!(guest.read(other, 0, 10).unwrap(), b"8");
}

#[test]
fn damaged_states_are_refused_and_leave_the_session_alone() {
    let (guest, file) = filled();
    let state = guest.server.save().unwrap();
    for len in 0..state.len() {
        assert!(guest.server.restore(&state[..len]).is_err(), "{len}");
    }
    let longer = [&state[..], &[0]].concat();
    assert!(guest.server.restore(&longer).is_err());
    let mut version = state.clone();
    version[8] = 9;
    let refused = guest.server.restore(&version);
    assert!(matches!(refused, Err(StateError::Version { found: 9 })));
    let mut magic = state.clone();
    magic[0] ^= 1;
    assert!(matches!(
        guest.server.restore(&magic),
        Err(StateError::Foreign)
    ));
    assert_eq!(guest.read(file, 0, 10).unwrap(), b"7");
    // A flipped bit: refused, or a state in which nothing leads out.
    for at in (12..state.len()).step_by(11) {
        let mut state = state.clone();
        state[at] ^= 1 << (at % 8);
        if guest.server.restore(&state).is_ok() {
            let _ = guest.read(file, 0, 10);
            let _ = guest.walk("a/b/7");
        }
    }
}

#[test]
fn a_state_cannot_name_what_lies_outside() {
    let (guest, _) = filled();
    let state = guest.server.save().unwrap();
    // The name of the first directory, in its place.
    let at = state.windows(2).position(|pair| pair == [1, b'a']).unwrap() + 1;
    for name in [b'/', 0, b'.'] {
        let mut state = state.clone();
        state[at] = name;
        assert!(matches!(
            guest.server.restore(&state),
            Err(StateError::Damaged)
        ));
    }
}
