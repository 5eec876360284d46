//! Plans, checked without touching the host.

use ipnet::Ipv4Net;

use super::{MARK, Operation, PlanError, World, to_apply, to_remove};
use crate::inspect::{Link, LinkKind, Observed, TapFlags};
use crate::policy::{Egress, HostSpec, Publish, SlotSpec, Transport};
use crate::slot::{SlotName, SlotNet};
use crate::sysctl::{Setting, Sysctl};

const UID: u32 = 990;

fn slot(name: &str) -> SlotSpec {
    let name: SlotName = name.parse().unwrap();
    let index = name.index().unwrap();
    let net = SlotNet::new(name.clone(), index);
    SlotSpec {
        bridge: net.bridge().unwrap(),
        tap: net.tap().unwrap(),
        mac: net.mac(),
        subnet: net.subnet(),
        owner: UID,
        egress: Egress::Web,
        allow_imds: false,
        host_ports: Vec::new(),
        publish: Vec::new(),
        name,
    }
}

fn host() -> HostSpec {
    HostSpec {
        uplink: Some("eth0".parse().unwrap()),
        ..HostSpec::default()
    }
}

fn sysctl(interface: &str, setting: Setting) -> Sysctl {
    let interface = interface.parse().unwrap();
    Sysctl { interface, setting }
}

/// A host with an uplink that forwards nothing.
fn empty() -> World {
    let mut world = World::default();
    world
        .sysctls
        .insert(sysctl("eth0", Setting::Forwarding), false);
    world
}

fn link(index: u32, kind: LinkKind) -> Link {
    Link {
        index,
        kind,
        up: true,
        in_use: false,
        controller: None,
        alias: Some(MARK.to_owned()),
        addresses: Vec::new(),
    }
}

fn links() -> Observed {
    let gateway: Ipv4Net = "10.1.0.1/24".parse().unwrap();
    let tap = LinkKind::Tap {
        owner: Some(UID),
        flags: TapFlags::OURS,
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

/// What there is once slot1 has been brought up.
fn complete() -> World {
    let mut world = empty();
    let plan = to_apply(&host(), &[slot("slot1")], &world).unwrap();
    world.journal = plan.journal;
    world.journal.listing = "as listed".to_owned();
    world.listing = "as listed".to_owned();
    world.links.insert("slot1".parse().unwrap(), links());
    for interface in ["eth0", "br-slot1"] {
        world
            .sysctls
            .insert(sysctl(interface, Setting::Forwarding), true);
    }
    world
}

fn complete_but(change: impl FnOnce(&mut Observed)) -> World {
    let mut world = complete();
    change(world.links.values_mut().next().unwrap());
    world
}

fn steps(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(ToString::to_string).collect()
}

fn apply(world: &World) -> Vec<String> {
    let plan = to_apply(&host(), &[slot("slot1")], world).unwrap();
    steps(&plan.operations)
}

fn refusal(world: &World) -> PlanError {
    to_apply(&host(), &[slot("slot1")], world).unwrap_err()
}

#[test]
fn an_empty_host_gets_rules_then_links_then_forwarding() {
    assert_eq!(
        apply(&empty()),
        [
            "load the rules of slot1",
            "create bridge br-slot1",
            "mark br-slot1 as ours",
            "add 10.1.0.1/24 to br-slot1",
            "bring br-slot1 up",
            "create tap vm-slot1 for user 990",
            "mark vm-slot1 as ours",
            "put vm-slot1 into br-slot1",
            "bring vm-slot1 up",
            "switch on forwarding of br-slot1",
            "switch on forwarding of eth0",
        ]
    );
}

#[test]
fn a_complete_host_needs_nothing() {
    let world = complete();
    let plan = to_apply(&host(), &[slot("slot1")], &world).unwrap();
    assert_eq!(steps(&plan.operations), [""; 0]);
    assert_eq!(plan.journal, world.journal);
}

#[test]
fn only_what_drifted_is_repaired() {
    let mut world = complete_but(|links| {
        links.bridge.as_mut().unwrap().addresses = vec!["10.99.0.1/24".parse().unwrap()];
        let tap = links.tap.as_mut().unwrap();
        tap.kind = LinkKind::Tap {
            owner: None,
            flags: TapFlags::OURS,
        };
        tap.controller = None;
        tap.up = false;
    });
    world.listing = "someone removed a rule".to_owned();
    world
        .sysctls
        .insert(sysctl("eth0", Setting::Forwarding), false);
    assert_eq!(
        apply(&world),
        [
            "load the rules of slot1",
            "add 10.1.0.1/24 to br-slot1",
            "remove 10.99.0.1/24 from br-slot1",
            "give tap vm-slot1 to user 990",
            "put vm-slot1 into br-slot1",
            "bring vm-slot1 up",
            "switch on forwarding of eth0",
        ]
    );
}

#[test]
fn a_tap_of_ours_with_other_flags_is_made_anew_unless_it_is_used() {
    let other = LinkKind::Tap {
        owner: Some(UID),
        flags: TapFlags {
            multi_queue: false,
            ..TapFlags::OURS
        },
    };
    let world = complete_but(|links| links.tap.as_mut().unwrap().kind = other.clone());
    assert_eq!(
        apply(&world),
        [
            "delete vm-slot1",
            "create tap vm-slot1 for user 990",
            "mark vm-slot1 as ours",
            "put vm-slot1 into br-slot1",
            "bring vm-slot1 up",
        ]
    );
    let world = complete_but(|links| {
        let tap = links.tap.as_mut().unwrap();
        tap.kind = other;
        tap.in_use = true;
    });
    assert!(matches!(refusal(&world), PlanError::Flags { .. }));
}

#[test]
fn names_taken_by_something_else_are_refused() {
    let dummy = LinkKind::Other("dummy".to_owned());
    let world = complete_but(|links| links.bridge.as_mut().unwrap().kind = dummy.clone());
    let expected = "a bridge";
    assert!(matches!(refusal(&world), PlanError::Taken { expected: e, .. } if e == expected));
    let world = complete_but(|links| links.tap.as_mut().unwrap().kind = dummy);
    let expected = "a tap";
    assert!(matches!(refusal(&world), PlanError::Taken { expected: e, .. } if e == expected));
    let world = complete_but(|links| links.tap.as_mut().unwrap().controller = Some(99));
    assert!(matches!(
        refusal(&world),
        PlanError::OtherBridge { index: 99, .. }
    ));
}

#[test]
fn slots_that_are_up_keep_their_rules() {
    let world = complete();
    let plan = to_apply(&host(), &[slot("slot2")], &world).unwrap();
    let first = steps(&plan.operations).into_iter().next();
    assert_eq!(first.as_deref(), Some("load the rules of slot1, slot2"));
    assert!(plan.journal.ruleset.contains("br-slot1"));
}

#[test]
fn an_interrupted_start_is_taken_up_where_it_ended() {
    let mut world = complete_but(|links| {
        links.bridge.as_mut().unwrap().alias = None;
        links.tap = None;
    });
    world.journal.listing.clear();
    assert_eq!(
        apply(&world).get(..4).unwrap(),
        [
            "load the rules of slot1",
            "mark br-slot1 as ours",
            "create tap vm-slot1 for user 990",
            "mark vm-slot1 as ours",
        ]
    );
}

#[test]
fn the_last_slot_takes_everything_with_it() {
    let plan = to_remove(&host(), &[slot("slot1")], &complete());
    assert_eq!(
        steps(&plan.operations),
        [
            "delete vm-slot1",
            "delete br-slot1",
            "switch off forwarding of eth0",
            "remove our rules",
        ]
    );
    assert_eq!(plan.journal, super::Journal::default());
}

#[test]
fn settings_that_were_on_before_stay_on() {
    let mut world = empty();
    let eth0 = sysctl("eth0", Setting::Forwarding);
    world.sysctls.insert(eth0.clone(), true);
    let plan = to_apply(&host(), &[slot("slot1")], &world).unwrap();
    assert!(plan.journal.sysctls.is_empty());
    // What someone else switched meanwhile is theirs as well.
    let mut world = complete();
    world.sysctls.insert(eth0, false);
    let plan = to_remove(&host(), &[slot("slot1")], &world);
    assert!(!steps(&plan.operations).contains(&"switch off forwarding of eth0".to_owned()));
}

#[test]
fn removing_one_slot_leaves_the_others_and_what_they_need() {
    let mut world = complete();
    let two = slot("slot2");
    world.journal.slots.insert(two.name.clone(), two);
    let plan = to_remove(&host(), &[slot("slot1")], &world);
    assert_eq!(
        steps(&plan.operations),
        [
            "delete vm-slot1",
            "delete br-slot1",
            "load the rules of slot2"
        ]
    );
    assert_eq!(plan.journal.sysctls.len(), 1);
}

#[test]
fn a_bridge_of_someone_else_loses_only_what_we_added() {
    let mut world = empty();
    let foreign = Link {
        alias: None,
        addresses: vec!["192.0.2.1/24".parse().unwrap()],
        up: false,
        ..link(7, LinkKind::Bridge)
    };
    let observed = Observed {
        bridge: Some(foreign),
        tap: None,
    };
    world.links.insert("slot1".parse().unwrap(), observed);
    let bridge = sysctl("br-slot1", Setting::Forwarding);
    world.sysctls.insert(bridge, false);
    let plan = to_apply(&host(), &[slot("slot1")], &world).unwrap();
    assert!(steps(&plan.operations).contains(&"add 10.1.0.1/24 to br-slot1".to_owned()));

    let mut later = complete_but(|links| {
        let bridge = links.bridge.as_mut().unwrap();
        bridge.alias = None;
        bridge.addresses.push("192.0.2.1/24".parse().unwrap());
    });
    later.journal = plan.journal;
    later.journal.listing = later.listing.clone();
    let plan = to_remove(&host(), &[slot("slot1")], &later);
    assert_eq!(
        steps(&plan.operations),
        [
            "delete vm-slot1",
            "remove 10.1.0.1/24 from br-slot1",
            "take br-slot1 down",
            "switch off forwarding of br-slot1",
            "switch off forwarding of eth0",
            "remove our rules",
        ]
    );
    assert_eq!(plan.staying, ["br-slot1".parse().unwrap()]);
}

#[test]
fn loopback_is_routed_only_where_ports_are_published() {
    let mut published = slot("slot1");
    published.publish.push(Publish {
        proto: Transport::Tcp,
        host: 8080,
        guest: 80,
    });
    let plan = to_apply(&host(), &[published], &empty()).unwrap();
    let on = "switch on route_localnet of br-slot1".to_owned();
    assert!(steps(&plan.operations).contains(&on));
    let mut world = complete();
    let setting = sysctl("br-slot1", Setting::RouteLocalnet);
    world.sysctls.insert(setting, true);
    assert_eq!(apply(&world), ["switch off route_localnet of br-slot1"]);
}
