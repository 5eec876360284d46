//! Whose addresses are translated: published ports, proxies and name servers on the way in,
//! the slots' own addresses on the way out.

use crate::policy::{HostSpec, Publish, SlotSpec};

use super::{braces, chain, filter, quoted};

/// Writes the chains that translate.
pub(super) fn write(text: &mut String, host: &HostSpec, slots: &[SlotSpec]) {
    chain(text, "translate-in", &inwards(host, slots));
    chain(text, "translate-local", &local(slots));
    chain(text, "translate-out", &outwards(host, slots));
}

fn inwards(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec!["type nat hook prerouting priority dstnat; policy accept;".to_owned()];
    for redirect in &host.dnat {
        if let Some(from) = filter::bridges_of(redirect, slots) {
            let (proto, port, to) = (redirect.proto, redirect.port, redirect.to);
            // The gateway's own ports are the host's.
            rules.push(format!(
                "iifname {from} fib daddr type != local {proto} dport {port} dnat ip to {to}"
            ));
        }
    }
    if let Some(server) = name_server(host) {
        rules.push(format!(
            "iifname . ip daddr @gateways meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {server}"
        ));
    }
    let outside: Vec<String> = host
        .uplink
        .iter()
        .chain(&host.trusted)
        .map(quoted)
        .collect();
    if !outside.is_empty() {
        let outside = braces(outside);
        rules.extend(published(slots).map(|(slot, port)| {
            let translation = translation(slot, port);
            format!("iifname {outside} fib daddr type local {translation}")
        }));
    }
    rules
}

/// Connections of the host itself to one of its own addresses.
fn local(slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec!["type nat hook output priority -100; policy accept;".to_owned()];
    rules.extend(published(slots).map(|(slot, port)| {
        format!(
            "oifname \"lo\" fib daddr type local {}",
            translation(slot, port)
        )
    }));
    rules
}

fn outwards(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec!["type nat hook postrouting priority srcnat; policy accept;".to_owned()];
    if let Some(uplink) = &host.uplink {
        let nets = braces(slots.iter().map(|slot| slot.subnet));
        let uplink = quoted(uplink);
        rules.push(format!("ip saddr {nets} oifname {uplink} masquerade"));
    }
    // The host reaches a published port over its loopback address, to which no guest can answer.
    rules.push("ip saddr 127.0.0.0/8 oifname @bridges masquerade".to_owned());
    // Proxies and name servers may sit behind the host's own interfaces.
    if host
        .dnat
        .iter()
        .any(|redirect| !redirect.to.ip().is_loopback())
        || !host.dns.is_empty()
    {
        rules.push("iifname @bridges oifname != @bridges ct status dnat masquerade".to_owned());
    }
    rules
}

fn published(slots: &[SlotSpec]) -> impl Iterator<Item = (&SlotSpec, &Publish)> {
    slots
        .iter()
        .flat_map(|slot| slot.publish.iter().map(move |port| (slot, port)))
}

fn translation(slot: &SlotSpec, port: &Publish) -> String {
    format!(
        "{} dport {} dnat ip to {}:{}",
        port.proto,
        port.host,
        slot.subnet.guest(),
        port.guest
    )
}

/// The name servers in turn.
fn name_server(host: &HostSpec) -> Option<String> {
    match host.dns.as_slice() {
        [] => None,
        [one] => Some(one.to_string()),
        many => {
            let servers = many.iter().enumerate();
            let servers = servers.map(|(number, server)| format!("{number} : {server}"));
            let count = many.len();
            Some(format!("numgen inc mod {count} map {}", braces(servers)))
        }
    }
}
