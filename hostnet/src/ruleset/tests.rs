//! Rulesets as they should read, and as `nft` reads them.

use crate::policy::{
    Egress, EgressRule, HostPort, HostSpec, Pair, Protocol, Publish, Redirect, SlotSpec, Transport,
};
use crate::slot::{SlotName, SlotNet};

fn slot(name: &str) -> SlotSpec {
    let name: SlotName = name.parse().unwrap();
    let index = name.index().unwrap();
    let net = SlotNet::new(name.clone(), index);
    SlotSpec {
        bridge: net.bridge().unwrap(),
        tap: net.tap().unwrap(),
        mac: net.mac(),
        subnet: net.subnet(),
        owner: 990,
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

fn publish(proto: Transport, host: u16, guest: u16) -> Publish {
    Publish { proto, host, guest }
}

/// Everything that can be said, said once.
fn everything() -> (HostSpec, Vec<SlotSpec>) {
    let host = HostSpec {
        trusted: vec!["tailscale0".parse().unwrap()],
        dns: vec!["1.1.1.1".parse().unwrap(), "8.8.8.8".parse().unwrap()],
        allow: vec![Pair {
            from: "slot1".parse().unwrap(),
            to: "slot3".parse().unwrap(),
            tcp: vec!["5432".parse().unwrap()],
            udp: vec!["5000-5010".parse().unwrap(), "5005-5020".parse().unwrap()],
            icmp: true,
        }],
        dnat: vec![Redirect {
            slots: vec!["slot1".parse().unwrap()],
            proto: Transport::Tcp,
            port: 443,
            to: "127.0.0.1:3129".parse().unwrap(),
        }],
        ..host()
    };
    let published = SlotSpec {
        publish: vec![
            publish(Transport::Tcp, 8080, 80),
            publish(Transport::Udp, 53, 53),
        ],
        host_ports: vec!["9100".parse::<HostPort>().unwrap()],
        ..slot("slot1")
    };
    let unrestricted = SlotSpec {
        egress: Egress::Unrestricted,
        allow_imds: true,
        ..slot("slot2")
    };
    let ruled = SlotSpec {
        egress: Egress::Rules(vec![
            EgressRule {
                proto: Protocol::Tcp,
                ports: vec!["22".parse().unwrap()],
                cidrs: vec![
                    "192.0.2.0/25".parse().unwrap(),
                    "192.0.2.128/25".parse().unwrap(),
                ],
            },
            EgressRule {
                proto: Protocol::Icmp,
                ports: Vec::new(),
                cidrs: Vec::new(),
            },
        ]),
        ..slot("slot3")
    };
    let closed = SlotSpec {
        egress: Egress::None,
        ..slot("slot10")
    };
    (host, vec![published, unrestricted, ruled, closed])
}

#[test]
fn one_slot_reads_as_documented() {
    let text = super::text(&host(), &[slot("slot1")]);
    assert_eq!(text, include_str!("golden/one-slot.nft"));
}

#[test]
fn everything_reads_as_documented() {
    let (host, slots) = everything();
    let text = super::text(&host, &slots);
    assert_eq!(text, include_str!("golden/everything.nft"));
}

#[test]
fn without_slots_only_removal_is_left() {
    let text = super::text(&host(), &[]);
    let tables = "add table inet slotvmm\ndelete table inet slotvmm\n\
                  add table bridge slotvmm\ndelete table bridge slotvmm\n";
    assert_eq!(text, tables);
}

#[test]
fn without_an_uplink_nothing_leaves_the_host() {
    let host = HostSpec::default();
    let text = super::text(&host, &[slot("slot1")]);
    assert!(!text.contains("iifname vmap { \"br-slot1\""), "{text}");
    assert!(!text.contains("oifname @bridges iifname"), "{text}");
}

#[test]
fn link_local_is_refused_before_anything_is_translated() {
    let (host, slots) = everything();
    let text = super::text(&host, &slots);
    let position = |needle: &str| text.find(needle).unwrap();
    assert!(position("ip daddr 169.254.0.0/16") < position("dnat ip to"));
    assert!(text.contains("prerouting priority raw"));
}
