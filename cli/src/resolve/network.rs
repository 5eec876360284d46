//! A slot's network and who it reaches, and what all slots share.

use hostnet::policy::{
    Egress, EgressRule, HostPort, HostSpec, Pair, Publish, Redirect, SlotSpec, Transport,
};
use hostnet::slot::{SlotIndex, SlotNet};
use serde::Serialize;

use super::Nic;
use crate::config::{
    EgressClass, EgressFile, EgressRuleFile, HostFile, LoadedSlot, Located, PairFile, PolicyFile,
    Problem, PublishFile, Ranged, RedirectFile, Setting,
};

/// The network of a slot, with nothing left to guess.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Network {
    /// Names and addresses.
    #[serde(skip)]
    pub(crate) net: SlotNet,
    /// Where the guest may connect to.
    pub(crate) egress: Egress,
    /// Whether it may reach the metadata service of clouds.
    pub(crate) allow_imds: bool,
    /// Ports of the gateway that it may reach.
    pub(crate) host_ports: Vec<HostPort>,
    /// Ports of the host that lead to it.
    pub(crate) publish: Vec<Publish>,
    /// Whether `run` brings the network up itself.
    pub(crate) auto: bool,
}

impl Network {
    /// What `net apply` makes for the slot with these cards; nothing for a slot whose first card
    /// has no bridge, or that has no card.
    pub(crate) fn spec(&self, nics: &[Nic], owner: u32) -> Option<SlotSpec> {
        let first = nics.iter().find(|nic| nic.is_first)?;
        Some(SlotSpec {
            name: self.net.name().clone(),
            bridge: first.bridge.clone()?,
            tap: first.tap.clone(),
            mac: first.mac,
            subnet: self.net.subnet(),
            owner,
            egress: self.egress.clone(),
            allow_imds: self.allow_imds,
            host_ports: self.host_ports.clone(),
            publish: self.publish.clone(),
        })
    }
}

/// Names and addresses: the slot's own network, else the one that the pool has for its index.
pub(super) fn identity(host: &HostFile, loaded: &LoadedSlot, index: SlotIndex) -> SlotNet {
    let own = policy(loaded).and_then(|policy| policy.subnet.as_ref());
    let pool = || value(&host.net.pool).unwrap_or_default().subnet(index);
    let subnet = own.map_or_else(pool, |subnet| subnet.value);
    SlotNet::within(loaded.name.clone(), index, subnet)
}

/// Resolves the keys of the first card that concern the network.
pub(super) fn resolve(
    host: &HostFile,
    loaded: &LoadedSlot,
    net: &SlotNet,
    problems: &mut Vec<Problem>,
) -> Network {
    for card in loaded.file.nets.iter().flatten().skip(1) {
        if let Some(key) = card.policy.any_key() {
            problems.push(card.at.problem(format!(
                "`{key}` is for the first network card only, which has the slot's network"
            )));
        }
    }
    let none = PolicyFile::default();
    let policy = policy(loaded).unwrap_or(&none);
    let given = match (&policy.egress, &host.net.egress) {
        (EgressFile::Unset, preset) => preset,
        (own, _) => own,
    };
    let auto = policy.auto.as_ref().or(host.net.auto.as_ref());
    Network {
        net: net.clone(),
        egress: egress(given),
        allow_imds: value(&policy.allow_imds).unwrap_or(false),
        host_ports: value(&policy.host_ports).unwrap_or_default(),
        publish: policy.publish.iter().filter_map(publish).collect(),
        auto: auto.is_some_and(|auto| auto.value),
    }
}

/// What all slots share. The uplink is as configured: who applies it looks for one otherwise.
pub(crate) fn host_spec(host: &HostFile) -> HostSpec {
    HostSpec {
        uplink: value(&host.net.uplink),
        trusted: value(&host.net.trusted).unwrap_or_default(),
        dns: value(&host.net.dns).unwrap_or_default(),
        allow: host.net.allow.iter().filter_map(pair).collect(),
        dnat: host.net.dnat.iter().filter_map(redirect).collect(),
    }
}

/// What is wrong with the pair rules: two ends that are one, and rules that admit nothing.
pub(crate) fn check_host(host: &HostFile) -> Vec<Problem> {
    let problem = |file: &PairFile| {
        let pair = pair(file)?;
        if pair.from == pair.to {
            let message = format!(
                "`from` and `to` are both {}: a slot reaches itself",
                pair.to
            );
            return Some(file.at.problem(message));
        }
        let admits = pair.icmp || !pair.tcp.is_empty() || !pair.udp.is_empty();
        (!admits).then(|| {
            file.at
                .problem("the rule admits nothing: set `tcp`, `udp` or `icmp`")
        })
    };
    host.net.allow.iter().filter_map(problem).collect()
}

/// Checks the networks of slots against each other: none overlaps, and no bridge, tap, MAC address
/// or port of the host is used twice.
pub(crate) fn across(slots: &[(&LoadedSlot, &SlotSpec)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, (loaded, spec)) in slots.iter().enumerate() {
        for (other_loaded, other) in slots.iter().take(number) {
            let conflicts = conflicts(spec, other).into_iter();
            problems.extend(conflicts.map(|(key, what)| {
                let message = format!(
                    "{what} by slots {} and {}: change it in one of them",
                    other.name, spec.name
                );
                // The slot that sets it rather than one that has it by default.
                let place = place(loaded, key).or_else(|| place(other_loaded, key));
                match place {
                    Some(place) => Problem {
                        key: format!("net.{key}"),
                        ..place.problem(message)
                    },
                    None => Problem {
                        at: None,
                        key: format!("net.{key}"),
                        message,
                    },
                }
            }));
        }
    }
    problems
}

/// What two slots both have, with the key that says it.
fn conflicts(one: &SlotSpec, other: &SlotSpec) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if one.subnet.overlaps(other.subnet) {
        let (one, other) = (one.subnet, other.subnet);
        found.push(("subnet", format!("addresses of {one} and {other} are used")));
    }
    if one.bridge == other.bridge {
        found.push(("bridge", format!("bridge {} is used", one.bridge)));
    }
    for port in &one.publish {
        let same = |theirs: &&Publish| (theirs.proto, theirs.host) == (port.proto, port.host);
        if other.publish.iter().any(|theirs| same(&theirs)) {
            found.push((
                "publish",
                format!("{} port {} is published", port.proto, port.host),
            ));
        }
    }
    if one.tap == other.tap {
        found.push(("tap", format!("tap {} is used", one.tap)));
    }
    if one.mac == other.mac {
        found.push(("mac", format!("MAC {} is used", one.mac_text())));
    }
    found
}

/// Where a slot's file sets `key` of its first card.
fn place(loaded: &LoadedSlot, key: &str) -> Option<Located<()>> {
    let card = loaded.file.nets.as_ref()?.first()?;
    let at = |place: &crate::config::Location| Located {
        value: (),
        at: place.clone(),
        key: String::new(),
    };
    match key {
        "subnet" => card.policy.subnet.as_ref().map(|set| at(&set.at)),
        "bridge" => card.bridge.as_ref().map(|set| at(&set.at)),
        "tap" => card.tap.as_ref().map(|set| at(&set.at)),
        "mac" => card.mac.as_ref().map(|set| at(&set.at)),
        "publish" => card
            .policy
            .publish
            .first()
            .and_then(|port| port.host.as_ref())
            .map(|set| at(&set.at)),
        _ => None,
    }
}

fn policy(loaded: &LoadedSlot) -> Option<&PolicyFile> {
    let first = loaded.file.nets.as_ref()?.first()?;
    Some(&first.policy)
}

fn value<T: Clone>(setting: &Setting<T>) -> Option<T> {
    setting.as_ref().map(|set| set.value.clone())
}

fn egress(file: &EgressFile) -> Egress {
    match file {
        EgressFile::Unset | EgressFile::Class(EgressClass::Web) => Egress::Web,
        EgressFile::Class(EgressClass::Unrestricted) => Egress::Unrestricted,
        EgressFile::Class(EgressClass::None) => Egress::None,
        EgressFile::Rules(rules) => Egress::Rules(rules.iter().filter_map(egress_rule).collect()),
    }
}

fn egress_rule(file: &EgressRuleFile) -> Option<EgressRule> {
    Some(EgressRule {
        proto: value(&file.proto)?,
        ports: value(&file.ports).unwrap_or_default(),
        cidrs: value(&file.cidrs).unwrap_or_default(),
    })
}

fn publish(file: &PublishFile) -> Option<Publish> {
    Some(Publish {
        proto: value(&file.proto).unwrap_or(Transport::Tcp),
        host: port(&file.host)?,
        guest: port(&file.guest)?,
    })
}

fn pair(file: &PairFile) -> Option<Pair> {
    Some(Pair {
        from: value(&file.from)?,
        to: value(&file.to)?,
        tcp: value(&file.tcp).unwrap_or_default(),
        udp: value(&file.udp).unwrap_or_default(),
        icmp: value(&file.icmp).unwrap_or(false),
    })
}

fn redirect(file: &RedirectFile) -> Option<Redirect> {
    Some(Redirect {
        slots: value(&file.slots).unwrap_or_default(),
        proto: value(&file.proto).unwrap_or(Transport::Tcp),
        port: port(&file.port)?,
        to: value(&file.to)?,
    })
}

/// The schema admits ports only.
fn port(setting: &Setting<Ranged<1, 65535>>) -> Option<u16> {
    u16::try_from(setting.as_ref()?.value.0).ok()
}
