//! What two devices, or two slots, must not share: positions, taps, MAC addresses, writable
//! disks, tags, sockets of backends and indices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Backend, CONSOLE_POSITION, Slot, Use};
use crate::config::{ConsoleMode, LoadedSlot, Located, Problem};

/// Who holds something already, by what is held.
#[derive(Debug, Default)]
struct Holders(BTreeMap<String, String>);

impl Holders {
    /// Notes that `holder` has `what`, and returns who had it before.
    fn claim(&mut self, what: String, holder: String) -> Option<String> {
        match self.0.get(&what) {
            Some(previous) => Some(previous.clone()),
            None => {
                self.0.insert(what, holder);
                None
            }
        }
    }
}

/// Checks a slot against itself.
pub(super) fn within(slot: &Slot, loaded: &LoadedSlot, problems: &mut Vec<Problem>) {
    let mut holders = Holders::default();
    for claim in claims(slot) {
        let place = place(&claim, loaded);
        if let Some(holder) = holders.claim(claim.what.clone(), claim.holder.clone()) {
            let message = format!(
                "{} is used twice, by {holder} and by {}: change one of them",
                claim.what, claim.holder
            );
            problems.push(match place {
                Some(place) => place.problem(message),
                None => Problem {
                    at: None,
                    key: claim.key.to_owned(),
                    message,
                },
            });
        }
    }
}

/// Checks slots against each other; each was checked against itself.
pub(crate) fn across(slots: &[Slot]) -> Vec<Problem> {
    let mut holders = Holders::default();
    let mut problems = Vec::new();
    for slot in slots {
        let index = Claim {
            what: format!("index {}", slot.index.get()),
            holder: String::new(),
            key: "index",
            shared_by_slots: false,
            position: None,
        };
        for claim in claims(slot)
            .into_iter()
            .chain([index])
            .filter(|claim| !claim.shared_by_slots)
        {
            let Some(other) = holders.claim(claim.what.clone(), slot.name.to_string()) else {
                continue;
            };
            if other != slot.name.as_str() {
                let message = format!(
                    "{} is used by slots {other} and {}: change it in one of them",
                    claim.what, slot.name
                );
                problems.push(Problem {
                    at: None,
                    key: claim.key.to_owned(),
                    message,
                });
            }
        }
    }
    problems
}

struct Claim {
    what: String,
    holder: String,
    key: &'static str,
    /// Whether another slot may have the same; positions count per machine.
    shared_by_slots: bool,
    /// Position of the device that claims.
    position: Option<u8>,
}

impl Claim {
    /// What the device called `holder` at `position` has.
    fn new(holder: &str, position: u8, key: &'static str, what: String) -> Self {
        Self {
            what,
            holder: holder.to_owned(),
            key,
            shared_by_slots: true,
            position: Some(position),
        }
    }

    fn position(holder: &str, position: u8) -> Self {
        Self::new(holder, position, "position", format!("position {position}"))
    }

    /// No other slot may have the same.
    fn alone(self) -> Self {
        Self {
            shared_by_slots: false,
            ..self
        }
    }
}

fn claims(slot: &Slot) -> Vec<Claim> {
    let mut claims = Vec::new();
    for disk in &slot.disks {
        let path = format!("disk {}", real(&disk.path).display());
        let path = Claim::new(&disk.id, disk.position, "path", path);
        claims.push(Claim::position(&disk.id, disk.position));
        claims.push(match disk.usage {
            Use::ReadOnly => path,
            Use::Exclusive => path.alone(),
        });
    }
    for nic in &slot.nics {
        let claim = |key, what| Claim::new(&nic.id, nic.position, key, what).alone();
        claims.push(Claim::position(&nic.id, nic.position));
        claims.push(claim("net.tap", format!("tap {}", nic.tap)));
        claims.push(claim("net.mac", format!("MAC {}", nic.mac_text())));
    }
    for share in &slot.shares {
        let claim = |key, what| Claim::new(&share.id, share.position, key, what);
        claims.push(Claim::position(&share.id, share.position));
        claims.push(claim("fs.tag", format!("tag {}", share.tag)));
        if let Backend::External { socket } = &share.backend {
            let socket = format!("socket {}", real(socket).display());
            claims.push(claim("fs.socket", socket).alone());
        }
    }
    claims.push(Claim::position("the entropy source", slot.rng_position));
    if slot.console == ConsoleMode::Hvc {
        claims.push(Claim::position("the virtio console", CONSOLE_POSITION));
    }
    if let Some(vsock) = &slot.vsock {
        claims.push(Claim::position("the socket device", vsock.position));
    }
    claims
}

/// Two names of one image are one image. What does not exist yet has one name.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Where the claim was made, when a file says it.
fn place(claim: &Claim, loaded: &LoadedSlot) -> Option<Located<()>> {
    let disks = loaded.file.disks.iter().map(|disk| {
        (
            disk.position.as_ref().map(|position| position.value.0),
            disk.at.clone(),
        )
    });
    let nets = loaded.file.nets.iter().flatten().map(|net| {
        (
            net.position.as_ref().map(|position| position.value.0),
            net.at.clone(),
        )
    });
    let shares = loaded.file.shares.iter().map(|share| {
        (
            share.position.as_ref().map(|position| position.value.0),
            share.at.clone(),
        )
    });
    let position = claim.position.map(i64::from)?;
    // The later table of two that claim the same is the one to report.
    disks
        .chain(nets)
        .chain(shares)
        .filter(|(at, _)| *at == Some(position))
        .map(|(_, place)| place)
        .next_back()
}
