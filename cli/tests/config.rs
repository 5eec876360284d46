//! `config check`, `config show` and `run --dry-run` as a user sees them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::Host;

#[test]
fn check_names_every_problem_of_every_file() {
    let host = Host::new();
    host.write(
        "etc/slots/slot1.toml",
        "[boot]\nbootstrp = \"/b\"\n[machine]\nvcpus = \"two\"\n",
    );
    host.write(
        "etc/slots/slot2.json",
        "{\"machine\": {\"memory\": \"512MB\"}}",
    );
    host.write("etc/slots/web.toml", "");
    let checked = host.run(&["config", "check"]);
    assert_eq!(checked.code, Some(30), "{checked:?}");
    assert_eq!(
        checked.stdout,
        "\
/HOST/etc/slots/slot1.toml:2:1: `boot.bootstrp`: unknown key; did you mean `bootstrap`? (known here: bootstrap, discovery, identity, init, initrd, kernel, params, profile, toplevel)
/HOST/etc/slots/slot1.toml:4:9: `machine.vcpus`: expected a whole number from 1 to 254, found the text \"two\"
/HOST/etc/slots/slot2.json:1:24: `machine.memory`: decimal unit MB is not accepted: use MiB, GiB or TiB
`index`: slot web needs an index from 1 to 255, only names slot1 to slot255 have one: add a line such as `index = 20` to /HOST/etc/slots/web.toml
4 problems
"
    );
    assert_eq!(checked.stderr, "");
}

#[test]
fn check_as_json_has_places() {
    let host = Host::new();
    host.write("etc/slots/slot1.toml", "\n  x = 1\n");
    let checked = host.run(&["config", "check", "slot1", "--json"]);
    assert_eq!(checked.code, Some(30));
    let json: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let problem = &json["problems"][0];
    assert_eq!(problem["file"], "/HOST/etc/slots/slot1.toml");
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&2.into(), &3.into())
    );
    assert_eq!(problem["key"], "x");
}

#[test]
fn check_finds_slots_that_share_what_only_one_can_have() {
    let host = Host::new();
    host.write("etc/slots/slot1.toml", "");
    host.write("etc/slots/slot2.toml", "[[net]]\ntap = \"vm-slot1\"\n");
    let checked = host.run(&["config", "check"]);
    assert_eq!(checked.code, Some(30));
    assert!(
        checked
            .stdout
            .contains("tap vm-slot1 is used by slots slot1 and slot2"),
        "{checked:?}"
    );
    host.write("etc/slots/slot2.toml", "");
    let checked = host.run(&["config", "check"]);
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (Some(0), "No problems in slot1, slot2\n")
    );
}

#[test]
fn a_wrong_host_file_is_a_problem_of_its_own() {
    let host = Host::new();
    host.write("etc/host.toml", "state_dri = \"/x\"\n");
    let checked = host.run(&["config", "check"]);
    assert_eq!(checked.code, Some(30));
    assert!(
        checked
            .stdout
            .starts_with("/HOST/etc/host.toml:1:1: `state_dri`"),
        "{checked:?}"
    );
    host.run(&["list"])
        .failed_with(30, "did you mean `state_dir`?");
}

#[test]
fn show_prints_a_slot_without_a_file() {
    let host = Host::new();
    let shown = host.run(&["config", "show", "slot3", "--json"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(json["index"], 3);
    assert_eq!(json["nics"][0]["tap"], "vm-slot3");
    assert_eq!(json["disks"][0]["path"], "/HOST/state/slot3/data.img");
    assert_eq!(json["disks"][0]["create"]["size_mib"], 8);
    let text = host.run(&["config", "show", "slot3"]).stdout;
    assert!(text.contains("10.3.0.2, gateway 10.3.0.1/24"), "{text}");
}

#[test]
fn a_dry_run_prints_the_plan_and_makes_nothing() {
    let host = Host::new();
    let dry = host.run(&["run", "slot1", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    for expected in [
        "/HOST/vmlinux (ELF)",
        "systemd.hostname=slot1",
        "virtio-blk",
        "will be created: 8 MiB, ext4, label microvm-root",
        "vm-slot1",
        "/HOST/run/slot1/control.sock",
    ] {
        assert!(
            dry.stdout.contains(expected),
            "expected {expected:?} in {}",
            dry.stdout
        );
    }
    assert_eq!(host.files("state"), Vec::<String>::new());
    assert!(!host.path("run").exists());
}

#[test]
fn a_dry_run_as_json_has_addresses_and_positions() {
    let host = Host::new();
    host.write(
        "etc/slots/slot1.toml",
        "[machine]\nmemory = \"5GiB\"\nvcpus = 3\n",
    );
    let dry = host.run(&["run", "slot1", "--dry-run", "--json"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let json: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    let ram: u64 = json["machine"]["memory"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|range| range["kind"] == "ram")
        .map(|range| range["end"].as_u64().unwrap() - range["start"].as_u64().unwrap() + 1)
        .sum();
    assert!(ram <= 5 << 30 && ram > (5 << 30) - (1 << 20), "{ram}");
    let devices = json["machine"]["devices"].as_array().unwrap();
    let data = devices
        .iter()
        .find(|device| device["id"] == "data")
        .unwrap();
    assert_eq!(
        (&data["position"], &data["kind"]),
        (&1.into(), &"virtio-blk".into())
    );
    assert_eq!(json["disks"][0]["state"], "will-be-created");
    assert_eq!(json["taps"][0]["name"], "vm-slot1");
}

#[test]
fn discovery_by_command_line_is_in_the_plan() {
    let host = Host::new();
    host.write("etc/slots/slot1.toml", "[boot]\ndiscovery = \"cmdline\"\n");
    let dry = host.run(&["run", "slot1", "--dry-run", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    let cmdline = json["cmdline"].as_str().unwrap();
    assert_eq!(
        cmdline.matches("virtio_mmio.device=4K@").count(),
        4,
        "{cmdline}"
    );
}

#[test]
fn networks_that_collide_are_named_with_their_place() {
    let host = Host::new();
    host.write(
        "etc/slots/slot10.toml",
        "[net]\npublish = [{ host = 80, guest = 80 }]\n",
    );
    host.write(
        "etc/slots/web.toml",
        "index = 20\n[net]\nsubnet = \"10.10.0.0/25\"\nbridge = \"br-slot10\"\n\
         publish = [{ host = 80, guest = 8080 }]\n",
    );
    let ended = host.run(&["config", "check"]);
    assert_eq!(ended.code, Some(30), "{ended:?}");
    for expected in [
        "web.toml:3:10: `net.subnet`: addresses of 10.10.0.0/24 and 10.10.0.0/25 are used by slots web and slot10",
        "web.toml:4:10: `net.bridge`: bridge br-slot10 is used by slots web and slot10",
        "`net.publish`: tcp port 80 is published by slots web and slot10",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}: {ended:?}");
    }
    // The network is refused as well, before anything is touched.
    let ended = host.run(&["net", "plan"]);
    assert_eq!(ended.code, Some(30), "{ended:?}");
}

#[test]
fn wrong_network_keys_say_what_was_expected() {
    let cases = [
        (
            "egress = \"unrestrictd\"",
            "`net.egress`: expected \"unrestricted\" or \"web\" or \"none\", found the text \"unrestrictd\"; did you mean \"unrestricted\"?",
        ),
        (
            "egress = [{ proto = \"tcp\", prots = [1] }]",
            "did you mean `ports`?",
        ),
        (
            "subnet = \"10.1.0.1/24\"",
            "10.1.0.1/24 is an address in a network: expected the network, 10.1.0.0/24",
        ),
        ("host_ports = [0]", "\"0\" is not a port"),
        ("publish = [{ host = 80 }]", "the key `guest` is missing"),
        (
            "bridge = \"br-much-too-long\"",
            "has 16 bytes, the kernel allows 15",
        ),
    ];
    for (line, expected) in cases {
        let host = Host::new();
        host.write("etc/slots/slot1.toml", &format!("[net]\n{line}\n"));
        let ended = host.run(&["config", "check"]);
        assert!(ended.stdout.contains("slot1.toml:2:"), "{line}: {ended:?}");
        assert!(ended.stdout.contains(expected), "{line}: {ended:?}");
    }
    let host = Host::new();
    let text = std::fs::read_to_string(host.path("etc/host.toml")).unwrap();
    host.write(
        "etc/host.toml",
        &format!("{text}[net]\npool = \"10.0.0.0/24\"\n"),
    );
    let ended = host.run(&["config", "check"]);
    assert!(
        ended
            .stdout
            .contains("`net.pool`: \"10.0.0.0/24\" is not a pool"),
        "{ended:?}"
    );
}
