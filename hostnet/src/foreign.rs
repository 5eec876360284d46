//! What others on the host do that our rules cannot undo.
//!
//! A packet passes a hook only when no table on it drops it, so an accept of ours does not help
//! against another table's drop. Nothing here changes what others made: each [`Finding`] says what
//! was found, what it does to slots, and the command that makes room for them.

use std::fs;

use serde::Serialize;
use serde_json::Value;

use crate::inspect::uplink;
use crate::nft::{self, NftError};
use crate::plan::World;
use crate::policy::{HostSpec, SlotSpec};
use crate::ruleset::TABLE;
use crate::slot::InterfaceName;

/// Where the kernel has the settings of interfaces.
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// Something of someone else's that is in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was found.
    pub found: String,
    /// What it does to slots.
    pub effect: String,
    /// What to do.
    pub remedy: String,
}

/// Looks for what is in the way of `slots`.
///
/// # Errors
/// When the packet filter cannot be read: this needs `CAP_NET_ADMIN`.
pub fn find(host: &HostSpec, slots: &[SlotSpec], world: &World) -> Result<Vec<Finding>, NftError> {
    let Some(slot) = slots.first() else {
        return Ok(Vec::new());
    };
    let mut found = in_chains(&nft::chains()?, slot);
    found.extend(legacy_iptables(slot));
    found.extend(host.uplink.as_ref().and_then(reverse_path));
    found.extend(networkd(slots, world));
    Ok(found)
}

/// Who runs a firewall, by the names that it is known by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Firewall {
    Docker,
    Ufw,
    Firewalld,
    NixOs,
    Other,
}

/// A base chain of another table that drops what no rule in it accepts.
struct Closed<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
}

/// Reads what `nft --json list chains` prints.
fn in_chains(json: &str, slot: &SlotSpec) -> Vec<Finding> {
    let document: Value = serde_json::from_str(json).unwrap_or_default();
    let objects = document["nftables"].as_array();
    let chains: Vec<&Value> = objects
        .into_iter()
        .flatten()
        .map(|object| &object["chain"])
        .filter(|chain| chain["table"].is_string() && chain["table"] != TABLE)
        .collect();
    let text = |chain: &'_ Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let named: Vec<(String, String)> = chains
        .iter()
        .map(|chain| (text(chain, "table"), text(chain, "name")))
        .collect();
    let mut findings = Vec::new();
    for chain in &chains {
        let closed = Closed {
            family: chain["family"].as_str().unwrap_or_default(),
            table: chain["table"].as_str().unwrap_or_default(),
            name: chain["name"].as_str().unwrap_or_default(),
            hook: chain["hook"].as_str().unwrap_or_default(),
        };
        let firewall = whose(&closed, &named);
        // These refuse by a last rule, in chains of their own; the policy says accept.
        let refuses = match firewall {
            Firewall::Firewalld => true,
            Firewall::NixOs => closed.hook == "input",
            Firewall::Docker | Firewall::Ufw | Firewall::Other => false,
        };
        let drops = chain["policy"] == "drop" || refuses;
        if drops && ["forward", "input"].contains(&closed.hook) {
            findings.push(finding(&closed, firewall, slot));
        }
    }
    findings
}

fn whose(closed: &Closed<'_>, named: &[(String, String)]) -> Firewall {
    let has = |prefix: &str| {
        let mut mine = named.iter().filter(|(table, _)| table == closed.table);
        mine.any(|(_, chain)| chain.starts_with(prefix))
    };
    match closed.table {
        "firewalld" => Firewall::Firewalld,
        "nixos-fw" => Firewall::NixOs,
        _ if has("DOCKER") && closed.hook == "forward" => Firewall::Docker,
        _ if has("ufw-") => Firewall::Ufw,
        _ if has("nixos-fw") => Firewall::NixOs,
        _ => Firewall::Other,
    }
}

fn finding(closed: &Closed<'_>, firewall: Firewall, slot: &SlotSpec) -> Finding {
    let Closed {
        family,
        table,
        name,
        hook,
    } = closed;
    let (bridge, inwards) = (&slot.bridge, *hook == "input");
    let owner = match firewall {
        Firewall::Docker => "Docker's ",
        Firewall::Ufw => "ufw's ",
        Firewall::Firewalld => "firewalld's ",
        Firewall::NixOs => "the NixOS firewall's ",
        Firewall::Other => "",
    };
    let effect = if inwards {
        "guests may not reach name server, DHCP and host ports of this host"
    } else {
        "guests may not reach anything beyond this host, nor be reached"
    };
    let remedy = match (firewall, inwards) {
        (Firewall::Docker, _) => format!(
            "for every bridge: `iptables -I DOCKER-USER -i {bridge} -j ACCEPT` and \
             `iptables -I DOCKER-USER -o {bridge} -j ACCEPT`"
        ),
        (Firewall::Ufw, false) => format!(
            "for every bridge: `ufw route allow in on {bridge}` and `ufw route allow out on {bridge}`"
        ),
        (Firewall::Ufw, true) => format!("for every bridge: `ufw allow in on {bridge}`"),
        (Firewall::Firewalld, _) => {
            format!("for every bridge: `firewall-cmd --zone=trusted --add-interface={bridge}`")
        }
        (Firewall::NixOs, true) => {
            format!(
                "add every bridge to networking.firewall.trustedInterfaces, such as \"{bridge}\""
            )
        }
        (Firewall::NixOs, false) => format!(
            "networking.firewall.extraForwardRules = ''iifname \"{bridge}\" accept; oifname \"{bridge}\" accept;''"
        ),
        (Firewall::Other, true) => format!(
            "for every bridge: `nft insert rule {family} {table} {name} iifname {bridge} accept`"
        ),
        (Firewall::Other, false) => format!(
            "for every bridge: `nft insert rule {family} {table} {name} iifname {bridge} accept` and \
             `nft insert rule {family} {table} {name} oifname {bridge} accept`"
        ),
    };
    Finding {
        found: format!("{owner}chain {name} of table {family} {table} drops what it does not know"),
        effect: effect.to_owned(),
        remedy: format!("{remedy}; our own rules still decide about those packets"),
    }
}

/// Rules of the old kernel interface are invisible to nft.
fn legacy_iptables(slot: &SlotSpec) -> Option<Finding> {
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").ok()?;
    let tables: Vec<&str> = names.split_whitespace().collect();
    tables.contains(&"filter").then(|| Finding {
        found: "rules of legacy iptables in table filter".to_owned(),
        effect: "they may drop what guests send; nft cannot show them".to_owned(),
        remedy: format!(
            "look at `iptables-legacy -S FORWARD`, and accept `-i {0}` and `-o {0}` there",
            slot.bridge
        ),
    })
}

/// A strict reverse path filter takes packets only from where the host itself would send answers
/// to. That is wherever the default route leads, which need not be the uplink that was set.
fn reverse_path(uplink_set: &InterfaceName) -> Option<Finding> {
    let read = |interface: &str| -> Option<u8> {
        let path = format!("{SETTINGS}/{interface}/rp_filter");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // The kernel takes the greater of the two; 1 is strict, 2 loose.
    let strict = read("all").max(read(uplink_set.as_str())) == Some(1);
    // When the routes cannot be read, the plan has said so already.
    let default = uplink().ok()?;
    (strict && default.as_ref() != Some(uplink_set)).then(|| Finding {
        found: format!(
            "a strict reverse path filter on {uplink_set}, while the default route leads {}",
            default.map_or_else(|| "nowhere".to_owned(), |other| format!("to {other}"))
        ),
        effect: format!("callers of published ports that come in by {uplink_set} are not heard"),
        remedy: format!("`sysctl -w net.ipv4.conf.{uplink_set}.rp_filter=2`"),
    })
}

/// systemd-networkd takes addresses away that its own files do not name.
fn networkd(slots: &[SlotSpec], world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    for slot in slots {
        let Some(observed) = world.links.get(&slot.name) else {
            continue;
        };
        let links = [(&slot.bridge, &observed.bridge), (&slot.tap, &observed.tap)];
        for (name, link) in links {
            let index = link.as_ref().map(|link| link.index);
            if let Some(file) = index.and_then(network_file) {
                findings.push(Finding {
                    found: format!("systemd-networkd manages {name} by {file}"),
                    effect: "it removes addresses and settings that this file does not name".to_owned(),
                    remedy: format!(
                        "give {name} a file of its own in /etc/systemd/network with `[Match] Name={name}` \
                         and `[Link] Unmanaged=yes`"
                    ),
                });
            }
        }
    }
    findings
}

/// The file by which networkd configures an interface.
fn network_file(index: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/run/systemd/netif/links/{index}")).ok()?;
    let file = text
        .lines()
        .find_map(|line| line.strip_prefix("NETWORK_FILE="));
    file.filter(|file| !file.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Egress;
    use crate::slot::{SlotName, SlotNet};

    fn slot() -> SlotSpec {
        let name: SlotName = "slot1".parse().unwrap();
        let net = SlotNet::new(name.clone(), name.index().unwrap());
        SlotSpec {
            bridge: net.bridge().unwrap(),
            tap: net.tap().unwrap(),
            mac: net.mac(),
            subnet: net.subnet(),
            owner: 0,
            egress: Egress::Web,
            allow_imds: false,
            host_ports: Vec::new(),
            publish: Vec::new(),
            name,
        }
    }

    fn chain(table: &str, name: &str, hook: &str, policy: &str) -> String {
        format!(
            r#"{{"chain": {{"family": "ip", "table": "{table}", "name": "{name}", "hook": "{hook}", "policy": "{policy}"}}}}"#
        )
    }

    fn found(chains: &[String]) -> Vec<Finding> {
        let json = format!(
            r#"{{"nftables": [{{"metainfo": {{}}}}, {}]}}"#,
            chains.join(", ")
        );
        in_chains(&json, &slot())
    }

    #[test]
    fn our_own_and_open_chains_are_in_nobodys_way() {
        let chains = [
            chain("slotvmm", "forward", "forward", "drop"),
            chain("filter", "FORWARD", "forward", "accept"),
            chain("filter", "OUTPUT", "output", "drop"),
        ];
        assert_eq!(found(&chains), []);
    }

    #[test]
    fn each_firewall_has_a_remedy_of_its_own() {
        let remedies = [
            (
                vec![chain("filter", "DOCKER-USER", "", "")],
                "iptables -I DOCKER-USER -i br-slot1",
            ),
            (
                vec![chain("filter", "ufw-before-forward", "", "")],
                "ufw route allow in on br-slot1",
            ),
            (
                vec![chain("filter", "nixos-fw-accept", "", "")],
                "extraForwardRules",
            ),
            (
                vec![],
                "nft insert rule ip filter FORWARD iifname br-slot1 accept",
            ),
        ];
        for (mut chains, remedy) in remedies {
            chains.push(chain("filter", "FORWARD", "forward", "drop"));
            let [finding] = found(&chains).try_into().unwrap();
            assert!(finding.remedy.contains(remedy), "{finding:?}");
        }
        let chains = [chain("firewalld", "filter_FORWARD", "forward", "accept")];
        assert!(found(&chains)[0].remedy.contains("firewall-cmd"));
    }

    #[test]
    fn nixos_refuses_input_whatever_its_policy_says() {
        let chains = [
            chain("filter", "nixos-fw", "", ""),
            chain("filter", "INPUT", "input", "accept"),
            chain("filter", "FORWARD", "forward", "accept"),
        ];
        let [finding] = found(&chains).try_into().unwrap();
        assert!(finding.remedy.contains("trustedInterfaces"), "{finding:?}");
    }

    /// Any JSON, with the keys and values that are looked for among others.
    fn json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            "[a-z-]{0,8}",
            prop::sample::select(vec![
                "filter",
                "firewalld",
                "nixos-fw",
                "slotvmm",
                "ufw-x",
                "DOCKER",
                "input",
                "forward",
                "drop",
                "accept",
                "ip",
                "inet",
            ])
            .prop_map(str::to_owned),
        ];
        let key = prop::sample::select(vec![
            "nftables", "chain", "table", "family", "name", "hook", "policy", "x",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(key.clone().prop_map(str::to_owned), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_list_of_chains_is_read_to_its_end(chains in prop::collection::vec(json(), 0..8)) {
            let objects: Vec<Value> = chains
                .into_iter()
                .map(|chain| serde_json::json!({ "chain": chain }))
                .collect();
            let text = serde_json::json!({ "nftables": objects }).to_string();
            // No chain is reported twice.
            prop_assert!(in_chains(&text, &slot()).len() <= objects.len());
        }

        #[test]
        fn any_document_and_any_text_is_read(document in json(), text in ".{0,64}") {
            let _ = in_chains(&document.to_string(), &slot());
            prop_assert!(in_chains(&text, &slot()).is_empty());
        }
    }

    #[test]
    fn what_is_no_json_finds_nothing() {
        assert_eq!(in_chains("", &slot()), []);
        assert_eq!(
            in_chains("{\"nftables\": [1, {\"chain\": 2}]}", &slot()),
            []
        );
    }
}
