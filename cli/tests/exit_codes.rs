//! Bad input that is found before there is a machine: one clear error, the documented exit code,
//! and nothing left behind. Needs no KVM.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::Host;

#[test]
fn usage_is_2() {
    let host = Host::new();
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["run", "slot1", "--no-such-option"],
        &["stop", "Slot 1"],
    ] {
        assert_eq!(host.run(arguments).code, Some(2), "{arguments:?}");
    }
    host.run(&["run", "Slot_1"])
        .failed_with(2, "is not a slot name");
}

#[test]
fn configuration_is_30() {
    let host = Host::new();
    host.write("etc/slots/slot1.toml", "memory = 1\n");
    host.run(&["run", "slot1"])
        .failed_with(30, "slot1.toml:1:1: `memory`: unknown key");
    host.write("etc/slots/slot1.toml", "[machine]\nmemory = 8\n");
    host.run(&["run", "slot1"])
        .failed_with(30, "slot1.toml:2:10: `machine.memory`: expected 32 MiB");
    host.write("etc/slots/slot1.toml", "[machine]\nmemory = \"2TiB\"\n");
    host.run(&["run", "slot1"])
        .failed_with(30, "`machine.memory`: expected 32 MiB");
    host.run(&["run", "./no-such.toml"])
        .failed_with(30, "Failed to read configuration ./no-such.toml");
    assert_eq!(host.files("state"), Vec::<String>::new());
}

#[test]
fn a_missing_or_foreign_bootstrap_is_30() {
    let host = Host::new();
    let boot = |image: &str| {
        let image = host.path(image).display().to_string();
        host.write(
            "etc/slots/slot1.toml",
            &format!("[boot]\nbootstrap = \"{image}\"\n"),
        );
        host.run(&["run", "slot1", "--dry-run"])
    };
    boot("none.squashfs").failed_with(30, "/HOST/none.squashfs does not exist");
    fs::write(host.path("foreign"), vec![0; 4096]).unwrap();
    boot("foreign").failed_with(30, "/HOST/foreign");
    fs::write(host.path("short"), b"hsqs").unwrap();
    boot("short").failed_with(30, "/HOST/short has 4 bytes: expected a multiple of 512");
    boot("etc").failed_with(30, "/HOST/etc is a directory");
    assert_eq!(host.files("state"), Vec::<String>::new());
}

#[test]
fn a_missing_state_directory_is_31() {
    let host = Host::new();
    fs::remove_dir(host.path("state")).unwrap();
    host.run(&["run", "slot1"])
        .failed_with(31, "directory /HOST/state does not exist: create it");
    assert!(!host.path("state").exists());
}

#[test]
fn images_that_are_none_are_30() {
    let host = Host::new();
    fs::create_dir(host.path("state/slot1")).unwrap();
    let image = host.path("state/slot1/data.img");
    fs::create_dir(&image).unwrap();
    host.run(&["run", "slot1"])
        .failed_with(30, "data.img is a directory: expected a raw image");
    fs::remove_dir(&image).unwrap();
    fs::write(&image, vec![0; 1000]).unwrap();
    host.run(&["run", "slot1"])
        .failed_with(30, "has 1000 bytes: expected a multiple of 512");
    fs::remove_file(&image).unwrap();
    symlink("../none", &image).unwrap();
    host.run(&["run", "slot1"])
        .failed_with(30, "is a link to ../none, which does not exist");
}

#[test]
fn a_locked_image_is_32_and_names_its_holder() {
    let host = Host::new();
    fs::create_dir(host.path("state/slot1")).unwrap();
    let image = fs::File::create(host.path("state/slot1/data.img")).unwrap();
    image.set_len(1 << 20).unwrap();
    let lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK.try_into().unwrap(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&image, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    let holder = format!("is locked by process {}", std::process::id());
    host.run(&["run", "slot1"]).failed_with(32, &holder);
    let dry = host.run(&["run", "slot1", "--dry-run"]);
    assert_eq!(dry.code, Some(0));
    assert!(dry.stdout.contains("1 MiB, in use by process"), "{dry:?}");
}

#[test]
fn a_missing_tap_is_31() {
    let host = Host::new();
    fs::create_dir(host.path("state/slot1")).unwrap();
    fs::File::create(host.path("state/slot1/data.img"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    host.write("etc/slots/slot1.toml", "[[net]]\ntap = \"no-such-tap\"\n");
    host.run(&["run", "slot1"])
        .failed_with(31, "Tap no-such-tap does not exist: create it");
    assert!(!host.path("run/slot1/control.sock").exists());
}

#[test]
fn a_slot_that_is_not_running_is_1() {
    let host = Host::new();
    for verb in ["stop", "pause", "resume", "status"] {
        let message = "slot1 is not running: no control socket at /HOST/run/slot1/control.sock";
        host.run(&[verb, "slot1"]).failed_with(1, message);
    }
    let message = "slot1 is not running: no console socket at /HOST/run/slot1/console.sock";
    host.run(&["console", "slot1"]).failed_with(1, message);
}

#[test]
fn printing_to_a_closed_pipe_is_no_failure() {
    let host = Host::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = host.command(&["list"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn version_and_completion_print() {
    let host = Host::new();
    assert!(host.run(&["version"]).stdout.starts_with("slotvmm "));
    for shell in ["bash", "zsh", "fish"] {
        let script = host.run(&["completion", shell]);
        assert!(
            script.code == Some(0) && script.stdout.contains("dry-run"),
            "{shell}"
        );
    }
}

#[test]
fn a_host_without_kvm_is_31() {
    let host = Host::new();
    host.write(
        "etc/slots/slot1.toml",
        "net = []\n[data]\nenabled = false\n",
    );
    let script = "mount -t tmpfs tmpfs /dev || exit 99
        exec $0 run slot1 --ignore-cpu-check";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_slotvmm")])
        .env("SLOTVMM_CONFIG", host.path("etc"))
        .output();
    let ended = match output {
        Ok(output) => host.ended(output),
        Err(error) => return eprintln!("skipped: unshare does not start: {error}"),
    };
    if ended.code == Some(99) || ended.stderr.contains("unshare:") {
        return eprintln!("skipped: no mount namespace: {}", ended.stderr.trim());
    }
    ended.failed_with(31, "/dev/kvm does not exist");
    assert_eq!(host.files("run/slot1"), ["lock"]);
}

#[test]
fn a_processor_without_virtualisation_is_33() {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    if flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
    {
        return eprintln!("skipped: this processor has hardware virtualisation");
    }
    let host = Host::new();
    host.write(
        "etc/slots/slot1.toml",
        "net = []\n[data]\nenabled = false\n",
    );
    host.run(&["run", "slot1"])
        .failed_with(33, "no hardware virtualisation");
    assert_eq!(host.run(&["doctor"]).code, Some(33));
}
