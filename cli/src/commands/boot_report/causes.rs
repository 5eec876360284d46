//! What takes long in boots, and the setting that removes it, where one is known. The same list, with
//! more words, is in `docs/boot-latency.md`; a test compares them.

use serde::Serialize;
use vmm::phases::Phase;

use super::guest::{Guest, Timed};

/// How many are named.
const NAMED: usize = 3;

/// One thing that took long.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Cause {
    /// What.
    pub(super) name: String,
    /// How long, in milliseconds.
    pub(super) took_ms: f64,
    /// What helps.
    pub(super) remedy: Option<&'static str>,
}

/// Remedies by the begin of what takes long: a phase, a unit or an initcall.
const REMEDIES: [(&str, &str); 16] = [
    (
        "kernel found",
        "boot once more: the next one finds the unpacked kernel in the cache",
    ),
    (
        "kernel loaded",
        "a smaller initrd; a cache on a disk whose page cache is warm",
    ),
    (
        "config",
        "vsock.enabled = false when nothing uses it; mkfs happens in the first boot only",
    ),
    (
        "first serial byte",
        "without `quiet` the kernel speaks at once; with it nothing is lost",
    ),
    (
        "init",
        "an initrd with fewer modules; boot.params = [\"quiet\"] where it is not: each byte leaves the guest",
    ),
    (
        "sysinit",
        "fewer units before sysinit.target: see the guest's longest",
    ),
    (
        "ready",
        "ready.target = a target that is reached earlier; see the guest's longest units",
    ),
    (
        "systemd-networkd-wait-online",
        "systemctl disable systemd-networkd-wait-online in the image",
    ),
    (
        "NetworkManager-wait-online",
        "systemctl disable NetworkManager-wait-online in the image",
    ),
    (
        "systemd-udev-settle",
        "remove what orders itself after systemd-udev-settle.service",
    ),
    (
        "systemd-random-seed",
        "nothing: it waits for entropy, which the slot's rng device gives",
    ),
    ("ldconfig", "run ldconfig when the image is made"),
    (
        "systemd-hwdb-update",
        "run systemd-hwdb update when the image is made",
    ),
    (
        "apt-daily",
        "systemctl disable apt-daily.timer in the image",
    ),
    (
        "cloud-init",
        "leave cloud-init out of the image: the slot tells the guest who it is",
    ),
    (
        "pci_",
        "nothing to probe: the machine has no PCI; pci=off saves the search",
    ),
];

fn remedy(name: &str) -> Option<&'static str> {
    let found = REMEDIES.iter().find(|(start, _)| name.starts_with(start));
    found.map(|(_, remedy)| *remedy)
}

/// The largest, largest first. Where the guest says what its own part consists of, that takes the place
/// of the phases after its kernel has started init.
pub(super) fn largest(steps: &[Timed], guest: &Guest) -> Vec<Cause> {
    let inside = [Phase::Sysinit, Phase::Ready].map(Phase::name);
    let explained = |step: &&Timed| !guest.units.is_empty() && inside.contains(&step.name.as_str());
    let steps = steps.iter().filter(|step| !explained(step));
    let mut all: Vec<&Timed> = steps.chain(&guest.units).chain(&guest.initcalls).collect();
    all.sort_by(|one, other| other.took_ms().total_cmp(&one.took_ms()));
    let largest = all.into_iter().take(NAMED).map(|timed| Cause {
        name: timed.name.clone(),
        took_ms: timed.took_ms(),
        remedy: remedy(&timed.name),
    });
    largest.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(name: &str, start_ms: f64, end_ms: f64) -> Timed {
        Timed {
            name: name.to_owned(),
            start_ms,
            end_ms,
        }
    }

    #[test]
    fn three_largest_are_named_with_what_helps() {
        let steps = [
            timed("config", 0.0, 1.0),
            timed("vcpu run", 1.0, 3.0),
            timed("init", 3.0, 500.0),
            timed("ready", 500.0, 2500.0),
        ];
        let alone = largest(&steps, &Guest::silent("x"));
        let names: Vec<&str> = alone.iter().map(|cause| cause.name.as_str()).collect();
        assert_eq!(names, ["ready", "init", "vcpu run"]);
        assert!(alone[1].remedy.unwrap().contains("quiet"));
        assert_eq!(alone[2].remedy, None);
        let guest = Guest {
            units: vec![timed("systemd-networkd-wait-online.service", 600.0, 2400.0)],
            ..Guest::default()
        };
        let named = largest(&steps, &guest);
        assert!(named[0].name.starts_with("systemd-networkd-wait-online"));
        assert!(named[0].remedy.unwrap().contains("disable"));
        assert!(named.iter().all(|cause| cause.name != "ready"));
    }

    #[test]
    fn every_remedy_is_documented() {
        let document = include_str!("../../../../docs/boot-latency.md");
        for (name, _) in REMEDIES {
            let row = format!("| `{name}");
            assert!(
                document.contains(&row),
                "docs/boot-latency.md has no row for {name}"
            );
        }
    }
}
