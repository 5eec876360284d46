//! Plans, checked without touching the host.

use ipnet::Ipv4Net;

use crate::inspect::{Link, LinkKind, Observed};
use crate::plan::{Desired, MARK, Operation, PlanError, to_apply, to_remove};

const UID: u32 = 990;

fn desired() -> Desired {
    Desired {
        bridge: "br-slot1".parse().unwrap(),
        tap: "vm-slot1".parse().unwrap(),
        gateway: "10.1.0.1/24".parse().unwrap(),
        owner: UID,
    }
}

fn link(index: u32, kind: LinkKind) -> Link {
    Link {
        index,
        kind,
        up: true,
        controller: None,
        alias: Some(MARK.to_owned()),
        addresses: Vec::new(),
    }
}

fn complete() -> Observed {
    let gateway: Ipv4Net = "10.1.0.1/24".parse().unwrap();
    let tap = LinkKind::Tap {
        owner: Some(UID),
        multi_queue: false,
    };
    Observed {
        bridge: Some(Link {
            addresses: vec![gateway],
            ..link(7, LinkKind::Bridge)
        }),
        tap: Some(Link {
            controller: Some(7),
            ..link(8, tap)
        }),
    }
}

fn steps(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_host_gets_bridge_then_tap() {
    let nothing = Observed {
        bridge: None,
        tap: None,
    };
    let operations = to_apply(&desired(), &nothing).unwrap();
    assert_eq!(
        steps(&operations),
        [
            "create bridge br-slot1",
            "mark br-slot1 as ours",
            "add 10.1.0.1/24 to br-slot1",
            "bring br-slot1 up",
            "create tap vm-slot1 for user 990",
            "mark vm-slot1 as ours",
            "put vm-slot1 into br-slot1",
            "bring vm-slot1 up",
        ]
    );
}

#[test]
fn a_complete_host_needs_nothing() {
    assert_eq!(to_apply(&desired(), &complete()), Ok(Vec::new()));
}

#[test]
fn only_what_drifted_is_repaired() {
    let mut observed = complete();
    observed.bridge.as_mut().unwrap().addresses.clear();
    let tap = observed.tap.as_mut().unwrap();
    tap.kind = LinkKind::Tap {
        owner: None,
        multi_queue: false,
    };
    tap.controller = None;
    tap.up = false;
    let operations = to_apply(&desired(), &observed).unwrap();
    assert_eq!(
        steps(&operations),
        [
            "add 10.1.0.1/24 to br-slot1",
            "give tap vm-slot1 to user 990",
            "put vm-slot1 into br-slot1",
            "bring vm-slot1 up",
        ]
    );
}

#[test]
fn names_taken_by_something_else_are_refused() {
    let mut observed = complete();
    observed.bridge.as_mut().unwrap().kind = LinkKind::Other("dummy".to_owned());
    assert!(matches!(
        to_apply(&desired(), &observed),
        Err(PlanError::Taken {
            expected: "a bridge",
            ..
        })
    ));

    let mut observed = complete();
    observed.tap.as_mut().unwrap().kind = LinkKind::Other("tun".to_owned());
    assert!(matches!(
        to_apply(&desired(), &observed),
        Err(PlanError::Taken {
            expected: "a tap",
            ..
        })
    ));
}

#[test]
fn a_tap_that_can_not_serve_is_refused() {
    let mut observed = complete();
    observed.tap.as_mut().unwrap().controller = Some(99);
    assert!(matches!(
        to_apply(&desired(), &observed),
        Err(PlanError::OtherBridge { index: 99, .. })
    ));

    let mut observed = complete();
    observed.tap.as_mut().unwrap().kind = LinkKind::Tap {
        owner: Some(UID),
        multi_queue: true,
    };
    assert!(matches!(
        to_apply(&desired(), &observed),
        Err(PlanError::MultiQueue { .. })
    ));
}

#[test]
fn only_what_we_made_is_removed() {
    let (operations, staying) = to_remove(&desired(), &complete());
    assert_eq!(steps(&operations), ["delete vm-slot1", "delete br-slot1"]);
    assert!(staying.is_empty());

    let mut observed = complete();
    observed.bridge.as_mut().unwrap().alias = None;
    let (operations, staying) = to_remove(&desired(), &observed);
    assert_eq!(steps(&operations), ["delete vm-slot1"]);
    assert_eq!(staying, ["br-slot1".parse().unwrap()]);
}
