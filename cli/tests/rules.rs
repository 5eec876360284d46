//! What the rules let through and what they do not, with real packets. Needs root and nftables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod machines;

use machines::Fate::{IsDropped, Passes};
use machines::{HOST, INTERNET, Lab};

#[test]
fn guests_reach_the_web_under_the_hosts_address_and_nothing_else() {
    let Some(mut lab) = Lab::new("", &["[net]\n", "[net]\negress = \"unrestricted\"\n"]) else {
        return;
    };
    lab.boot(2);
    lab.internet.serve(&[22, 53, 80, 443, 853]);
    let (web, open) = (lab.guest(1), lab.guest(2));
    let host = HOST.parse().unwrap();
    assert_eq!(web.seen_as(&format!("{INTERNET}:80")), Some(host));
    web.expect_tcp(&format!("{INTERNET}:443"), Passes);
    web.expect_udp(&format!("{INTERNET}:443"), Passes);
    for port in [22, 53, 853] {
        web.expect_tcp(&format!("{INTERNET}:{port}"), IsDropped);
        web.expect_udp(&format!("{INTERNET}:{port}"), IsDropped);
        open.expect_tcp(&format!("{INTERNET}:{port}"), Passes);
        open.expect_udp(&format!("{INTERNET}:{port}"), Passes);
    }
    web.expect_ping(INTERNET, IsDropped);
    open.expect_ping(INTERNET, Passes);
}

#[test]
fn egress_follows_rules_or_is_none() {
    let rules = "[net]\negress = [
        { proto = \"tcp\", ports = [22, \"8000-8010\"], cidrs = [\"203.0.113.0/24\"] },
        { proto = \"icmp\" },
    ]\n";
    let Some(mut lab) = Lab::new("", &[rules, "[net]\negress = \"none\"\n"]) else {
        return;
    };
    lab.boot(2);
    lab.internet.serve(&[22, 80, 8005]);
    let (ruled, closed) = (lab.guest(1), lab.guest(2));
    ruled.expect_tcp(&format!("{INTERNET}:22"), Passes);
    ruled.expect_tcp(&format!("{INTERNET}:8005"), Passes);
    ruled.expect_ping(INTERNET, Passes);
    ruled.expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    ruled.expect_tcp("192.0.2.53:22", IsDropped);
    ruled.expect_udp(&format!("{INTERNET}:22"), IsDropped);
    closed.expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    closed.expect_ping(INTERNET, IsDropped);
}

#[test]
fn five_slots_do_not_reach_each_other_in_any_protocol() {
    let open = "[net]\negress = \"unrestricted\"\n";
    let Some(mut lab) = Lab::new("", &[open; 5]) else {
        return;
    };
    lab.boot(5);
    for to in 1..=5 {
        lab.guest(to).serve(&[80]);
        lab.host.expect_tcp(&format!("10.{to}.0.2:80"), Passes);
        lab.host.expect_ping(&format!("10.{to}.0.2"), Passes);
        lab.guest(to).expect_ping(&format!("10.{to}.0.1"), Passes);
    }
    for from in 1..=5 {
        for to in (1..=5).filter(|to| *to != from) {
            lab.guest(from)
                .expect_tcp(&format!("10.{to}.0.2:80"), IsDropped);
            // The host's address in another slot's network is none of a guest's business.
            lab.guest(from)
                .expect_ping(&format!("10.{to}.0.1"), IsDropped);
        }
    }
    let before = lab.drops("inet", "between-slots");
    lab.guest(1).expect_udp("10.2.0.2:80", IsDropped);
    lab.guest(1).expect_ping("10.2.0.2", IsDropped);
    lab.guest(1).send_unknown_protocol("10.2.0.2");
    assert!(lab.drops("inet", "between-slots") >= before + 3);
}

#[test]
fn pair_rules_admit_what_they_say_in_one_direction() {
    let net = "allow = [{ from = \"slot1\", to = \"slot2\", tcp = [5432], icmp = true }]";
    let Some(mut lab) = Lab::new(net, &["", ""]) else {
        return;
    };
    lab.boot(2);
    for guest in [1, 2] {
        lab.guest(guest).serve(&[5432, 5433]);
    }
    lab.guest(1).expect_tcp("10.2.0.2:5432", Passes);
    // Not under the host's address: the other slot sees who it is.
    assert_eq!(
        lab.guest(1).seen_as("10.2.0.2:5432"),
        Some([10, 1, 0, 2].into())
    );
    lab.guest(1).expect_ping("10.2.0.2", Passes);
    lab.guest(1).expect_tcp("10.2.0.2:5433", IsDropped);
    lab.guest(1).expect_udp("10.2.0.2:5432", IsDropped);
    lab.guest(2).expect_tcp("10.1.0.2:5432", IsDropped);
}

#[test]
fn nobody_speaks_under_a_foreign_address() {
    let open = "[net]\negress = \"unrestricted\"\n";
    let Some(mut lab) = Lab::new("", &[open, open]) else {
        return;
    };
    lab.boot(2);
    lab.internet.serve(&[80]);
    lab.guest(2).serve(&[80]);
    let guest = lab.guest(1);
    guest.expect_tcp(&format!("{INTERNET}:80"), Passes);

    // Another address of its own network, and one of the other slot's.
    for address in ["10.1.0.77", "10.2.0.77"] {
        let dropped = lab.drops("bridge", "from-slot1");
        guest.shell(&format!(
            "ip addr add {address}/32 dev eth0
             ip route replace default via 10.1.0.1 src {address}"
        ));
        guest.expect_ping(INTERNET, IsDropped);
        guest.expect_tcp(&format!("{INTERNET}:80"), IsDropped);
        guest.expect_tcp("10.2.0.2:80", IsDropped);
        assert!(lab.drops("bridge", "from-slot1") > dropped, "{address}");
        guest.shell(&format!(
            "ip route replace default via 10.1.0.1 && ip addr del {address}/32 dev eth0"
        ));
    }

    // ARP: the guest asks under the address of its gateway, and of the other slot's. Whoever hears
    // that takes the guest for them.
    for (gateway, asked) in [("10.1.0.1", "10.1.0.98"), ("10.2.0.1", "10.1.0.99")] {
        let dropped = lab.drops("bridge", "from-slot1");
        guest.shell(&format!(
            "ip addr add {gateway}/32 dev eth0
             ip route add {asked}/32 dev eth0 src {gateway}"
        ));
        guest.expect_tcp(&format!("{asked}:80"), IsDropped);
        assert!(lab.drops("bridge", "from-slot1") > dropped, "{gateway}");
        guest.shell(&format!(
            "ip route del {asked}/32 dev eth0; ip addr del {gateway}/32 dev eth0
             ip route replace default via 10.1.0.1"
        ));
    }
    guest.expect_tcp(&format!("{INTERNET}:80"), Passes);
    let neighbours = lab.host.shell("ip neigh show dev br-slot1");
    assert!(
        !neighbours.contains("10.1.0.1 ") && !neighbours.contains("10.2.0.1 "),
        "{neighbours}"
    );

    // A MAC address that is not the slot's.
    guest.shell("ip link set eth0 address 02:00:00:00:00:99");
    guest.expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    guest.shell("ip link set eth0 address 02:00:00:00:00:01");
    guest.expect_tcp(&format!("{INTERNET}:80"), Passes);
}

#[test]
fn metadata_service_is_for_those_that_may() {
    let may = "[net]\nallow_imds = true\negress = \"none\"\n";
    let open = "[net]\negress = \"unrestricted\"\n";
    // A proxy must not be a way around it.
    let net = "dnat = [{ port = 80, to = \"10.1.0.1:3128\" }]";
    let Some(mut lab) = Lab::new(net, &[open, may]) else {
        return;
    };
    lab.boot(2);
    lab.internet.serve(&[80, 81]);
    lab.internet.shell("ip addr add 169.254.1.1/32 dev eth0");
    lab.host.shell("ip route add 169.254.0.0/16 dev eth0");
    lab.host.serve(&[3128]);
    lab.guest(1).expect_tcp("169.254.169.254:80", IsDropped);
    lab.guest(1).expect_tcp("169.254.169.254:81", IsDropped);
    lab.guest(1).expect_tcp("169.254.1.1:81", IsDropped);
    lab.guest(2).expect_tcp("169.254.169.254:81", Passes);
    lab.guest(2).expect_tcp("169.254.1.1:81", IsDropped);
    // The proxy itself works, for what is not refused.
    let guest = "10.1.0.2".parse().unwrap();
    assert_eq!(lab.guest(1).seen_as(&format!("{INTERNET}:80")), Some(guest));
}

#[test]
fn the_host_offers_name_service_dhcp_and_declared_ports_only() {
    let ports = "[net]\nhost_ports = [9100, \"udp/5000\"]\n";
    let Some(mut lab) = Lab::new("", &[ports, ""]) else {
        return;
    };
    lab.boot(2);
    lab.host.serve(&[22, 53, 5000, 9100]);
    let guest = lab.guest(1);
    guest.expect_ping("10.1.0.1", Passes);
    guest.expect_tcp("10.1.0.1:53", Passes);
    guest.expect_udp("10.1.0.1:53", Passes);
    guest.expect_tcp("10.1.0.1:9100", Passes);
    guest.expect_udp("10.1.0.1:5000", Passes);
    guest.expect_udp("10.1.0.1:9100", IsDropped);
    guest.expect_tcp("10.1.0.1:22", IsDropped);
    lab.guest(2).expect_tcp("10.2.0.1:9100", IsDropped);
    // Whatever address of the host's it is.
    guest.expect_tcp(&format!("{HOST}:9100"), IsDropped);
    guest.expect_tcp("10.2.0.1:53", IsDropped);
    // Other protocols than IPv4 do not get as far as the host.
    let dropped = lab.drops("bridge", "from-slot1");
    guest.send_ipv6();
    assert!(lab.drops("bridge", "from-slot1") > dropped);
}

#[test]
fn queries_to_the_gateway_are_passed_on() {
    let Some(mut lab) = Lab::new(&format!("dns = [\"{INTERNET}\"]"), &[""]) else {
        return;
    };
    lab.boot(1);
    lab.internet.serve(&[53]);
    lab.guest(1).expect_udp("10.1.0.1:53", Passes);
    lab.guest(1).expect_tcp("10.1.0.1:53", Passes);
    lab.guest(1)
        .expect_udp(&format!("{INTERNET}:53"), IsDropped);
}

#[test]
fn published_ports_lead_to_the_guest_from_outside_and_from_the_host() {
    let publish = "[net]\npublish = [{ host = 8080, guest = 80 }, { host = 5353, guest = 53, proto = \"udp\" }]\n";
    let Some(mut lab) = Lab::new("", &[publish, ""]) else {
        return;
    };
    lab.boot(2);
    lab.guest(1).serve(&[53, 80]);
    let internet = INTERNET.parse().unwrap();
    // The guest sees who calls.
    assert_eq!(
        lab.internet.seen_as(&format!("{HOST}:8080")),
        Some(internet)
    );
    lab.internet.expect_udp(&format!("{HOST}:5353"), Passes);
    for address in [HOST, "127.0.0.1", "10.1.0.1"] {
        lab.host.expect_tcp(&format!("{address}:8080"), Passes);
    }
    // Nothing else leads there, and another slot has no way in by it.
    lab.internet
        .shell(&format!("ip route add 10.0.0.0/8 via {HOST}"));
    lab.internet.expect_tcp("10.1.0.2:80", IsDropped);
    lab.guest(2).expect_tcp(&format!("{HOST}:8080"), IsDropped);
    lab.guest(2).expect_tcp("127.0.0.1:8080", IsDropped);
}

#[test]
fn trusted_interfaces_reach_every_slot() {
    let Some(mut lab) = Lab::new("trusted = [\"wg0\"]", &[""]) else {
        return;
    };
    let friend = machines::Machine::new().unwrap();
    lab.host.connect("wg0", &friend, "wg0");
    lab.host
        .shell("ip addr add 100.64.0.1/24 dev wg0; ip link set wg0 up");
    friend.shell(
        "ip addr add 100.64.0.2/24 dev wg0; ip link set wg0 up; ip route add 10.0.0.0/8 via 100.64.0.1",
    );
    lab.boot(1);
    lab.guest(1).serve(&[22]);
    friend.serve(&[22]);
    friend.expect_tcp("10.1.0.2:22", Passes);
    // Trust goes one way.
    lab.guest(1).expect_tcp("100.64.0.2:22", IsDropped);
}

#[test]
fn proxies_on_the_host_get_what_is_theirs() {
    let net = "dnat = [{ slots = [\"slot1\"], port = 443, to = \"127.0.0.1:3129\" }]";
    let Some(mut lab) = Lab::new(net, &["", ""]) else {
        return;
    };
    lab.boot(2);
    lab.host.serve(&[3129]);
    lab.internet.serve(&[443]);
    let guest = "10.1.0.2".parse().unwrap();
    assert_eq!(lab.guest(1).seen_as("192.0.2.53:443"), Some(guest));
    let host = HOST.parse().unwrap();
    assert_eq!(lab.guest(2).seen_as(&format!("{INTERNET}:443")), Some(host));
    // The proxy is for redirected connections only.
    lab.guest(1).expect_tcp("127.0.0.1:3129", IsDropped);
    lab.guest(1).expect_tcp("10.1.0.1:3129", IsDropped);
}

#[test]
fn conflicting_firewalls_are_found_and_the_remedy_works() {
    let Some(mut lab) = Lab::new("", &[""]) else {
        return;
    };
    lab.host.shell(
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
    );
    lab.boot(1);
    lab.internet.serve(&[80]);
    lab.guest(1)
        .expect_tcp(&format!("{INTERNET}:80"), IsDropped);
    let status = lab.slotvmm(&["net", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let remedy = status["findings"][0]["remedy"].as_str().unwrap();
    let commands: Vec<&str> = remedy.split('`').skip(1).step_by(2).collect();
    assert_eq!(commands.len(), 2, "{remedy}");
    for command in commands {
        lab.host.shell(command);
    }
    lab.guest(1).expect_tcp(&format!("{INTERNET}:80"), Passes);
    lab.guest(1)
        .expect_tcp(&format!("{INTERNET}:22"), IsDropped);
}
