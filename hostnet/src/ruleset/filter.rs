//! Which packets pass: to the host, to the world, to another slot.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use crate::policy::{
    Egress, EgressRule, HostSpec, Pair, PortRange, Protocol, Redirect, SlotSpec, Transport, merged,
};

use crate::slot::SlotName;

use super::{braces, chain, quoted};

/// Where clouds keep the credentials of a machine.
const IMDS: &str = "169.254.169.254";

/// Writes the chains that filter.
pub(super) fn write(text: &mut String, host: &HostSpec, slots: &[SlotSpec]) {
    chain(text, "early", &early(slots));
    chain(text, "input", &input(host, slots));
    chain(text, "forward", &forward(host));
    chain(text, "from-slots", &from_slots(host, slots));
    chain(text, "between-slots", &between(host, slots));
    chain(text, "to-slots", &to_slots(slots));
    for slot in slots {
        chain(
            text,
            &format!("egress-{}", slot.name),
            &egress(&slot.egress),
        );
    }
}

/// Ahead of connection tracking and of every translation, so that no rule for a proxy can lead a
/// packet past it.
fn early(slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec![
        "type filter hook prerouting priority raw; policy accept;".to_owned(),
        "iifname != @bridges accept".to_owned(),
        // No address of the slot's is IPv6 yet, and the host's own must not be a way in.
        "meta nfproto != ipv4 counter drop".to_owned(),
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept".to_owned(),
        "iifname . ip saddr != @guests counter drop".to_owned(),
    ];
    let imds: Vec<String> = slots
        .iter()
        .filter(|slot| slot.allow_imds)
        .map(|slot| quoted(&slot.bridge))
        .collect();
    if !imds.is_empty() {
        rules.push(format!("iifname {} ip daddr {IMDS} accept", braces(imds)));
    }
    rules.push("ip daddr 169.254.0.0/16 counter drop".to_owned());
    // Bridges with published ports route loopback addresses; guests have no business with them.
    rules.push("ip daddr 127.0.0.0/8 counter drop".to_owned());
    rules
}

fn input(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec![
        "type filter hook input priority filter; policy accept;".to_owned(),
        "iifname != @bridges accept".to_owned(),
        "ct state established,related accept".to_owned(),
        "udp sport 68 udp dport 67 accept".to_owned(),
    ];
    rules.extend(redirected(host, slots));
    // Only the gateway of the slot itself: the host's other addresses are not for guests.
    rules.push("iifname . ip daddr != @gateways counter drop".to_owned());
    rules.push("ip protocol icmp accept".to_owned());
    rules.push("meta l4proto { tcp, udp } th dport 53 accept".to_owned());
    for slot in slots {
        let ports = slot.host_ports.iter().map(|port| (port.proto, port.ports));
        for (proto, ports) in by_transport(ports) {
            let (bridge, ports) = (quoted(&slot.bridge), braces(merged(&ports)));
            rules.push(format!("iifname {bridge} {proto} dport {ports} accept"));
        }
    }
    rules.push("counter drop".to_owned());
    rules
}

fn forward(host: &HostSpec) -> Vec<String> {
    let mut rules = vec![
        "type filter hook forward priority filter; policy accept;".to_owned(),
        "iifname @bridges goto from-slots".to_owned(),
    ];
    if !host.trusted.is_empty() {
        rules.push("iifname @trusted oifname @bridges accept".to_owned());
    }
    rules.push("oifname @bridges goto to-slots".to_owned());
    rules
}

fn from_slots(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec![
        "ct state established,related accept".to_owned(),
        "oifname @bridges goto between-slots".to_owned(),
    ];
    rules.extend(redirected(host, slots));
    if !host.dns.is_empty() {
        // Queries to the gateway, already on their way to a name server; nothing else to them.
        let servers = braces(&host.dns);
        rules.push(format!(
            "ct status dnat ip daddr {servers} meta l4proto {{ tcp, udp }} th dport 53 accept"
        ));
    }
    let Some(uplink) = &host.uplink else {
        rules.push("counter drop".to_owned());
        return rules;
    };
    rules.push(format!("oifname != {} counter drop", quoted(uplink)));
    for slot in slots.iter().filter(|slot| slot.allow_imds) {
        let bridge = quoted(&slot.bridge);
        rules.push(format!("iifname {bridge} ip daddr {IMDS} accept"));
    }
    let verdicts = slots
        .iter()
        .map(|slot| format!("{} : goto egress-{}", quoted(&slot.bridge), slot.name));
    rules.push(format!("iifname vmap {}", braces(verdicts)));
    rules.push("counter drop".to_owned());
    rules
}

/// Connections that a redirection of ours has led where they are to go.
fn redirected(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let rule = |redirect: &Redirect| {
        let from = bridges_of(redirect, slots)?;
        let (proto, to) = (redirect.proto, redirect.to);
        Some(format!(
            "iifname {from} ct status dnat ip daddr {} {proto} dport {} accept",
            to.ip(),
            to.port()
        ))
    };
    host.dnat.iter().filter_map(rule).collect()
}

/// Bridges of the slots that a redirection is for; nothing when none of them is up.
pub(super) fn bridges_of(redirect: &Redirect, slots: &[SlotSpec]) -> Option<String> {
    if redirect.slots.is_empty() {
        return Some("@bridges".to_owned());
    }
    let bridges: Vec<String> = slots
        .iter()
        .filter(|slot| redirect.slots.contains(&slot.name))
        .map(|slot| quoted(&slot.bridge))
        .collect();
    (!bridges.is_empty()).then(|| braces(bridges))
}

fn between(host: &HostSpec, slots: &[SlotSpec]) -> Vec<String> {
    let bridge = |name: &SlotName| {
        let slot = slots.iter().find(|slot| slot.name == *name);
        slot.map(|slot| quoted(&slot.bridge))
    };
    let mut rules = Vec::new();
    for pair in &host.allow {
        // A pair of which one slot is not up has nothing to admit.
        if let (Some(from), Some(to)) = (bridge(&pair.from), bridge(&pair.to)) {
            let ends = format!("iifname {from} oifname {to}");
            rules.extend(admitted(pair).map(|what| format!("{ends} {what} accept")));
        }
    }
    rules.push("counter drop".to_owned());
    rules
}

fn admitted(pair: &Pair) -> impl Iterator<Item = String> {
    let ports = |proto: &str, ports: &[PortRange]| {
        (!ports.is_empty()).then(|| format!("{proto} dport {}", braces(merged(ports))))
    };
    let icmp = pair.icmp.then(|| "ip protocol icmp".to_owned());
    [ports("tcp", &pair.tcp), ports("udp", &pair.udp), icmp]
        .into_iter()
        .flatten()
}

fn to_slots(slots: &[SlotSpec]) -> Vec<String> {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    for slot in slots {
        let guest = slot.subnet.guest();
        let ports = slot
            .publish
            .iter()
            .map(|port| (port.proto, port.guest.into()));
        for (proto, ports) in by_transport(ports) {
            let ports = braces(merged(&ports));
            rules.push(format!(
                "ct status dnat ip daddr {guest} {proto} dport {ports} accept"
            ));
        }
    }
    rules.push("counter drop".to_owned());
    rules
}

fn egress(egress: &Egress) -> Vec<String> {
    let mut rules = match egress {
        Egress::Unrestricted => return vec!["accept".to_owned()],
        Egress::Web => vec![
            "tcp dport { 80, 443 } accept".to_owned(),
            "udp dport 443 accept".to_owned(),
        ],
        Egress::None => Vec::new(),
        Egress::Rules(rules) => rules.iter().map(egress_rule).collect(),
    };
    rules.push("counter drop".to_owned());
    rules
}

fn egress_rule(rule: &EgressRule) -> String {
    let mut text = String::new();
    if !rule.cidrs.is_empty() {
        // Networks inside each other are no set to nft.
        text = format!("ip daddr {} ", braces(Ipv4Net::aggregate(&rule.cidrs)));
    }
    let proto = match rule.proto {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    };
    if rule.ports.is_empty() || rule.proto == Protocol::Icmp {
        format!("{text}ip protocol {proto} accept")
    } else {
        format!("{text}{proto} dport {} accept", braces(merged(&rule.ports)))
    }
}

/// Ports by protocol; a protocol without ports is not there.
fn by_transport(
    ports: impl Iterator<Item = (Transport, PortRange)>,
) -> BTreeMap<Transport, Vec<PortRange>> {
    let mut found: BTreeMap<Transport, Vec<PortRange>> = BTreeMap::new();
    for (proto, port) in ports {
        found.entry(proto).or_default().push(port);
    }
    found
}
