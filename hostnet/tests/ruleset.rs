//! Any valid configuration becomes rules that `nft` takes. Needs root and nftables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

use hostnet::policy::{
    Egress, EgressRule, HostPort, HostSpec, Pair, PortRange, Protocol, Publish, Redirect, SlotSpec,
    Transport,
};
use hostnet::pool::Pool;
use hostnet::ruleset;
use hostnet::slot::{SlotIndex, SlotName, SlotNet};
use nix::sched::{CloneFlags, unshare};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Each takes two runs of `nft`.
const CASES: u32 = 64;

fn transport() -> impl Strategy<Value = Transport> {
    select(vec![Transport::Tcp, Transport::Udp])
}

fn ports() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 1..=u16::MAX).prop_map(|(one, other)| {
        let (first, last) = (one.min(other), one.max(other));
        format!("{first}-{last}").parse().unwrap()
    })
}

fn network() -> impl Strategy<Value = ipnet::Ipv4Net> {
    (any::<u32>(), 0..=32_u8)
        .prop_map(|(bits, length)| ipnet::Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length))
        .prop_map(|network| network.trunc())
}

fn rule() -> impl Strategy<Value = EgressRule> {
    let with_ports = (transport(), vec(ports(), 0..4)).prop_map(|(proto, ports)| {
        let proto = match proto {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        (proto, ports)
    });
    let what = prop_oneof![3 => with_ports, 1 => Just((Protocol::Icmp, Vec::new()))];
    (what, vec(network(), 0..4)).prop_map(|((proto, ports), cidrs)| EgressRule {
        proto,
        ports,
        cidrs,
    })
}

fn egress() -> impl Strategy<Value = Egress> {
    prop_oneof![
        Just(Egress::Web),
        Just(Egress::None),
        Just(Egress::Unrestricted),
        vec(rule(), 0..4).prop_map(Egress::Rules),
    ]
}

/// A slot; its published ports lie in a range of its own, as they must.
fn slot(index: u8) -> impl Strategy<Value = SlotSpec> {
    let host_port = (transport(), ports()).prop_map(|(proto, ports)| HostPort { proto, ports });
    let published = (transport(), 1..=u16::MAX);
    (
        egress(),
        any::<bool>(),
        vec(host_port, 0..4),
        vec(published, 0..4),
    )
        .prop_map(move |(egress, allow_imds, host_ports, published)| {
            let name: SlotName = format!("slot{index}").parse().unwrap();
            let net = SlotNet::new(name.clone(), name.index().unwrap());
            let first = 1000 + u16::from(index) * 8;
            let publish = (first..).zip(published);
            SlotSpec {
                bridge: net.bridge().unwrap(),
                tap: net.tap().unwrap(),
                mac: net.mac(),
                subnet: Pool::default().subnet(SlotIndex::new(index.into()).unwrap()),
                owner: 0,
                egress,
                allow_imds,
                host_ports,
                publish: publish
                    .map(|(host, (proto, guest))| Publish { proto, host, guest })
                    .collect(),
                name,
            }
        })
}

/// What slots share; only some of the names that it uses are those of slots that are up.
fn host() -> impl Strategy<Value = HostSpec> {
    let name = || (1..=8_u8).prop_map(|index| format!("slot{index}").parse::<SlotName>().unwrap());
    let interface =
        |names: &'static [&'static str]| select(names).prop_map(|name| name.parse().unwrap());
    let pair = (
        name(),
        name(),
        vec(ports(), 0..3),
        vec(ports(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(from, to, tcp, udp, icmp)| Pair {
            from,
            to,
            tcp,
            udp,
            icmp,
        });
    let to = (any::<u32>(), 1..=u16::MAX);
    let redirect = (vec(name(), 0..3), transport(), 1..=u16::MAX, to).prop_map(
        |(slots, proto, port, (address, to))| Redirect {
            slots,
            proto,
            port,
            to: SocketAddrV4::new(Ipv4Addr::from_bits(address), to),
        },
    );
    (
        prop::option::of(interface(&["eth0", "en.5", "wlp3s0"])),
        btree_set(interface(&["tailscale0", "wg-home", "lo2"]), 0..3),
        btree_set(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..4),
        vec(pair, 0..4),
        vec(redirect, 0..3),
    )
        .prop_map(|(uplink, trusted, dns, allow, dnat)| HostSpec {
            uplink,
            trusted: trusted.into_iter().collect(),
            dns: dns.into_iter().collect(),
            allow,
            dnat,
        })
}

/// Runs `nft`; what it complains of, or nothing when it takes `text`.
fn complaint(arguments: &[&str], text: &str) -> std::io::Result<Option<String>> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(said))
}

#[test]
fn any_valid_configuration_is_taken_by_nft() {
    // Only this thread leaves the machine's network, and it ends with the test.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: no network namespace can be made: {error}");
        return;
    }
    match complaint(&["-f", "-"], "add table inet probe\n") {
        Ok(None) => {}
        Ok(Some(reason)) => {
            eprintln!("skipped: no rules can be loaded here: {reason}");
            return;
        }
        Err(error) => {
            eprintln!("skipped: nft does not start: {error}");
            return;
        }
    }
    let slots = btree_set(1..=8_u8, 0..5)
        .prop_flat_map(|indices| indices.into_iter().map(slot).collect::<Vec<_>>());
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&(host(), slots), |(host, slots)| {
        let text = ruleset::text(&host, &slots);
        // Checked as a dry run, and loaded: the kernel has an opinion of its own.
        for arguments in [["-c", "-f", "-"].as_slice(), &["-f", "-"]] {
            let said = complaint(arguments, &text).unwrap();
            prop_assert_eq!(said, None, "{}", text);
        }
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
