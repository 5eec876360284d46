//! Firewalls of others, loaded as they are: guests are cut off, `net status` says by whom, and what
//! it says to do lets them through. Needs root and nftables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod machines;

use machines::Fate::{IsDropped, Passes};
use machines::{INTERNET, Lab};

/// Someone's rules.
struct Firewall {
    rules: &'static str,
    /// What `net status` calls each closed chain.
    found: &'static [&'static str],
    /// Whether it cuts guests off from the world, and from the host.
    closed: (bool, bool),
    /// Parts of what `net status` says to do, each with the same for `nft`, as its program does it.
    remedies: &'static [(&'static str, &'static str)],
}

const FIREWALLS: [Firewall; 5] = [
    Firewall {
        rules: include_str!("foreign/docker.nft"),
        found: &["found Docker's chain FORWARD of table ip filter"],
        closed: (true, false),
        remedies: &[
            (
                "`iptables -I DOCKER-USER -i br-slot1 -j ACCEPT`",
                "nft insert rule ip filter DOCKER-USER iifname br-slot1 accept",
            ),
            (
                "`iptables -I DOCKER-USER -o br-slot1 -j ACCEPT`",
                "nft insert rule ip filter DOCKER-USER oifname br-slot1 accept",
            ),
        ],
    },
    Firewall {
        rules: include_str!("foreign/ufw.nft"),
        found: &[
            "found ufw's chain INPUT of table ip filter",
            "found ufw's chain FORWARD of table ip filter",
        ],
        closed: (true, true),
        remedies: &[
            (
                "`ufw route allow in on br-slot1`",
                "nft add rule ip filter ufw-user-forward iifname br-slot1 accept",
            ),
            (
                "`ufw route allow out on br-slot1`",
                "nft add rule ip filter ufw-user-forward oifname br-slot1 accept",
            ),
            (
                "`ufw allow in on br-slot1`",
                "nft add rule ip filter ufw-user-input iifname br-slot1 accept",
            ),
        ],
    },
    Firewall {
        rules: include_str!("foreign/firewalld.nft"),
        found: &[
            "found firewalld's chain filter_INPUT of table inet firewalld",
            "found firewalld's chain filter_FORWARD of table inet firewalld",
        ],
        closed: (true, true),
        remedies: &[(
            "`firewall-cmd --zone=trusted --add-interface=br-slot1`",
            "nft add rule inet firewalld filter_INPUT_ZONES iifname br-slot1 accept
             nft add rule inet firewalld filter_FORWARD_ZONES iifname br-slot1 accept",
        )],
    },
    Firewall {
        rules: include_str!("foreign/nixos.nft"),
        found: &[
            "found the NixOS firewall's chain input of table inet nixos-fw",
            "found the NixOS firewall's chain forward of table inet nixos-fw",
        ],
        closed: (true, true),
        remedies: &[
            (
                "networking.firewall.trustedInterfaces, such as \"br-slot1\"",
                "nft insert rule inet nixos-fw input iifname br-slot1 accept",
            ),
            (
                "''iifname \"br-slot1\" accept; oifname \"br-slot1\" accept;''",
                "nft add rule inet nixos-fw forward-allow iifname br-slot1 accept
                 nft add rule inet nixos-fw forward-allow oifname br-slot1 accept",
            ),
        ],
    },
    Firewall {
        rules: include_str!("foreign/nixos-iptables.nft"),
        found: &["found the NixOS firewall's chain INPUT of table ip filter"],
        closed: (false, true),
        remedies: &[(
            "networking.firewall.trustedInterfaces, such as \"br-slot1\"",
            "nft insert rule ip filter nixos-fw iifname br-slot1 jump nixos-fw-accept",
        )],
    },
];

fn status(lab: &Lab) -> String {
    let ended = lab.slotvmm(&["net", "status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

/// A guest that reaches the web and its gateway.
fn lab() -> Option<Lab> {
    let mut lab = Lab::new("", &[""])?;
    lab.boot(1);
    lab.internet.serve(&[80]);
    lab.host.serve(&[53]);
    lab.guest(1).expect_tcp(&format!("{INTERNET}:80"), Passes);
    lab.guest(1).expect_udp("10.1.0.1:53", Passes);
    assert!(!status(&lab).contains("found "), "{}", status(&lab));
    Some(lab)
}

fn load(lab: &Lab, rules: &str) {
    lab.config.write("rules", rules);
    let path = lab.config.path("rules");
    lab.host.shell(&format!("nft -f {}", path.display()));
}

#[test]
fn each_firewall_is_named_and_what_is_said_opens_it() {
    for firewall in &FIREWALLS {
        let Some(lab) = lab() else { return };
        load(&lab, firewall.rules);
        let fate = |closed| if closed { IsDropped } else { Passes };
        let web = format!("{INTERNET}:80");
        lab.guest(1).expect_tcp(&web, fate(firewall.closed.0));
        lab.guest(1)
            .expect_udp("10.1.0.1:53", fate(firewall.closed.1));
        let said = status(&lab);
        assert_eq!(
            said.matches("found ").count(),
            firewall.found.len(),
            "{said}"
        );
        for found in firewall.found {
            assert!(said.contains(found), "{found}: {said}");
        }
        for (remedy, commands) in firewall.remedies {
            assert!(said.contains(remedy), "{remedy}: {said}");
            lab.host.shell(commands);
        }
        lab.guest(1).expect_tcp(&web, Passes);
        lab.guest(1).expect_udp("10.1.0.1:53", Passes);
    }
}

#[test]
fn commands_for_rules_of_unknown_origin_work_as_they_are_printed() {
    let Some(lab) = lab() else { return };
    load(&lab, include_str!("foreign/home-made.nft"));
    lab.guest(1)
        .expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    lab.guest(1).expect_udp("10.1.0.1:53", IsDropped);
    let said = status(&lab);
    let commands: Vec<&str> = said
        .split('`')
        .filter(|part| part.starts_with("nft insert"))
        .collect();
    assert_eq!(commands.len(), 3, "{said}");
    for command in commands {
        lab.host.shell(command);
    }
    lab.guest(1).expect_tcp(&format!("{INTERNET}:80"), Passes);
    lab.guest(1).expect_udp("10.1.0.1:53", Passes);
    // Room for slots in general is no hole in their own rules.
    lab.guest(1)
        .expect_tcp(&format!("{INTERNET}:22"), IsDropped);
}

#[test]
fn rules_of_legacy_iptables_are_noticed() {
    let Some(lab) = lab() else { return };
    let script = "if iptables-legacy -P FORWARD DROP 2>&1; then echo closed; fi";
    let said = lab.host.shell(script);
    if !said.contains("closed") {
        eprintln!("skipped: no legacy iptables here: {}", said.trim());
        return;
    }
    lab.guest(1)
        .expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    let said = status(&lab);
    assert!(said.contains("found rules of legacy iptables"), "{said}");
    assert!(said.contains("`iptables-legacy -S FORWARD`"), "{said}");
    lab.host.shell(
        "iptables-legacy -I FORWARD -i br-slot1 -j ACCEPT
         iptables-legacy -I FORWARD -o br-slot1 -j ACCEPT",
    );
    lab.guest(1).expect_tcp(&format!("{INTERNET}:80"), Passes);
}

#[test]
fn strict_path_filter_is_reported_where_it_drops() {
    let Some(lab) = Lab::new("uplink = \"eth1\"", &[""]) else {
        return;
    };
    lab.host.connect("eth1", &lab.internet, "eth1");
    lab.host.shell("ip link set eth1 up");
    let setting = "/proc/sys/net/ipv4/conf/eth1/rp_filter";
    lab.host
        .shell("echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
    let expected =
        "found a strict reverse path filter on eth1, while the default route leads to eth0";
    for (value, reported) in [("0", false), ("1", true), ("2", false)] {
        lab.host.shell(&format!("echo {value} > {setting}"));
        let said = status(&lab);
        assert_eq!(said.contains(expected), reported, "{value}: {said}");
    }
    // Where the default route is the uplink, answers go where packets come from.
    lab.host.shell(&format!(
        "echo 1 > {setting}; ip route del default; ip route add default dev eth1"
    ));
    assert!(!status(&lab).contains("reverse path"));
}

/// Where systemd-networkd is.
const NETWORKD: &str = "/lib/systemd/systemd-networkd";

#[test]
fn networkd_that_takes_our_bridges_is_named() {
    let Some(lab) = Lab::new("", &[""]) else {
        return;
    };
    let user = lab.host.shell("id -u systemd-network 2>&1 || true");
    if !std::path::Path::new(NETWORKD).exists() || user.trim().parse::<u32>().is_err() {
        eprintln!("skipped: no systemd-networkd here");
        return;
    }
    assert_eq!(lab.slotvmm(&["net", "apply"]).code, Some(0));
    // A place of its own for its state; the read-only /sys tells it that there is no udev.
    let script = format!(
        "unshare --mount sh -e -c '
             mount -t tmpfs tmpfs /run
             mount -t sysfs -o ro sysfs /sys
             mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases
             chown -R systemd-network /run/systemd/netif
             printf \"[Match]\\nName=br-* vm-*\\n[Network]\\nAddress=198.51.100.1/24\\n\" \
                 >/run/systemd/network/10-all.network
             {NETWORKD} 2>/run/said & networkd=$!
             for try in $(seq 300); do
                 grep -qs ^NETWORK_FILE=. /run/systemd/netif/links/* && break
                 kill -0 $networkd
                 sleep 0.1
             done
             {slotvmm} net status
             kill $networkd; wait $networkd || true'",
        slotvmm = format_args!(
            "{} --config {}",
            env!("CARGO_BIN_EXE_slotvmm"),
            lab.config.path("etc").display()
        ),
    );
    let said = lab.host.shell(&script);
    for part in [
        "systemd-networkd manages br-slot1 by /run/systemd/network/10-all.network",
        "`[Match] Name=br-slot1` and `[Link] Unmanaged=yes`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
