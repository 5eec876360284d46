//! `bench boot` and `boot-report` with a kernel of a few instructions, on any KVM that answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::Host;
use serde_json::Value;

/// `mov dx, 0x3f8; mov al, 'k'; out dx, al; mov al, '\n'; out dx, al`
const HELLO: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'k', 0xee, 0xb0, b'\n', 0xee];
/// `mov al, 0xfe; out 0x64, al; hlt`: the keyboard controller's reset.
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4];
/// `jmp $`
const SPIN: &[u8] = &[0xeb, 0xfe];

/// A host with a slot that runs `code` and has a data image, or nothing where KVM cannot be used.
fn host(code: &[&[u8]]) -> Option<Host> {
    if !common::kvm_opens() {
        return None;
    }
    let host = Host::with_kernel(&code.concat());
    fs::create_dir(host.path("state/slot1")).unwrap();
    host.write("state/slot1/data.img", &"d".repeat(4096));
    host.write(
        "etc/slots/slot1.toml",
        "[machine]\nmemory = 64\n[vsock]\nenabled = false\n",
    );
    Some(host)
}

const BENCH: [&str; 6] = [
    "bench",
    "boot",
    "slot1",
    "--ignore-cpu-check",
    "--compare",
    "none",
];

#[test]
fn every_boot_is_reported_and_the_slots_data_is_as_it_was() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let page = host.path("report.html").display().to_string();
    let saved = host.path("report.json").display().to_string();
    let options = ["-n", "3", "--json", "--html", &page, "--save", &saved];
    let ended = host.run(&[&BENCH[..], &options].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let saved: Value = serde_json::from_slice(&fs::read(saved).unwrap()).unwrap();
    assert_eq!(saved["figures"], report["figures"]);
    let ours = &report["results"]["entries"][0];
    assert_eq!(ours["runs"].as_array().unwrap().len(), 3);
    assert_eq!(ours["failures"], Value::Array(Vec::new()));
    for run in ours["runs"].as_array().unwrap() {
        let at = |mark: &str| run["marks"][mark].as_f64().unwrap();
        assert!(0.0 < at("vcpu_run") && at("vcpu_run") < at("exit"), "{run}");
        assert!(at("first_output") < at("exit"), "{run}");
    }
    let machine = report["machine"].to_string();
    assert!(machine.contains("systemd.hostname=slot1"), "{machine}");
    // A guest with the address of a card that is not there would wait for it. Whether there is one is up
    // to the host.
    let notes = report["notes"].to_string();
    let left_out = notes.contains("network card is left out");
    assert_eq!(machine.contains("ip=10.1.0.2::10.1.0.1"), !left_out);
    assert_eq!(notes.contains("only the slot's gateway answers"), !left_out);
    assert!(fs::read_to_string(page).unwrap().contains("<svg"));
    assert_eq!(
        fs::read_to_string(host.path("state/slot1/data.img")).unwrap(),
        "d".repeat(4096)
    );
    assert_eq!(host.files("state"), ["slot1", "slot1/data.img"]);
    assert_eq!(host.files("run/slot1"), ["lock"]);
    let left = host.files("cache");
    assert!(!left.iter().any(|name| name.contains("bench-")), "{left:?}");
}

#[test]
fn cards_are_left_out_when_that_is_asked_for() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let ended = host.run(&[&BENCH[..], &["-n", "1", "--no-net", "--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let machine = report["machine"].to_string();
    assert!(!machine.contains("ip="), "{machine}");
    assert!(machine.contains(r#"["network cards","0"]"#), "{machine}");
    assert!(report["notes"].to_string().contains("--no-net says so"));
}

#[test]
fn machines_at_once_are_compared_to_one_alone() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let bench = ["bench", "boot", "slot1", "--ignore-cpu-check"];
    let options = ["--together", "3", "-n", "2", "--json"];
    let ended = host.run(&[&bench[..], &options].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["machines"], 3);
    assert_eq!(report["all_ms"]["count"], 2);
    let number = |key: &str| report[key].as_f64().unwrap();
    assert!(
        number("minimum_ms") > 0.0 && number("ratio") > 0.0,
        "{report}"
    );
    // Each of three boots of both rounds said when its vCPU entered the guest.
    assert_eq!(report["marks"][0]["mark"], "vcpu_run");
    assert_eq!(report["marks"][0]["each"]["count"], 6);
    assert_eq!(host.files("run/slot1"), ["lock"]);
    let left = host.files("cache");
    assert!(!left.iter().any(|name| name.contains("bench-")), "{left:?}");
}

#[test]
fn slot_in_use_is_refused() {
    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    fs::create_dir_all(host.path("run/slot1")).unwrap();
    let lock = fs::File::create(host.path("run/slot1/lock")).unwrap();
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    // An open-file-description lock is what a running slot has; one of the process conflicts as well.
    host.run(&BENCH).failed_with(32, "slot1 cannot be run");
}

#[test]
fn boot_that_fails_is_reported_with_its_console() {
    let Some(host) = host(&[HELLO, SPIN]) else {
        return;
    };
    let ended = host.run(&[&BENCH[..], &["-n", "1", "--timeout", "1"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let expected = "FAILED: slotvmm, boot warm-up: The guest did not show `exit` within 1 s";
    assert!(ended.stdout.contains(expected), "{ended:?}");
    assert!(
        ended.stdout.contains("it printed last:\n    k"),
        "{ended:?}"
    );
}

#[test]
fn peer_that_does_not_boot_is_named_and_nothing_is_invented() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    let ended = host.run(&[&BENCH[..], &["-n", "2", "--peer", "qemu-x=/bin/false"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("FAILED: qemu-x, boot warm-up"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("not shown"), "{ended:?}");
}

#[test]
fn boot_that_has_ended_is_reported_and_drawn() {
    let Some(host) = host(&[HELLO, RESET]) else {
        return;
    };
    host.write(
        "etc/slots/slot1.toml",
        "net = []\n[machine]\nmemory = 64\n[vsock]\nenabled = false\n",
    );
    host.run(&["boot-report", "slot1"])
        .failed_with(1, "Nothing is known of a boot of slot1");
    let ran = host.run(&["run", "slot1", "--ignore-cpu-check"]);
    assert_eq!(ran.code, Some(10), "{ran:?}");
    let picture = host.path("boot.svg").display().to_string();
    let ended = host.run(&["boot-report", "slot1", "--svg", &picture]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in [
        "vcpu run",
        "LARGEST CAUSES",
        "The guest was not asked: the slot does not run any more",
    ] {
        assert!(ended.stdout.contains(word), "{word}: {ended:?}");
    }
    assert!(
        fs::read_to_string(picture)
            .unwrap()
            .contains("data-name=\"vcpu run\"")
    );
    let ended = host.run(&["boot-report", "slot1", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["causes"].as_array().unwrap().len(), 3);
    assert_eq!(report["phases"][0]["phase"], "exec");
}
