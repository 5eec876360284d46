//! The network cards of a slot. The first one has everything from the slot's name; others say all.

use hostnet::slot::{InterfaceName, NameError, SlotNet};
use serde::{Serialize, Serializer};

use super::limits::{self, Limit};
use crate::config::{LoadedSlot, Located, NetFile, Problem, Vhost};

/// Position of the first network card, behind every disk.
const FIRST_POSITION: u8 = 8;

/// Most pairs of queues: a card has one interrupt line, and more would not make it faster.
const MOST_QUEUES: u8 = 8;

/// A network card.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Nic {
    /// Its name in logs.
    pub(crate) id: String,
    /// Whether it has the slot's network; `net apply` makes that of no other card.
    #[serde(skip)]
    pub(crate) is_first: bool,
    /// Its place on the machine.
    pub(crate) position: u8,
    /// The host's end.
    pub(crate) tap: InterfaceName,
    /// The bridge that `net apply` puts the tap into; only the first card has one by default.
    pub(crate) bridge: Option<InterfaceName>,
    /// Address of the card.
    #[serde(serialize_with = "mac_text")]
    pub(crate) mac: [u8; 6],
    /// Pairs of queues, each with a thread and a queue of the tap.
    pub(crate) queues: Queues,
    /// Largest packet offered to the guest, or nothing for the guest's own choice.
    pub(crate) mtu: Option<u16>,
    /// Whether the host's kernel serves the queues.
    pub(crate) vhost: Vhost,
    /// Whether the card answers DHCP requests with the slot's addresses.
    pub(crate) dhcp: bool,
    /// How fast the guest may receive.
    pub(crate) rx: Limit,
    /// How fast the guest may send.
    pub(crate) tx: Limit,
}

/// How many pairs of queues a card has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Queues {
    /// As many as the configuration says.
    Set(u8),
    /// One per virtual CPU, up to this, or as many as the tap was made for.
    AtMost(u8),
}

impl Queues {
    /// What is left to us is no more than one pair for each of `vcpus` virtual CPUs.
    pub(super) fn for_vcpus(self, vcpus: u8) -> Self {
        match self {
            Self::Set(_) => self,
            Self::AtMost(most) => Self::AtMost(most.min(vcpus)),
        }
    }

    /// The largest number.
    pub(crate) fn wanted(self) -> u8 {
        match self {
            Self::Set(queues) | Self::AtMost(queues) => queues,
        }
    }
}

impl Nic {
    /// The address as text.
    pub(crate) fn mac_text(&self) -> String {
        mac_string(&self.mac)
    }
}

fn mac_string(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn mac_text<S: Serializer>(mac: &[u8; 6], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mac_string(mac))
}

/// Resolves `[[net]]`; a slot whose file does not say has the one that follows from its name.
pub(super) fn resolve(loaded: &LoadedSlot, net: &SlotNet, problems: &mut Vec<Problem>) -> Vec<Nic> {
    let files = loaded.file.nets.as_deref();
    if files.is_some_and(<[NetFile]>::is_empty) {
        return Vec::new();
    }
    let mut files = files.unwrap_or_default().iter();
    let mut nics: Vec<Nic> = first(files.next(), net, problems).into_iter().collect();
    nics.extend(files.filter_map(|file| additional(file, problems)));
    for file in loaded.file.nets.iter().flatten() {
        limits::check(&file.rx, problems);
        limits::check(&file.tx, problems);
        check_vhost(file, problems);
    }
    nics.sort_by_key(|nic| nic.position);
    nics
}

fn first(file: Option<&NetFile>, net: &SlotNet, problems: &mut Vec<Problem>) -> Option<Nic> {
    let tap = file.and_then(|file| file.tap.as_ref());
    let bridge = file.and_then(|file| file.bridge.as_ref());
    let tap = named(tap, net.tap(), "net.tap", problems);
    let bridge = named(bridge, net.bridge(), "net.bridge", problems);
    let mac = file.and_then(|file| file.mac.as_ref());
    let card = nic(
        file,
        position(file).unwrap_or(FIRST_POSITION),
        (tap?, Some(bridge?)),
        mac.map_or_else(|| net.mac(), |mac| mac.value.0),
    );
    Some(Nic {
        is_first: true,
        ..card
    })
}

/// The name that is set, else the derived one; a name too long to derive is a problem.
fn named(
    set: Option<&Located<InterfaceName>>,
    derived: Result<InterfaceName, NameError>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Option<InterfaceName> {
    if let Some(set) = set {
        return Some(set.value.clone());
    }
    let fault = |error| Problem {
        at: None,
        key: key.to_owned(),
        message: format!("{error}; it is derived from the slot's name, set the key instead"),
    };
    derived.map_err(|error| problems.push(fault(error))).ok()
}

fn additional(file: &NetFile, problems: &mut Vec<Problem>) -> Option<Nic> {
    let missing: Vec<&str> = [
        ("tap", file.tap.is_none()),
        ("mac", file.mac.is_none()),
        ("position", file.position.is_none()),
    ]
    .into_iter()
    .filter_map(|(key, missing)| missing.then_some(key))
    .collect();
    if !missing.is_empty() {
        problems.push(file.at.problem(format!(
            "only the first network card has defaults; missing here: {}",
            missing.join(", ")
        )));
    }
    if let Some(dhcp) = file.dhcp.as_ref().filter(|dhcp| dhcp.value) {
        problems.push(dhcp.problem(
            "only the first network card has addresses to tell: remove the key".to_owned(),
        ));
    }
    let tap = file.tap.as_ref()?.value.clone();
    let bridge = file.bridge.as_ref().map(|bridge| bridge.value.clone());
    Some(nic(
        Some(file),
        position(Some(file))?,
        (tap, bridge),
        file.mac.as_ref()?.value.0,
    ))
}

/// "auto" means no where the kernel could not do what else is set; [`check_vhost`] refuses "yes".
fn vhost(file: Option<&NetFile>) -> Vhost {
    let set = file.and_then(|file| file.vhost.as_ref());
    let set = set.map_or_else(Vhost::default, |vhost| vhost.value);
    match file.and_then(beyond_vhost) {
        Some(_) if set == Vhost::Auto => Vhost::Off,
        _ => set,
    }
}

/// A key that asks for what only we can do with frames.
fn beyond_vhost(file: &NetFile) -> Option<&'static str> {
    let dhcp = file.dhcp.as_ref().is_some_and(|dhcp| dhcp.value);
    [
        (dhcp, "dhcp"),
        (Limit::of(&file.rx) != Limit::default(), "rx"),
        (Limit::of(&file.tx) != Limit::default(), "tx"),
    ]
    .into_iter()
    .find_map(|(set, key)| set.then_some(key))
}

fn check_vhost(file: &NetFile, problems: &mut Vec<Problem>) {
    let vhost = file.vhost.as_ref().filter(|vhost| vhost.value == Vhost::On);
    if let (Some(vhost), Some(key)) = (vhost, beyond_vhost(file)) {
        problems.push(vhost.problem(format!(
            "the kernel serves the queues then, and `{key}` is beyond it: remove one of them"
        )));
    }
}

fn position(file: Option<&NetFile>) -> Option<u8> {
    u8::try_from(file?.position.as_ref()?.value.0).ok()
}

fn nic(
    file: Option<&NetFile>,
    position: u8,
    (tap, bridge): (InterfaceName, Option<InterfaceName>),
    mac: [u8; 6],
) -> Nic {
    let mtu = file.and_then(|file| file.mtu.as_ref());
    let queues = file.and_then(|file| file.queues.as_ref());
    let queues = queues.and_then(|queues| u8::try_from(queues.value.0).ok());
    Nic {
        id: format!("net{}", position.saturating_sub(FIRST_POSITION)),
        is_first: false,
        position,
        tap,
        bridge,
        mac,
        queues: queues.map_or(Queues::AtMost(MOST_QUEUES), Queues::Set),
        mtu: mtu.and_then(|mtu| u16::try_from(mtu.value.0).ok()),
        vhost: vhost(file),
        dhcp: file
            .and_then(|file| file.dhcp.as_ref())
            .is_some_and(|dhcp| dhcp.value),
        rx: file.map_or_else(Limit::default, |file| Limit::of(&file.rx)),
        tx: file.map_or_else(Limit::default, |file| Limit::of(&file.tx)),
    }
}
