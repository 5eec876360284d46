//! Making a data image when the host does not play along. The slots here have no tap, so a run
//! that gets past its disks ends with 31 and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use common::{Ended, Host};

const NO_TAP: &str = "Tap vm-slot1 does not exist";

/// Runs slot1 in a mount namespace whose state directory is a file system mounted with `options`;
/// nothing where that cannot be had.
fn run_on(host: &Host, options: &str) -> Option<(Ended, Vec<String>)> {
    let script = "mount -t tmpfs -o $1 tmpfs $2 || exit 99
        $3 run slot1
        code=$?
        find $2 -mindepth 1 >&1
        exit $code";
    let binary = env!("CARGO_BIN_EXE_slotvmm");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", options])
        .arg(host.path("state"))
        .arg(binary)
        .env("SLOTVMM_CONFIG", host.path("etc"))
        .output()
        .ok()?;
    let ended = host.ended(output);
    if ended.code == Some(99) || ended.stderr.contains("unshare:") {
        eprintln!("skipped: no mount namespace: {}", ended.stderr.trim());
        return None;
    }
    let left = ended.stdout.lines().map(str::to_owned).collect();
    Some((ended, left))
}

#[test]
fn a_full_disk_is_31_and_leaves_nothing() {
    let host = Host::new();
    let Some((ended, left)) = run_on(&host, "size=32k") else {
        return;
    };
    ended.failed_with(
        31,
        "Disk data: mkfs.ext4 failed for the new image /HOST/state/slot1/data.img",
    );
    assert!(
        ended.stderr.contains("No space left on device"),
        "{ended:?}"
    );
    assert_eq!(left, Vec::<String>::new());

    let template = host.path("template");
    fs::write(&template, vec![1; 1 << 20]).unwrap();
    let template = template.display();
    host.write(
        "etc/slots/slot1.toml",
        &format!("[data]\nsize = 1\ntemplate = \"{template}\"\n"),
    );
    let Some((ended, left)) = run_on(&host, "size=64k") else {
        return;
    };
    ended.failed_with(
        31,
        "Disk data: failed to copy the template for the new image",
    );
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_read_only_state_directory_is_31() {
    let host = Host::new();
    let Some((ended, left)) = run_on(&host, "ro") else {
        return;
    };
    ended.failed_with(
        31,
        "Disk data: failed to create the directory for the new image",
    );
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_new_image_is_made_before_the_tap_is_missed() {
    let host = Host::new();
    host.run(&["run", "slot1"]).failed_with(31, NO_TAP);
    assert_eq!(host.files("state"), ["slot1", "slot1/data.img"]);
}

#[test]
fn a_failing_mkfs_is_31_with_its_words() {
    let host = Host::new();
    fake_mkfs(&host, "echo 'no, not today' >&2; exit 1");
    let output = with_fake_mkfs(&host).output().unwrap();
    host.ended(output)
        .failed_with(31, "/HOST/state/slot1/data.img: no, not today");
    assert_eq!(host.files("state"), Vec::<String>::new());
}

#[test]
fn a_killed_run_leaves_only_what_the_next_one_takes_over() {
    let host = Host::new();
    let gate = host.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fake_mkfs(&host, &format!("exec cat {}", gate.display()));
    let mut run = with_fake_mkfs(&host)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opening the gate waits until mkfs stands before it.
    let gate = OpenOptions::new().write(true).open(gate).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(host.files("state"), ["slot1", "slot1/.data.img.new"]);
    // The process is gone, its mkfs is not: nobody else may write to the image yet.
    host.run(&["run", "slot1"])
        .failed_with(32, "is locked by process");
    assert_eq!(host.files("state"), ["slot1", "slot1/.data.img.new"]);
    drop(gate);
    // Its mkfs ends when it gets to; each attempt until then finds the lock.
    let done = (0..1000)
        .map(|_| host.run(&["run", "slot1"]))
        .find(|run| run.code != Some(32));
    done.unwrap().failed_with(31, NO_TAP);
    assert_eq!(host.files("state"), ["slot1", "slot1/data.img"]);
}

/// Puts a program of this name first in the path of [`with_fake_mkfs`].
fn fake_mkfs(host: &Host, script: &str) {
    fs::create_dir(host.path("bin")).unwrap();
    host.write("bin/mkfs.ext4", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(host.path("bin/mkfs.ext4"), Permissions::from_mode(0o755)).unwrap();
}

fn with_fake_mkfs(host: &Host) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [host.path("bin")]
        .into_iter()
        .chain(std::env::split_paths(&path));
    let mut command = host.command(&["run", "slot1"]);
    command.env("PATH", std::env::join_paths(paths).unwrap());
    command
}
