//! Applying, repairing and removing over and over: what is left is what was there. Needs root and
//! nftables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod machines;

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use machines::Fate::Passes;
use machines::{INTERNET, Lab};

/// Everything that could be left: links, addresses, routes, rules, settings. Not MAC addresses, which
/// are random, and what comes of them.
fn snapshot(lab: &Lab) -> Vec<String> {
    let text = lab.host.shell(
        "ip -br link | sed 's/ [^ ]*:[^ ]*:[^ ]* / /'; ip -br -4 address; ip -4 route show table all
         nft list ruleset
         cd /proc/sys/net/ipv4; grep -H . ip_forward conf/*/forwarding conf/*/route_localnet",
    );
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[track_caller]
fn same(left: &[String], right: &[String], when: &str) {
    let beyond = |one: &[String], other: &[String]| {
        let lines = one.iter().filter(|line| !other.contains(line));
        lines.cloned().collect::<Vec<_>>()
    };
    let differences = (beyond(left, right), beyond(right, left));
    assert_eq!(differences, (Vec::new(), Vec::new()), "{when}");
    assert_eq!(left.len(), right.len(), "{when}");
}

fn succeed(lab: &Lab, arguments: &[&str]) -> String {
    let ended = lab.slotvmm(arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

const PUBLISHED: &str = "[net]\npublish = [{ host = 8080, guest = 80 }]\n";

#[test]
fn hundred_rounds_leave_nothing_behind() {
    let Some(lab) = Lab::new("trusted = [\"eth1\"]", &[PUBLISHED, ""]) else {
        return;
    };
    lab.host.connect("eth1", &lab.internet, "eth1");
    lab.host.shell("ip link set eth1 up");
    let before = snapshot(&lab);
    for _ in 0..100 {
        succeed(&lab, &["net", "apply"]);
        succeed(&lab, &["net", "down"]);
    }
    same(&snapshot(&lab), &before, "after a hundred rounds");
    let left = lab.config.files("run-net");
    assert!(left.iter().all(|file| file.ends_with("lock")), "{left:?}");
}

#[test]
fn every_drift_is_seen_and_repaired() {
    let Some(lab) = Lab::new("", &[PUBLISHED]) else {
        return;
    };
    succeed(&lab, &["net", "apply"]);
    let complete = snapshot(&lab);
    let drifts = [
        ("ip link set br-slot1 down", "bridge br-slot1 state"),
        (
            "ip addr del 10.1.0.1/24 dev br-slot1",
            "bridge br-slot1 address",
        ),
        ("ip link set vm-slot1 nomaster", "tap vm-slot1 in"),
        ("ip link set vm-slot1 down", "tap vm-slot1 state"),
        ("ip link del vm-slot1", "tap vm-slot1"),
        ("ip link del br-slot1", "bridge br-slot1"),
        (
            "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding",
            "forwarding of eth0",
        ),
        (
            "echo 0 > /proc/sys/net/ipv4/conf/br-slot1/route_localnet",
            "route_localnet of br-slot1",
        ),
        ("nft flush chain inet slotvmm early", "rules, kernel"),
        ("nft delete table bridge slotvmm", "rules, kernel"),
        (
            "nft add element inet slotvmm bridges '{ \"eth7\" }'",
            "rules, kernel",
        ),
    ];
    for (drift, fact) in drifts {
        drift_and_repair(&lab, drift, fact);
    }
    same(&snapshot(&lab), &complete, "after all repairs");
}

fn drift_and_repair(lab: &Lab, drift: &str, fact: &str) {
    assert_eq!(
        succeed(lab, &["net", "apply"]),
        "Nothing to do\n",
        "before {drift}"
    );
    lab.host.shell(drift);
    let status = succeed(lab, &["net", "status"]);
    assert!(
        status.contains("DRIFT") && status.contains(fact),
        "{drift}: {status}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&succeed(lab, &["net", "status", "--json"])).unwrap();
    let facts = json["slots"][0]["facts"].as_array().unwrap().iter();
    let drifted = facts.chain(json["host"].as_array().unwrap());
    assert!(
        drifted
            .clone()
            .any(|f| f["what"] == fact && f["drift"] == true),
        "{drift}: {json}"
    );
    assert_ne!(succeed(lab, &["net", "plan"]), "Nothing to do\n", "{drift}");
    succeed(lab, &["net", "apply"]);
    assert_eq!(
        succeed(lab, &["net", "status"]).matches("DRIFT").count(),
        0,
        "{drift}"
    );
}

#[test]
fn killed_at_any_time_the_next_apply_completes_and_down_removes() {
    let Some(lab) = Lab::new("", &[PUBLISHED, ""]) else {
        return;
    };
    let before = snapshot(&lab);
    succeed(&lab, &["net", "apply"]);
    let complete = snapshot(&lab);
    succeed(&lab, &["net", "down"]);
    for step in 0..30 {
        lab.host.run(|| {
            let mut child = lab.config.command(&["net", "apply"]).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(step));
            // It may be done already.
            let _ = child.kill();
            child.wait().unwrap();
        });
        // The rules are there as a whole or not at all.
        let rules = lab.host.shell("nft list tables");
        assert_eq!(
            rules.contains("inet slotvmm"),
            rules.contains("bridge slotvmm"),
            "{rules}"
        );
        if step % 2 == 0 {
            succeed(&lab, &["net", "apply"]);
            same(
                &snapshot(&lab),
                &complete,
                &format!("killed after {step} ms"),
            );
        }
        succeed(&lab, &["net", "down"]);
        same(&snapshot(&lab), &before, &format!("killed after {step} ms"));
    }
}

#[test]
fn slots_come_and_go_without_the_others() {
    let Some(mut lab) = Lab::new("", &["", ""]) else {
        return;
    };
    lab.boot(2);
    lab.internet.serve(&[80]);
    succeed(&lab, &["net", "down", "slot2"]);
    let links = lab.host.shell("ip -o link");
    assert!(
        !links.contains("br-slot2") && links.contains("br-slot1"),
        "{links}"
    );
    lab.guest(1).expect_tcp(&format!("{INTERNET}:80"), Passes);
    let status = succeed(&lab, &["net", "status", "slot2"]);
    assert!(status.contains("br-slot2 absent"), "{status}");
    // A slot whose file is gone is still known, and can be removed.
    std::fs::remove_file(lab.config.path("etc/slots/slot1.toml")).unwrap();
    let status = succeed(&lab, &["net", "status"]);
    assert!(
        status.contains("`slotvmm net down slot1` removes it"),
        "{status}"
    );
    lab.host
        .shell("ip link set vm-slot1 nomaster; ip link del vm-slot1");
    succeed(&lab, &["net", "down", "slot1"]);
    let left = lab.host.shell("nft list ruleset; ip -o link");
    assert!(!left.contains("slot"), "{left}");
}

#[test]
fn what_was_there_before_stays() {
    let Some(lab) = Lab::new("", &["", ""]) else {
        return;
    };
    lab.host.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         nft 'add table inet mine; add chain inet mine c; add rule inet mine c counter'
         ip link add br-slot1 type bridge && ip addr add 192.0.2.1/24 dev br-slot1
         ip link add br-slot2 type bridge
         ip tuntap add vm-slot2 mode tap user 77 multi_queue vnet_hdr",
    );
    let taps = || {
        lab.host
            .shell("ip tuntap show; ip -o link show master br-slot2")
    };
    let before = (snapshot(&lab), taps());
    succeed(&lab, &["net", "apply"]);
    assert_ne!(taps(), before.1);
    succeed(&lab, &["net", "down"]);
    same(&snapshot(&lab), &before.0, "after down");
    assert_eq!(taps(), before.1);
}

#[test]
fn cap_net_admin_is_enough() {
    let Some(lab) = Lab::new("user = \"12345\"", &[PUBLISHED]) else {
        return;
    };
    lab.host.shell(&format!(
        "mkdir {0}/run-net; chown 12345 {0}/run-net; chmod a+rX -R {0}",
        lab.config.path("").display()
    ));
    let program = lab.config.path("slotvmm");
    std::fs::copy(env!("CARGO_BIN_EXE_slotvmm"), &program).unwrap();
    let script = |capability: &str, arguments: &str| {
        format!(
            "setpriv --reuid 12345 --regid 12345 --clear-groups --no-new-privs \
             --inh-caps=-all{capability} --ambient-caps=-all{capability} --bounding-set=-all{capability} \
             {} --config {} {arguments}",
            program.display(),
            lab.config.path("etc").display()
        )
    };
    if lab.host.run(tun_is_closed) {
        eprintln!("skipped: other users cannot open /dev/net/tun here");
        return;
    }
    let before = snapshot(&lab);
    lab.host.shell(&script(",+net_admin", "net apply"));
    let status = lab.host.shell(&script(",+net_admin", "net status"));
    assert!(
        status.contains("complete") && !status.contains("DRIFT"),
        "{status}"
    );
    // Without it, everything but the rules can be seen, and nothing changed.
    let status = lab.host.shell(&script("", "net status"));
    assert!(status.contains("rules not compared"), "{status}");
    let refused = lab
        .host
        .shell(&format!("! {} 2>&1", script("", "net down")));
    assert!(refused.contains("CAP_NET_ADMIN"), "{refused}");
    lab.host.shell(&script(",+net_admin", "net down"));
    same(&snapshot(&lab), &before, "after down");
}

/// Whether an ordinary user is kept from making taps.
fn tun_is_closed() -> bool {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", ": <>/dev/net/tun"])
        .uid(12345)
        .gid(12345);
    command.stderr(std::process::Stdio::null());
    !command.status().unwrap().success()
}
