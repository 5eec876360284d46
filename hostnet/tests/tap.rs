//! Opening taps, each test in a network namespace of its own. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::process::Command;
use std::thread;

use hostnet::private::{PrivateBridge, PrivateNetwork, PrivateTap};
use hostnet::tap::{Form, TapError, open};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` where `ip` has made what `prepare` says, or prints why it cannot.
fn in_namespace(prepare: &'static [&str], test: fn()) {
    // A thread of its own, which takes its namespace along when it ends.
    let ran = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: no network namespace can be made: {error}");
            return;
        }
        for arguments in prepare {
            let made = Command::new("ip").args(arguments.split(' ')).status();
            if !made.is_ok_and(|status| status.success()) {
                println!("skipped: `ip {arguments}` does not work here");
                return;
            }
        }
        test();
    });
    ran.join().unwrap();
}

fn opened(queues: u8) -> Result<usize, TapError> {
    open(&"vm-slot1".parse().unwrap(), queues).map(|opened| opened.len())
}

#[test]
fn tap_of_several_queues_is_opened_as_often_as_asked() {
    let prepare = &["tuntap add vm-slot1 mode tap multi_queue"];
    in_namespace(prepare, || {
        for queues in [1, 3, 8] {
            assert_eq!(opened(queues).unwrap(), usize::from(queues));
        }
        assert_eq!(opened(0).unwrap(), 1);
    });
}

#[test]
fn tap_of_one_queue_is_opened_once() {
    in_namespace(&["tuntap add vm-slot1 mode tap"], || {
        assert_eq!(opened(4).unwrap(), 1);
    });
}

#[test]
fn tap_in_use_is_busy_whatever_it_was_made_for() {
    const UP: &str = "link set vm-slot1 up";
    let check = || {
        let name = "vm-slot1".parse().unwrap();
        let user = open(&name, 2).unwrap();
        assert!(matches!(opened(1), Err(TapError::Busy { .. })));
        drop(user);
        assert_eq!(opened(1).unwrap(), 1, "free at once when its user is gone");
    };
    in_namespace(&["tuntap add vm-slot1 mode tap multi_queue", UP], check);
    in_namespace(&["tuntap add vm-slot1 mode tap", UP], check);
}

#[test]
fn absent_tap_is_not_made() {
    in_namespace(&[], || {
        for _ in 0..2 {
            assert!(matches!(opened(2), Err(TapError::Missing { .. })));
        }
    });
}

#[test]
fn tap_of_a_network_of_ones_own_is_made_anew_in_the_form_that_is_asked_for() {
    in_namespace(&[], || {
        let network = PrivateNetwork::enter().unwrap();
        let tap = |form| PrivateTap {
            name: "vm-slot1".parse().unwrap(),
            form,
            bridge: Some("br-slot1".parse().unwrap()),
        };
        let bridge = PrivateBridge {
            name: "br-slot1".parse().unwrap(),
            address: "10.1.0.1/24".parse().unwrap(),
        };
        network.bridge(&bridge).unwrap();
        for (form, queues) in [(Form::Several, 3), (Form::One, 1), (Form::One, 1)] {
            network.tap(&tap(form)).unwrap();
            assert_eq!(opened(3).unwrap(), queues);
        }
        let show = |arguments: &str| {
            let shown = Command::new("ip").args(arguments.split(' ')).output();
            String::from_utf8(shown.unwrap().stdout).unwrap()
        };
        let addresses = show("-o address");
        assert_eq!(addresses.matches("10.1.0.1/24").count(), 1, "{addresses}");
        let tap = show("-o link show vm-slot1");
        assert!(
            tap.contains("master br-slot1") && tap.contains(",UP"),
            "{tap}"
        );
    });
}
