//! What may come out of a tap: IPv4 and ARP with the slot's own addresses. Everything else is
//! dropped: other protocols, IPv6 among them, VLAN tags, foreign sender addresses.

use crate::policy::SlotSpec;

use super::{TABLE, braces, chain, line, quoted};

/// Writes the table of family `bridge`.
pub(super) fn write(text: &mut String, slots: &[SlotSpec]) {
    line(text, 0, format_args!("\ntable bridge {TABLE} {{"));
    for slot in slots {
        chain(text, &format!("from-{}", slot.name), &sender(slot));
    }
    let verdicts = slots
        .iter()
        .map(|slot| format!("{} : goto from-{}", quoted(&slot.tap), slot.name));
    let rules = [
        // Before the bridge learns an address from the frame.
        "type filter hook prerouting priority dstnat; policy accept;".to_owned(),
        format!("iifname vmap {}", braces(verdicts)),
    ];
    chain(text, "prerouting", &rules);
    line(text, 0, format_args!("}}"));
}

fn sender(slot: &SlotSpec) -> Vec<String> {
    let (mac, guest) = (slot.mac_text(), slot.subnet.guest());
    vec![
        format!("ether saddr != {mac} counter drop"),
        // A probe for its own address has no sender yet (RFC 5227).
        format!("arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {guest} }} accept"),
        format!("ether type ip ip saddr {guest} accept"),
        // A client that has no address yet (RFC 2131).
        "ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"
            .to_owned(),
        "counter drop".to_owned(),
    ]
}
