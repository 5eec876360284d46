//! `net` and taps in a network namespace of their own. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use common::{Ended, Host};

/// Runs a script with `slotvmm` in the path, in a fresh network namespace that has its own `/sys`;
/// nothing where that cannot be had.
fn in_namespace(host: &Host, script: &str) -> Option<Ended> {
    let namespace = |script: &str| {
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_slotvmm"));
        let mut paths = vec![binary.parent().unwrap().to_owned()];
        paths.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        paths.extend(["/usr/sbin".into(), "/sbin".into()]);
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "sh", "-e", "-c"])
            .arg(format!("mount -t sysfs sysfs /sys\n{script}"));
        command.env("PATH", std::env::join_paths(paths).unwrap());
        command.env("SLOTVMM_CONFIG", host.path("etc")).output()
    };
    let possible = namespace(
        "ip tuntap add probe mode tap && ip link add probe2 type bridge && nft list tables",
    );
    match possible {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!(
                "skipped: no network namespace with taps, bridges and rules: {}",
                reason.trim()
            );
            return None;
        }
        Err(error) => {
            eprintln!("skipped: unshare does not start: {error}");
            return None;
        }
    }
    Some(host.ended(namespace(script).unwrap()))
}

#[test]
fn apply_makes_what_is_missing_once_and_down_removes_it() {
    let host = Host::new();
    let script = "
        slotvmm net apply slot1 --user 45990 --dry-run > /dev/null
        ip link show br-slot1 2> /dev/null && exit 1
        slotvmm net apply slot1 --user 45990 > /dev/null
        slotvmm net apply slot1 --user 45990
        ip -o -4 address show dev br-slot1
        ip -o -d link show dev vm-slot1
        ip link set vm-slot1 down
        slotvmm net apply slot1 --user 45990
        slotvmm net down slot1
        slotvmm net down slot1
        ip -o link | wc -l";
    let Some(ended) = in_namespace(&host, script) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [
        nothing,
        address,
        tap,
        up,
        tap_gone,
        bridge_gone,
        rules_gone,
        nothing_left,
        links,
    ] = lines.as_slice()
    else {
        panic!("{ended:?}");
    };
    assert_eq!(*nothing, "Nothing to do");
    assert!(address.contains("inet 10.1.0.1/24"), "{address}");
    for expected in [
        "master br-slot1",
        "type tap",
        "vnet_hdr on",
        "persist on",
        "user 45990",
        "UP",
    ] {
        assert!(tap.contains(expected), "{expected} is missing: {tap}");
    }
    assert_eq!(*up, "bring vm-slot1 up");
    assert_eq!(
        (*tap_gone, *bridge_gone, *rules_gone),
        ("delete vm-slot1", "delete br-slot1", "remove our rules")
    );
    assert_eq!((*nothing_left, links.trim()), ("Nothing to do", "1"));
}

#[test]
fn what_someone_else_made_is_used_and_left() {
    let host = Host::new();
    let script = "
        ip link add br-slot1 type bridge
        slotvmm net apply slot1 > /dev/null
        slotvmm net status slot1
        slotvmm net down slot1
        ip -o link show br-slot1 | wc -l";
    let Some(ended) = in_namespace(&host, script) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("complete"), "{ended:?}");
    assert!(
        ended.stdout.ends_with(
            "delete vm-slot1\nremove 10.1.0.1/24 from br-slot1\ntake br-slot1 down\n\
                 switch off forwarding of br-slot1\n\
                 remove our rules\nleave br-slot1: we did not create it\n1\n"
        ),
        "{ended:?}"
    );
}

#[test]
fn names_that_are_taken_are_31() {
    let host = Host::new();
    let script = "
        ip link add vm-slot1 type bridge
        slotvmm net apply slot1 && exit 1 || exit $?";
    let Some(ended) = in_namespace(&host, script) else {
        return;
    };
    ended.failed_with(
        31,
        "Interface vm-slot1 exists and is a bridge, expected a tap",
    );
}

#[test]
fn each_unfit_tap_has_its_own_error_and_31() {
    let host = Host::new();
    std::fs::create_dir(host.path("state/slot1")).unwrap();
    let image = std::fs::File::create(host.path("state/slot1/data.img")).unwrap();
    image.set_len(1 << 20).unwrap();
    let run = "slotvmm run slot1 && exit 1 || exit $?";
    let cases = [
        ("", "Tap vm-slot1 does not exist: create it"),
        (
            "ip link add vm-slot1 type bridge",
            "Interface vm-slot1 is not a tap",
        ),
        (
            "ip tuntap add vm-slot1 mode tun",
            "was created with other flags",
        ),
    ];
    for (prepare, message) in cases {
        let Some(ended) = in_namespace(&host, &format!("{prepare}\n{run}")) else {
            return;
        };
        ended.failed_with(31, message);
    }
    let other = "slotvmm net apply slot1 --user 45990 > /dev/null
        chmod -R a+rwX $SLOTVMM_CONFIG/..
        setpriv --reuid 12345 --clear-groups --inh-caps=-all --bounding-set=-all slotvmm run slot1 && exit 1 || exit $?";
    let Some(ended) = in_namespace(&host, other) else {
        return;
    };
    if ended.stderr.contains("Failed to open /dev/net/tun") {
        eprintln!("skipped: other users cannot open /dev/net/tun here");
        return;
    }
    ended.failed_with(
        31,
        "Tap vm-slot1 belongs to user 45990, this process is user 12345",
    );
}
